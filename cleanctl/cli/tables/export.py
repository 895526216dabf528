"""What `export` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import Summary
from cleanctl.results import ExportResult


def export_lines(record: ExportResult) -> list[Any]:
    """How many, as what, where; a few names."""
    verb = "Would write" if record.dry_run else "Wrote"
    relabelled = f", {record.relabelled:,} of them with another label" if record.relabelled else ""
    said = (
        f"{verb} {record.samples:,} samples of {escape(record.selection)} ({escape(record.split)}, "
        f"{record.classes:,} classes){relabelled} as {record.to}: {escape(record.out)}"
    )
    following = ("the same command without --dry-run",) if record.dry_run else ()
    return [*(f"  {escape(name)}" for name in record.examples), Summary((said,), following)]
