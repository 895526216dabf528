"""`cleanctl diff`: two selections, and why they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import DiffConfig
from cleanctl.errors import UsageError


def diff(
    config: DiffConfig | None,
    store: Path,
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the samples that differ: FILE.parquet or FILE.csv.",
            show_default=False,
            rich_help_panel="Run",
        ),
    ] = None,
) -> None:
    """Compare two selections: which samples one keeps and the other drops, by rule and class.

    Each such sample has one reason, so the counts add up.

    Examples

      cleanctl diff intersection union
      cleanctl diff intersection "zeroshot.match" --out changed.csv
    """
    if config is None:
        raise UsageError("Two selections are needed.", do="Name them: cleanctl diff A B   (cleanctl status lists them)")
    from cleanctl import api
    from cleanctl.cli.tables.diff import diff_tables

    report = api.diff(config, store=store, out=out)
    for text in report.notes:
        run.progress.warn(text)
    run.result(report, shown=diff_tables(report))
