"""From a store's split and model to `ImageFeatures`: the tower under tuning, its images, and what a machine allows.

In: the store's model (model.py), which way to tune, a view, and loaders of the split's images. Nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cleanctl.adapt.image_features import ImageFeatures
from cleanctl.adapt.model import TextModel
from cleanctl.adapt.views import View, Views
from cleanctl.clip.tune.learnt_file import read_learnt
from cleanctl.clip.tune.tower import tune_tower
from cleanctl.config import AdaptConfig
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, InterruptedRun
from cleanctl.progress import Progress
from cleanctl.runtime import StopFlag, choose_precision
from cleanctl.store import Split
from cleanctl.train.pixels import Stopped, open_pixels
from cleanctl.train.ranks import Ranks
from cleanctl.train.sets import LoaderFactory

PREFIX = "learnt.tower."  # of a tower's numbers in detector.safetensors


@contextmanager
def open_images(
    split: Split,
    model: TextModel,
    settings: TuneSettings,
    view: View | None,
    loaders: LoaderFactory,
    stop: StopFlag,
    *,
    values: Mapping[str, Tensor] | None = None,
    ranks: Ranks | None = None,
    part: slice = slice(0, None),
) -> Iterator[ImageFeatures]:
    """The tower starts at `values`, or else where its kind starts; part: of the readable rows. Closes the loader in the
    end.

    Raises UsageError or InputError for a tower that cannot be tuned so, InputError where images of the store cannot be
    read any more, InterruptedRun where a stop is asked for while they are read.
    """
    config, device, progress = model.config, model.device, model.progress
    views = Views(view or View(), model.encoder.info)
    tower = tune_tower(model.network.visual, settings, seed=config.seed)
    if values is not None:
        tower.set_values(values)
    if config.recompute:
        tower.recompute()
    progress.note(f"Tuning {tower.count():,} numbers of the image tower: {settings}.")
    loader = loaders(split.name, views.spec)
    try:
        pixels = open_pixels(
            loader,
            split.ok_rows()[part],
            side=views.spec.size,
            device=device,
            cache=config.cache,
            title="Images",
            progress=progress,
            stop=stop,
        )
        if lost := int((~pixels.ok_M).sum()):
            raise InputError(
                f"{lost:,} images of split {split.name!r} could be read by embed and cannot be read now.",
                so="A detector cannot say anything of them.",
                do="Bring them back, or run embed again, which takes note of it.",
            )
        precision = _precision(config, device, progress)
        yield ImageFeatures(tower, pixels, views, seed=config.seed, device=device, precision=precision, ranks=ranks)
    except Stopped as exc:
        raise InterruptedRun("Stopped before the first step.", do="The same command starts again.") from exc
    finally:
        loader.close()


def tower_values(path: Path) -> tuple[TuneSettings | None, dict[str, Tensor]]:
    """How the tower of a detector was tuned, None where it was not, and its numbers."""
    tensors, learnt = read_learnt(path)
    return learnt.tune, {name.removeprefix(PREFIX): one for name, one in tensors.items() if name.startswith(PREFIX)}


def _precision(config: AdaptConfig, device: str, progress: Progress) -> str:
    """bf16 on a GPU that has it, else fp16 there; float32 on a CPU."""
    if config.precision != "auto":
        return choose_precision(config.precision, device).value
    if device != "cuda":
        return "fp32"
    chosen = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    progress.note(f"The image tower runs in {chosen} (autocast); what is trained stays float32.")
    return chosen
