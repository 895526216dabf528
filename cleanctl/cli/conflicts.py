"""`cleanctl conflicts`: copies, leaks, contradictory labels and placeholders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import ConflictsConfig


def conflicts(
    config: ConflictsConfig,
    store: Path,
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the groups: FILE.parquet, FILE.csv or FILE.json.",
            show_default=False,
            rich_help_panel="Run",
        ),
    ] = None,
) -> None:
    """Find copies of images, exact and near; those with different labels, those in other splits, and placeholders.

    Writes the score conflict, for rules of select that leave such images out.

    Examples

      cleanctl conflicts
      cleanctl conflicts --out conflicts.csv
      cleanctl select --strategy "zeroshot.match & ~conflict.leak & ~conflict.duplicate"
    """
    from cleanctl import api
    from cleanctl.cli.tables.conflicts import conflicts_tables

    summary = api.conflicts(config, store=store, out=out, progress=run.progress)
    run.result(summary, shown=conflicts_tables(summary))
