"""`cleanctl train`: selection → model."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import TrainConfig


def train(config: TrainConfig, store: Path, run: Run) -> None:
    """Train a classifier on the selection with MixFix.

    [bold]Examples[/bold]

      cleanctl train
      cleanctl train --recipe webvision
      cleanctl train --method cross-entropy --selection all
    """
    from cleanctl import api
    from cleanctl.cli.tables.train import train_table

    result = api.train(config, store=store, progress=run.progress)
    run.result(result, shown=train_table(result))
