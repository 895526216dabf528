"""A finished run, opened to be used: a folder and "best" or "last" → a classifier of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cleanctl.errors import StoreError
from cleanctl.meant import meant
from cleanctl.records import PixelSpec
from cleanctl.registry import METHODS
from cleanctl.train import augment
from cleanctl.train.methods.method import Method
from cleanctl.train.recipe import Recipe, from_values
from cleanctl.train.rundir import TRAIN_ANEW, RunDir, read_json, read_tensors, reporting_damage


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """`pixels` is the geometry that `logits` wants; `epoch` the one that the weights come from.

    chosen_on: the split whose accuracy picked that epoch, None for "last".
    """

    name: str
    checkpoint: str
    epoch: int
    chosen_on: str | None
    method: str
    selection: str
    classes: tuple[str, ...]
    pixels: PixelSpec
    recipe: Recipe
    network: nn.Module
    device: str

    def logits(self, pixel_BSSC: np.ndarray) -> np.ndarray:
        """uint8 (B, S, S, 3) → float32 (B, C), in float32 arithmetic."""
        pixel = torch.from_numpy(np.ascontiguousarray(pixel_BSSC)).to(self.device)
        with torch.inference_mode():
            logit: torch.Tensor = self.network(augment.plain(pixel.permute(0, 3, 1, 2), self.recipe))
        return logit.float().cpu().numpy()


def open_run(folder: Path, checkpoint: str, device: str = "cpu") -> TrainedRun:
    """checkpoint: "best" or "last". StoreError if the run or the checkpoint is not there."""
    run = RunDir(folder)
    path = {"best": run.best, "last": run.last}[checkpoint]
    if not run.config.exists():
        known = [path.parent.name for path in folder.parent.glob("*/config.json")]
        raise StoreError(f"There is no run at {folder}{meant(folder.name, known)}", do="Train one with: cleanctl train")
    if not path.exists():
        if run.result.exists():
            raise StoreError(f"The run {folder} keeps no {path.name}.", do=TRAIN_ANEW)
        raise StoreError(f"The run {folder} was not finished.", do="Run the same cleanctl train again: it goes on.")
    config, saved = read_json(run.config), read_tensors(path)
    with reporting_damage(run.config):
        recipe = from_values(config["recipe"])
        method: type[Method] = METHODS.load(config["method"])
        selection = str(config["selection"]["name"])
    with reporting_damage(path):
        meta = saved["meta"]
        network = method.build(recipe, len(meta["classes"]))
        network.load_state_dict(saved["state_dict"])
        epoch, classes = int(meta["epoch"]), tuple(meta["classes"])
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedRun(
        name=folder.name,
        checkpoint=checkpoint,
        epoch=epoch,
        chosen_on=_chosen_on(run, meta) if checkpoint == "best" else None,
        method=config["method"],
        selection=selection,
        classes=classes,
        pixels=recipe.pixel_spec(recipe.load_size),
        recipe=recipe,
        network=network.eval(),
        device=device,
    )


def _chosen_on(run: RunDir, meta: dict[str, Any]) -> str | None:
    """Runs of earlier versions chose on the split that they tested on."""
    if "chosen_on" in meta or not run.result.exists():
        return meta.get("chosen_on")
    return read_json(run.result).get("test_split")
