"""`cleanctl train`: selection → model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import TrainConfig


def train(
    config: TrainConfig,
    store: Path,
    run: Run,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train N times, from --seed on; mean and deviation.",
            show_default=False,
            rich_help_panel="Run",
        ),
    ] = None,
) -> None:
    """Train a classifier on the selection with MixFix.

    [bold]Examples[/bold]

      cleanctl train
      cleanctl train --recipe webvision
      cleanctl train --seeds 3
      cleanctl train --method cross-entropy --selection all
    """
    from cleanctl import api
    from cleanctl.cli.tables.train import seeds_table, train_table

    if seeds is not None:
        several = api.train_seeds(config, seeds, store=store, progress=run.progress)
        run.result(several, shown=seeds_table(several))
        return
    result = api.train(config, store=store, progress=run.progress)
    run.result(result, shown=train_table(result))
