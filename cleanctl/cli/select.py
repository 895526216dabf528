"""`cleanctl select`: store → selection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import SelectConfig
from cleanctl.progress import SILENT
from cleanctl.runtime import torchrun_place


def select(
    config: SelectConfig,
    store: Path,
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the selection table: FILE.parquet or FILE.csv.",
            show_default=False,
            rich_help_panel="Run",
        ),
    ] = None,
) -> None:
    """Decide which labels to trust, and keep the evidence.

    A rule is SCORER.MECHANISM: scorers zeroshot, logistic, knn, joint, probe; mechanisms loss, consistency, match.
    joint is joint.posterior: the probability that the label is right, from prompts, images and labels together.
    detector is what cleanctl adapt learnt, detector.dual its decision. The default, intersection, is the paper's:
    zeroshot.loss & zeroshot.consistency & logistic.loss & logistic.consistency.

    Which one: intersection (or zeroshot.loss) where wrong labels cost most, as before training; zeroshot.consistency
    or logistic.consistency where images are scarce; union or vote:2 for little noise or review by people.

    Examples

      cleanctl select
      cleanctl select --strategy "zeroshot.loss & ~knn.match" --name suspects --out suspects.csv
      torchrun --nproc-per-node 2 -m cleanctl select
    """
    from cleanctl import api
    from cleanctl.cli.tables.select import selection_tables

    first = torchrun_place()[0] == 0  # of torchrun's processes one prints
    summary = api.select(config, store=store, out=out, progress=run.progress if first else SILENT)
    if first:
        run.result(summary, shown=selection_tables(summary))
