"""`train`: a store and a selection → a trained network in a run folder (see rundir.py for what lies there).

The door: it looks up what takes part, chooses device, recipe and precision and says why, and claims the folder;
session.py does the rest.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cleanctl.config import TrainConfig
from cleanctl.config.recipe_files import recipe_names
from cleanctl.errors import InputError
from cleanctl.paths import runs_dir
from cleanctl.progress import SILENT, Progress
from cleanctl.results import TrainResult
from cleanctl.runtime import choose_device, choose_precision, stop_requests
from cleanctl.store import Store
from cleanctl.train.clip_network import STORES_MODEL, name_of
from cleanctl.train.dynamics import require_recorded
from cleanctl.train.events import require_tensorboard
from cleanctl.train.methods.method import Compute
from cleanctl.train.pixels import Stopped
from cleanctl.train.pool import TrainingPool, find_pool
from cleanctl.train.ranks import open_ranks
from cleanctl.train.recipe import Recipe, choose_recipe, from_values, load_recipe, with_overrides
from cleanctl.train.rundir import RunDir, read_json, reporting_damage
from cleanctl.train.session import Session
from cleanctl.train.sets import LoaderFactory

IDENTITY = ("method", "split", "seed", "classes", "selection", "recipe", "rows")


def train(
    store: Store,
    config: TrainConfig,
    *,
    loader_factory: LoaderFactory,
    progress: Progress = SILENT,
    image_side: int | None = None,
) -> TrainResult:
    """Trains as `config` says, or goes on where an earlier call of the same run stopped.

    loader_factory gives a loader for a split of the store and a pixel geometry (sets.py); it is closed here.
    image_side is the images' usual short side in pixels, where known: it only helps to choose the recipe. Raises
    StoreError without a selection or where another run has the name, InputError where the loss is no number any more,
    InterruptedRun after SIGINT or SIGTERM, with the state saved, MissingPackageError for --tensorboard without its
    extra. Under torchrun each process calls it, and each gets the result (ranks.py).
    """
    if config.tensorboard:
        require_tensorboard()
    device = choose_device(config.device)
    with open_ranks(device.value) as ranks:
        progress = progress if ranks.first else SILENT
        pool = find_pool(store, config, progress=progress)
        recipe = _recipe(store, config, pool, device.value, image_side, progress)
        compute = Compute(device=device.value, precision=_precision(config, device.value, progress), ranks=ranks)
        shared = f", each batch shared by {ranks.count} processes" if ranks.count > 1 else ""
        progress.note(f"Training on {device.value} ({device.reason}), network {recipe.network}{shared}.")
        name = config.name or run_name(config, pool.selection)
        run = RunDir(runs_dir(store.path) / name)
        description = _describe(store, config, pool, recipe, compute)
        with run.lock() if ranks.first else nullcontext(), stop_requests() as stop:
            going_on = ranks.from_first(
                lambda: run.claim(description, IDENTITY, resume=config.resume, upgrade=_upgraded)
            )
            if going_on and ranks.from_first(run.result.exists):
                if config.record_dynamics:
                    require_recorded(store, config.split, name)
                progress.note(f"Run {name} is finished already; its result is shown. Train anew with --no-resume.")
                with reporting_damage(run.result):
                    return TrainResult(**read_json(run.result))
            session = Session(store, config, pool, recipe, compute, run, progress, stop)
            try:
                return session.run_all(loader_factory)
            except Stopped as exc:
                raise session.interrupted() from exc


def _upgraded(there: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version wrote, with its recipe's new fields at their defaults, which are what it did."""
    try:
        return {**there, "recipe": json.loads(json.dumps(asdict(from_values(dict(there["recipe"])))))}
    except (KeyError, TypeError, InputError):
        return there


def run_name(config: TrainConfig, selection: str) -> str:
    """`mixfix-intersection`: the method and the selection, as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{config.method}-{selection}")


def _recipe(
    store: Store, config: TrainConfig, pool: TrainingPool, device: str, side: int | None, progress: Progress
) -> Recipe:
    """The recipe asked for, else that of the selection's preset, else one that fits device and images."""
    if config.recipe is not None:
        chosen, reason = config.recipe, "asked for"
    elif pool.preset is not None:
        chosen, reason = pool.preset, f"the preset of selection {pool.selection}"
    else:
        chosen, reason = choose_recipe(num_classes=len(store.classes), device=device, image_side=side)
    published = load_recipe(chosen)
    recipe = with_overrides(published, config)
    if recipe.network == STORES_MODEL:
        recipe = replace(recipe, network=name_of(store.encoder))
    progress.note(f"Recipe {recipe.name} ({reason}): {recipe.summary}.")
    inferred = [key for key in recipe.inferred if key != "selection"]
    if guessed := [key for key in inferred if getattr(recipe, key) == getattr(published, key)]:
        progress.note(f"Not published, inferred for this recipe: {', '.join(guessed)} (see docs/recipes.md).")
    if chosen == pool.preset and config.recipe is None and device == "cpu":
        progress.warn("A published recipe takes days on a processor; --recipe cpu-small takes minutes.")
    return recipe


def _precision(config: TrainConfig, device: str, progress: Progress) -> str:
    """float32 by default on a CPU, as published; bf16 on a GPU that has it: it needs no loss scaling."""
    if config.precision != "auto":
        return choose_precision(config.precision, device).value
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        progress.note("Forward and backward run in bf16 (autocast); --precision fp32 is the published setting.")
        return "bf16"
    return "fp32"


def _whole_paths(config: TrainConfig) -> dict[str, str]:
    """The files that options name, from the root: a run may be gone on with from another folder."""
    named = {"recipe": config.recipe, "network_weights": config.network_weights}
    named["recipe"] = None if config.recipe in recipe_names() else config.recipe
    return {option: os.path.abspath(file) for option, file in named.items() if file and Path(file).is_file()}


def _describe(
    store: Store, config: TrainConfig, pool: TrainingPool, recipe: Recipe, compute: Compute
) -> dict[str, Any]:
    return {
        "method": config.method,
        "split": config.split,
        "seed": config.seed,
        "classes": list(store.classes),
        "selection": {
            "name": pool.selection,
            "kept": int(pool.selected_M.sum()),
            "fingerprint": pool.fingerprint(),
        },
        "rows": len(pool.row_M),
        "recipe": asdict(recipe),
        "config": {**config.as_json(), **_whole_paths(config)},
        "device": compute.device,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "processes": compute.ranks.count,
        "torch": torch.__version__,
    }
