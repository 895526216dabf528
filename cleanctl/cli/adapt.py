"""`cleanctl adapt`: CLIP learns from the noisy labels which of them to trust."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import AdaptConfig
from cleanctl.progress import SILENT
from cleanctl.runtime import torchrun_place


def adapt(config: AdaptConfig, store: Path, run: Run) -> None:
    """Learn a detector of wrong labels from the labels themselves (DeFT).

    Positive and negative prompts of each class are learnt. The score detector in the store then serves rules of select:
    detector.dual, detector.match, detector.loss, detector.consistency.

    prompts: on the store's embeddings, minutes on two cores for 50,000 images of 10 classes. class-vectors: seconds,
    and it needs no text tower. Every other --tune reads the images and trains a part of the image tower too.

    Examples

      cleanctl adapt && cleanctl select --strategy detector.dual
      cleanctl adapt --tune class-vectors --preset cifar100n
      cleanctl adapt --tune vpt-deep --preset cub
      torchrun --nproc-per-node 2 -m cleanctl adapt --tune lora
      cleanctl adapt --apply prompts --split test
    """
    from cleanctl import api
    from cleanctl.cli.tables.adapt import adapt_table

    first = torchrun_place()[0] == 0  # of torchrun's processes one prints
    result = api.adapt(config, store=store, progress=run.progress if first else SILENT)
    if first:
        run.result(result, shown=adapt_table(result))
