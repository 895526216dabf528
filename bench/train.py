"""What feeding a network costs: training steps against the same network's own steps on ready tensors.

    python -m bench.train [--recipes cpu-small,cifar10] [--networks NAME,…] [--images 4096] [--steps 8] [--runs 5]
                          [--device auto] [--out FILE]

network  forward, backward and update on one normalised batch that is there already, nothing else
train    the whole step: draw the batch from the held bytes, augment, normalise, mix, forward, backward, update
augment  the training view of a batch alone
predict  the plain view and the forward pass, as MixFix needs for every image after every epoch

`share` is train's rate as a share of network's: what is missing to 1 is lost to loading and augmentation. The sides
run in turn in one process, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bench.harness import report, side_by_side
from cleanctl.progress import SILENT
from cleanctl.runtime import StopFlag, choose_device
from cleanctl.train import augment
from cleanctl.train.engine import Engine, State
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.methods.mixfix import MixFix
from cleanctl.train.pixels import HeldPixels
from cleanctl.train.recipe import Recipe, load_recipe

CLASSES = 10


def measure(recipe: Recipe, *, device: str, images: int, steps: int, runs: int) -> dict[str, Any]:
    engine = _engine(recipe, device=device, images=images, steps=steps)
    count = steps * recipe.batch_size
    sides = {
        "network": _network_alone(engine, steps),
        "train": lambda: _train(engine),
        "augment": _augment_alone(engine, steps),
        "predict": lambda: _predict(engine, images),
    }
    timings = side_by_side(sides, runs=runs)
    return {
        "recipe": recipe.name,
        "network": recipe.network,
        "policy": recipe.policy,
        "batch": recipe.batch_size,
        "precision": engine.method.compute.precision,
        "n": runs,
        "steps/s": timings["train"].rate(steps),
        "q1_s": timings["train"].low,
        "q3_s": timings["train"].high,
        "train img/s": timings["train"].rate(count),
        "network img/s": timings["network"].rate(count),
        "share": timings["network"].median / timings["train"].median,
        "augment img/s": timings["augment"].rate(count),
        "predict img/s": timings["predict"].rate(images),
    }


def precision_of_runs(device: str) -> str:
    """What `train` takes where nothing is asked for: bf16 on a GPU that has it."""
    return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _engine(recipe: Recipe, *, device: str, images: int, steps: int) -> Engine:
    rng = np.random.default_rng(0)
    side = recipe.load_size if recipe.loader_crop() is None else recipe.image_size
    pixel = torch.from_numpy(rng.integers(0, 256, (images, side, side, 3), dtype=np.uint8)).to(device)
    setup = Setup(
        recipe=recipe,
        num_classes=CLASSES,
        compute=Compute(device=device, precision=precision_of_runs(device)),
        label_M=rng.integers(0, CLASSES, images).astype(np.int32),
        selected_M=np.ones(images, bool),
    )
    return Engine(MixFix(setup), pixels=HeldPixels(pixel, np.ones(images, bool), device), seed=0, steps=steps)


def _train(engine: Engine) -> None:
    with SILENT.track("bench", total=None, unit="images") as task:
        engine.train_epoch(State(members=engine.method.members()), task, StopFlag(), lambda: None)


def _predict(engine: Engine, images: int) -> None:
    engine.view(lambda: engine.pixels, images, StopFlag()).predictions(engine.method.predict)


def _network_alone(engine: Engine, steps: int) -> Callable[[], None]:
    recipe, device, network = engine.recipe, engine.device, engine.method.network
    (optimizer,) = engine.method.optimizers
    image = torch.randn(recipe.batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    target = torch.arange(recipe.batch_size, device=device) % CLASSES

    def work() -> None:
        network.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with engine.method.compute.autocast():
                logit = network(image)
            F.cross_entropy(logit.float(), target).backward()
            optimizer.step()

    return work


def _augment_alone(engine: Engine, steps: int) -> Callable[[], None]:
    _, pixel = next(iter(engine.pixels.batches([np.arange(engine.recipe.batch_size)])))

    def work() -> None:
        for step in range(steps):
            augment.strong(pixel.permute(0, 3, 1, 2), engine.recipe, np.random.default_rng(step))

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="cpu-small")
    parser.add_argument("--networks", default="", help="instead of the recipes' own, comma-separated")
    parser.add_argument("--policies", default="", help="instead of the recipes' own, comma-separated")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device).value
    rows = []
    for name in options.recipes.split(","):
        recipe = load_recipe(name)
        for network in options.networks.split(",") if options.networks else [recipe.network]:
            for policy in options.policies.split(",") if options.policies else [recipe.policy]:
                chosen = replace(recipe, network=network, policy=policy)
                rows.append(
                    measure(chosen, device=device, images=options.images, steps=options.steps, runs=options.runs)
                )
    report("train", rows, out=options.out, images=options.images, steps=options.steps)


if __name__ == "__main__":
    main()
