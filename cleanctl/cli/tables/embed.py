"""What `embed` and `embed --show-failures` tell."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.console import duration
from cleanctl.cli.tables.shared import SHOWN_CLASSES, Summary, new_table
from cleanctl.results import EmbedSummary, FailureReport
from cleanctl.strategy import WITHOUT_PROMPTS

IMPORTED = "imported from"  # how the model of imported arrays begins


def embed_table(record: EmbedSummary) -> list[Any]:
    """Per split what came in and what failed, with the first reasons; and what to type next."""
    table = new_table(_embed_title(record.model), "split", "images", "ok", "failed", "new", "images/s")
    for split in record.splits:
        speed = split.images_per_second
        table.add_row(
            escape(split.split),
            *(f"{count:,}" for count in (split.images, split.ok, split.failed, split.embedded)),
            "–" if speed is None else f"{speed:,.0f}",
        )
    shown: list[Any] = [table]
    select = "cleanctl select" if record.prompts else f"cleanctl select --strategy {WITHOUT_PROMPTS}"
    following = (select,) if record.complete else ("cleanctl embed SOURCE --finish", select)
    failures = [pair for split in record.splits for pair in split.failures]
    if failures:
        reasons = new_table("Failed (a few; they are kept out of every selection)", "image", "reason")
        reasons.columns[1].justify = "left"
        reasons.columns[1].no_wrap = False
        for key, reason in failures[:5]:
            reasons.add_row(escape(key), escape(reason))
        shown.append(reasons)
    took = f" ({duration(record.seconds)})" if record.seconds else ""
    images, failed = (sum(counts) for counts in zip(*((one.ok, one.failed) for one in record.splits), strict=True))
    done = "rows are imported" if record.model.startswith(IMPORTED) else "images are embedded"
    said = f"{images:,} {done}" + (f", {failed:,} could not be read" if failed else "")
    waiting = () if record.complete else ("Other shards are not embedded yet.",)
    return [*shown, Summary((f"{said}{took}: {escape(str(record.store))}", *waiting), following)]


def failure_tables(record: FailureReport) -> list[Any]:
    """Failures by reason and first bytes, with an example each, and where the whole list is."""
    if not record.count:
        said = f"None of the {record.images:,} images of {escape(str(record.store))} failed."
        return [Summary((said,), ("cleanctl select",))]
    table = new_table("Failed images", "reason", "first bytes", "images", "for example")
    for column, left in enumerate((True, True, False, True)):
        table.columns[column].justify = "left" if left else "right"
        table.columns[column].no_wrap = not left
    for kind in record.kinds()[:SHOWN_CLASSES]:
        table.add_row(
            *(escape(kind.reason), escape(kind.first_bytes)),
            *(f"{kind.images:,}", escape(kind.example)),
        )
    said = f"{record.count:,} of {record.images:,} images failed. All of them, with reasons:"
    listed = (f"  {escape(str(path))}" for path in record.tables.values())
    return [table, Summary((said, *listed), ("cleanctl embed SOURCE --retry-failures",))]


def _embed_title(model: str) -> str:
    return f"I{escape(model[1:])}" if model.startswith(IMPORTED) else f"Embedded with {escape(model)}"
