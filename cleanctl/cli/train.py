"""`cleanctl train`: selection → model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import TrainConfig
from cleanctl.progress import SILENT
from cleanctl.runtime import torchrun_place


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

    Examples

      cleanctl train
      cleanctl train --recipe webvision
      cleanctl train --seeds 3
      torchrun --nproc-per-node 2 -m cleanctl train
      cleanctl train --method cross-entropy --selection all
    """
    from cleanctl import api
    from cleanctl.cli.tables.train import seeds_table, train_table

    if seeds is not None:
        several = api.train_seeds(config, seeds, store=store, progress=run.progress)
        run.result(several, shown=seeds_table(several))
        return
    first = torchrun_place()[0] == 0  # of torchrun's processes one prints
    result = api.train(config, store=store, progress=run.progress if first else SILENT)
    if first:
        run.result(result, shown=train_table(result))
