"""What `adapt` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.console import duration
from cleanctl.cli.tables.shared import Summary, decimal, new_table, percent
from cleanctl.results import AdaptResult


def adapt_table(record: AdaptResult) -> list[Any]:
    """What was learnt, what it keeps, and what to type next."""
    table = new_table(f"Detector {escape(record.name)} on {escape(record.split)}", "", "")
    table.show_header = False
    table.add_row("learnt, preset", f"{record.tune}, {record.preset}")
    if record.epochs:
        table.add_row("numbers learnt", f"{record.parameters:,}")
        table.add_row("epochs", f"{record.epochs} ({duration(record.seconds)})")
    table.add_row(
        "judged clean", f"{record.kept:,} of {record.count:,} ({percent(record.kept / max(record.count, 1))})"
    )
    table.add_row("another class is likelier", f"{record.suggested_other:,}")
    if found := record.found:
        rates = ", ".join(decimal(rate) for rate in (found.precision, found.recall, found.f1))
        table.add_row("precision, recall, F1 against the truth", rates)
    select = "cleanctl select --strategy detector.dual" + (
        "" if record.split == "train" else f" --split {record.split}"
    )
    said = f"The detector [bold]{escape(record.name)}[/bold] judges {record.kept:,} of {record.count:,} labels right."
    return [table, Summary((said, f"Detector and metrics: {escape(record.folder)}"), (select,))]
