"""Small JPEG images of chosen rows, from the FFCV file beside the store or from the source.

In: rows and where their bytes are. Out: row → JPEG, and how many could not be read. The FFCV file is used for the rows
whose content it holds as it was embedded; the rest is read from the source, which may be gone: that is said, not fatal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cleanctl.images.decode import UnreadableImage, decode_reduced
from cleanctl.images.packed.beton import RAW, BetonFile, Sample
from cleanctl.images.packed.rows import RowTable, read_rows, table_path
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Status, Storage
from cleanctl.report.snapshot import Snapshot

SIDE, LARGE_SIDE = 96, 320  # pixels of the long side: inside the page, in a folder beside it
QUALITY = 72
READ_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Thumbnails:
    """jpeg: by row, in the order asked for, until they reached the bytes allowed. missing: could not be read."""

    jpeg: dict[int, bytes]
    missing: int
    side: int


def make_thumbnails(
    snapshot: Snapshot,
    rows: Sequence[int],
    *,
    files: Storage | None,
    beton: Path | None,
    side: int = SIDE,
    most_bytes: int | None = None,
    progress: Progress = SILENT,
) -> Thumbnails:
    """rows: of the split, the most wanted first. beton: the FFCV file's place, whether it is there or not."""
    made: dict[int, bytes] = {}
    missing = size = 0
    packed = _open_packed(beton, snapshot)
    with progress.track("Images for the report", total=len(rows), unit="images") as task:
        for row, image in _images(snapshot, rows, files, packed, side):
            task.advance(1)
            if image is None:
                missing += 1
                continue
            jpeg = _encoded(image, side)
            size += len(jpeg)
            if most_bytes is not None and size > most_bytes:
                break
            made[row] = jpeg
    return Thumbnails(jpeg=made, missing=missing, side=side)


def _images(
    snapshot: Snapshot,
    rows: Sequence[int],
    files: Storage | None,
    packed: tuple[BetonFile, RowTable] | None,
    side: int,
) -> Iterator[tuple[int, Image.Image | None]]:
    """(row, upright image of at least `side` pixels where the original has them, or None), in order."""
    for start in range(0, len(rows), READ_AT_ONCE):
        part = list(rows[start : start + READ_AT_ONCE])
        found = {row: _from_packed(packed, snapshot, row, side) for row in part} if packed else {}
        rest = [row for row in part if found.get(row) is None]
        if rest and files is not None:
            for row, content in zip(rest, files.read([snapshot.keys[row] for row in rest]), strict=True):
                found[row] = None if content.reason else _decoded(content.data, side)
        for row in part:
            yield row, found.get(row)


def _decoded(data: bytes | memoryview, side: int) -> Image.Image | None:
    try:
        return decode_reduced(data, lambda width, height: min(1.0, side / max(width, height)))[0]
    except UnreadableImage:
        return None


def _encoded(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


# ---- the FFCV file


def _open_packed(beton: Path | None, snapshot: Snapshot) -> tuple[BetonFile, RowTable] | None:
    """The file and its row table, where they are a pair and of this split's keys; else the source is read."""
    if beton is None or not beton.is_file():
        return None
    try:
        table, file = read_rows(table_path(beton)), BetonFile(beton)
    except (OSError, ValueError):
        return None
    pair = table.token == file.token and len(file) == len(table) == len(snapshot) and table.keys == snapshot.keys
    return (file, table) if pair else None


def _from_packed(packed: tuple[BetonFile, RowTable], snapshot: Snapshot, row: int, side: int) -> Image.Image | None:
    """None where the row is not packed, or from another content than was embedded."""
    file, table = packed
    if table.status_N[row] != Status.OK or (table.fingerprints.digest_N16[row] != snapshot.digest_N[row]).any():
        return None
    sample = file[row]
    if not table.has(row, sample.data):
        return None
    return _raw(sample) if sample.mode == RAW else _decoded(sample.data, side)


def _raw(sample: Sample) -> Image.Image:
    pixel_HWC = np.frombuffer(sample.data, np.uint8).reshape(sample.height, sample.width, 3)
    return Image.fromarray(pixel_HWC.copy())
