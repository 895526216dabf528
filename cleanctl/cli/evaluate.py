"""`cleanctl eval`: numbers for the selection, the zero-shot classifier and the trained model."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import EvalConfig


def evaluate(config: EvalConfig, store: Path, run: Run) -> None:
    """Judge the selection and the trained network.

    The selection against the truth where it is known, zero-shot accuracy, and top-1 and top-5 of the newest run.

    Example

      cleanctl eval --json > numbers.json
    """
    from cleanctl import api
    from cleanctl.cli.tables.evaluate import eval_tables

    report = api.evaluate(config, store=store, progress=run.progress)
    run.result(report, shown=eval_tables(report))
