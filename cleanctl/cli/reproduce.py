"""`cleanctl reproduce TABLE`: a published table, row by row."""

from __future__ import annotations

import typer

from cleanctl.cli.console import Run
from cleanctl.config import ReproduceConfig
from cleanctl.config.reproduce import TABLES
from cleanctl.errors import InputError, UsageError


def reproduce(config: ReproduceConfig | None, run: Run) -> None:
    """Run a published table, and print its values beside ours.

    Runs or resumes the rows whose data, weights and methods are here, and says of each other row what is missing.
    Without --data it prints the published values. Ends with 3 if a row failed.

    Examples

      cleanctl reproduce T4
      cleanctl reproduce T4 --data data/ --models weights/ --rows 'ours/cifar10-*' --seeds 3
      cleanctl reproduce figure3 --data data/ --dry-run
    """
    from cleanctl import api
    from cleanctl.cli.tables.reproduce import reproduce_tables

    if config is None:
        raise UsageError("TABLE is missing.", do=f"Give one of: {', '.join(TABLES)}.")
    report = api.reproduce(config, progress=run.progress)
    run.result(report, shown=reproduce_tables(report))
    if any(cell.state == "failed" for cell in report.cells):
        raise typer.Exit(InputError.exit_code)
