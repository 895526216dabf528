"""Our training steps against a plain loop written from docs/method.md B with torchvision, in turn on one device.

    python -m bench.plain_train [--recipe cifar10] [--images 4096] [--steps 20] [--device auto] [--workers 0]
                                [--out FILE]

plain    a Dataset of PIL images, torchvision's transforms of docs/method.md B.5, a DataLoader, the recipe's network as
         PyTorch builds it, one λ a batch, mean soft cross-entropy, SGD in float32
ours     the same recipe by `train`'s engine, in the precision that `train` takes by default on this device
views    the training views of a batch alone, by either

A step of each runs in turn, so that a machine that slows down slows both. `times` is plain's median over ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.harness import report, side_by_side
from bench.train import CLASSES, precision_of_runs
from cleanctl.progress import SILENT
from cleanctl.runtime import StopFlag, choose_device
from cleanctl.train import augment
from cleanctl.train.engine import Engine, State
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.methods.mixfix import MixFix
from cleanctl.train.networks import build_network
from cleanctl.train.pixels import HeldPixels
from cleanctl.train.recipe import Recipe, load_recipe


class PlainImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, pixel_NSSC: np.ndarray, label_N: np.ndarray, recipe: Recipe) -> None:
        self.images, self.labels = [Image.fromarray(one) for one in pixel_NSSC], label_N.tolist()
        self.view = transforms.Compose(
            [
                transforms.RandomCrop(recipe.image_size, padding=recipe.pad),
                transforms.RandomHorizontalFlip(),
                transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
                transforms.ToTensor(),
                transforms.Normalize(recipe.mean, recipe.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(self.images[index]), self.labels[index]


def plain_batches(images: PlainImages, recipe: Recipe, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        images,
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def plain_step(
    batches: Iterator[tuple[Tensor, Tensor]], recipe: Recipe, device: str, rng: np.random.Generator
) -> Callable[[], None]:
    network = build_network(recipe.network, CLASSES).to(device)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )

    def work() -> None:
        network.train()
        image, label = next(batches)
        image, target = image.to(device), F.one_hot(label.to(device), CLASSES).float()
        lam = rng.beta(recipe.mixup_beta, recipe.mixup_beta)
        lam = max(lam, 1 - lam)
        order = torch.randperm(len(image), device=device)
        image = lam * image + (1 - lam) * image[order]
        target = lam * target + (1 - lam) * target[order]
        loss = -(target * F.log_softmax(network(image), dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return work


def our_step(pixel_NSSC: np.ndarray, label_N: np.ndarray, recipe: Recipe, device: str) -> Callable[[], None]:
    setup = Setup(
        recipe=recipe,
        num_classes=CLASSES,
        compute=Compute(device=device, precision=precision_of_runs(device)),
        label_M=label_N,
        selected_M=np.ones(len(label_N), bool),
    )
    held = HeldPixels(torch.from_numpy(pixel_NSSC).to(device), np.ones(len(label_N), bool), device)
    engine = Engine(MixFix(setup), pixels=held, seed=0, steps=1)
    epochs = iter(range(10**9))

    def work() -> None:
        with SILENT.track("bench", total=None, unit="images") as task:
            state = State(members=engine.method.members(), epoch=next(epochs))
            engine.train_epoch(state, task, StopFlag(), lambda: None)

    return work


def measure(recipe: Recipe, *, device: str, images: int, steps: int, workers: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pixel_NSSC = rng.integers(0, 256, (images, recipe.load_size, recipe.load_size, 3), dtype=np.uint8)
    label_N = rng.integers(0, CLASSES, images).astype(np.int32)
    plain = PlainImages(pixel_NSSC, label_N, recipe)
    batch = torch.from_numpy(pixel_NSSC[: recipe.batch_size]).permute(0, 3, 1, 2).to(device)
    size = recipe.batch_size
    timings = side_by_side(
        {
            "plain": plain_step(plain_batches(plain, recipe, workers), recipe, device, rng),
            "ours": our_step(pixel_NSSC, label_N, recipe, device),
            "plain views": lambda: [plain[index] for index in range(size)],
            "our views": lambda: augment.strong(batch, recipe, rng),
        },
        runs=steps,
    )
    return {
        "recipe": recipe.name,
        "network": recipe.network,
        "batch": size,
        "n": steps,
        **{f"{name} s": timing.median for name, timing in timings.items()},
        **{f"{name} q1-q3": f"{timings[name].low:.3f}-{timings[name].high:.3f}" for name in ("plain", "ours")},
        "times": timings["plain"].median / timings["ours"].median,
        "views times": timings["plain views"].median / timings["our views"].median,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=0, help="processes of the plain loop's DataLoader")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device).value
    recipe = load_recipe(options.recipe)
    if (recipe.crop, recipe.policy, recipe.optimizer) != ("pad", "autoaugment-cifar10", "sgd"):
        parser.error(f"--recipe is {options.recipe}; the plain loop knows CIFAR's recipes only")
    row = measure(recipe, device=device, images=options.images, steps=options.steps, workers=options.workers)
    report("plain_train", [row], out=options.out, images=options.images, workers=options.workers)


if __name__ == "__main__":
    main()
