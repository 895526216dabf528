"""What `report` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import Summary
from cleanctl.results import ReportResult


def report_lines(record: ReportResult) -> list[Any]:
    """Where the page is, how large, and what it holds."""
    images = f"{record.images:,} images" + (f" in {record.image_folder}" if record.image_folder else "")
    runs = f", {len(record.runs)} training run{'s' if len(record.runs) != 1 else ''}" if record.runs else ""
    rows = (
        f"{record.samples:,} samples"
        if record.shown == record.samples
        else f"{record.shown:,} of {record.samples:,} samples"
    )
    lines = [
        f"[bold]{escape(record.out)}[/bold] ({record.bytes / 1e6:.1f} MB): selection {escape(record.selection)}, "
        f"{rows}, {images}{runs}. Open it in a browser."
    ]
    lines += [f"The whole table: {escape(record.table)}"] if record.table else []
    return [Summary(tuple(lines), ("cleanctl review apply verdicts.json", "cleanctl train"))]
