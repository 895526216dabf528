"""`sheet.png`: some of what was kept and some of what was not, to see with one's own eyes.

In: the rows of a selection table (text, as csv reads them), the truth by key, the folder of images. Each picture has
the given label below it; a rejected one also what the evidence suggests instead. A green frame says that the given
label is right, a red one that it is wrong: the selection did not know. Leaves one PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Row = Mapping[str, str]
COLUMNS, KEPT_ROWS, REJECTED_ROWS = 10, 2, 4
CELL, PICTURE, MARGIN, HEAD = 124, 96, 20, 46
INK, FAINT, RIGHT, WRONG, PAPER = (25, 25, 30), (110, 110, 118), (40, 150, 70), (205, 50, 45), (250, 250, 248)


def draw_sheet(rows: Sequence[Row], truth: Mapping[str, str], images: Path, path: Path) -> Path:
    kept = [row for row in rows if row["keep"].lower() in ("true", "1")]
    rejected = [row for row in rows if row["keep"].lower() not in ("true", "1")]
    right_kept = _share(kept, truth)
    right_rejected = _share(rejected, truth)
    parts = (
        (
            kept,
            KEPT_ROWS,
            1,
            f"Kept: {len(kept):,} of {len(rows):,}",
            f"{right_kept:.0%} of these labels are right (green frame: right, red: wrong)",
        ),
        (
            *(rejected, REJECTED_ROWS, 2, f"Not kept: {len(rejected):,}"),
            f"{right_rejected:.0%} of these labels are right; below the label: what the evidence suggests",
        ),
    )
    heights = [HEAD + count * (CELL + 14 * lines) for _, count, lines, _, _ in parts]
    sheet = Image.new("RGB", (2 * MARGIN + COLUMNS * CELL, 2 * MARGIN + sum(heights)), PAPER)
    top = MARGIN
    for (chosen, count, lines, title, remark), height in zip(parts, heights):
        _write_head(sheet, top, title, remark)
        for place, row in enumerate(_sample(chosen, COLUMNS * count)):
            x = MARGIN + (place % COLUMNS) * CELL
            y = top + HEAD + (place // COLUMNS) * (CELL + 14 * lines)
            _draw_cell(sheet, (x, y), row, truth, images, suggest=lines == 2)
        top += height
    sheet.save(path)
    return path


def _share(rows: Sequence[Row], truth: Mapping[str, str]) -> float:
    return sum(row["label_name"] == truth[row["key"]] for row in rows) / max(len(rows), 1)


def _sample(rows: Sequence[Row], count: int) -> list[Row]:
    """The same few on every run, by chance and not by merit."""
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(order.tolist())]


def _write_head(sheet: Image.Image, top: int, title: str, remark: str) -> None:
    draw = ImageDraw.Draw(sheet)
    big, small = ImageFont.load_default(19), ImageFont.load_default(13)
    draw.text((MARGIN, top + 6), title, INK, font=big)
    draw.text((MARGIN + draw.textlength(title, font=big) + 14, top + 11), remark, FAINT, font=small)


def _draw_cell(
    sheet: Image.Image, at: tuple[int, int], row: Row, truth: Mapping[str, str], images: Path, *, suggest: bool
) -> None:
    x, y = at
    given, suggested, real = row["label_name"], row["suggested_name"], truth[row["key"]]
    with Image.open(images / row["key"]) as image:
        image.thumbnail((PICTURE, PICTURE))
        left, upper = x + (PICTURE - image.width) // 2, y + (PICTURE - image.height) // 2
        sheet.paste(image, (left, upper))
        box = (left - 3, upper - 3, left + image.width + 2, upper + image.height + 2)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle(box, outline=RIGHT if given == real else WRONG, width=3)
    font = ImageFont.load_default(12)
    draw.text((x, y + PICTURE + 6), given, INK if given == real else WRONG, font=font)
    if suggest and suggested != given:
        draw.text((x, y + PICTURE + 21), f"› {suggested}", RIGHT if suggested == real else FAINT, font=font)
