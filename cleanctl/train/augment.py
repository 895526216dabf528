"""Augmentation of whole batches where the data lives: bytes in, normalised floats out (docs/method.md B.5).

In: uint8 (B, 3, L, L) at the recipe's load size. Out: float32 (B, 3, S, S), normalised, channels last in memory.
Every random choice is drawn on the CPU from the generator given, so that a processor and a GPU, a first run and a
resumed one, augment a step alike. All draws of a view are made first and sent to the device in one copy (transfer.py);
what is computed from them waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cleanctl.train import imageops
from cleanctl.train.policies import MAGNITUDES, OPERATIONS, SIGNED, table
from cleanctl.train.recipe import Recipe
from cleanctl.train.transfer import send

LEAST_TOGETHER = 16


@dataclass(frozen=True)
class Drawn:
    """One change of a batch: what was drawn for it, and the change, which takes these arrays as tensors."""

    arrays: Mapping[str, np.ndarray]
    apply: Callable[[Tensor, Mapping[str, Tensor]], Tensor]

    def to(self, image: Tensor) -> Tensor:
        return self.apply(image, send(self.arrays, image.device))


class Generators:
    """Several generators as one: each draws for its own images what it would draw alone; the draws lie side by side.

    counts: images of each, 16 or more in all, so that no other dimension of a draw has their number.
    """

    def __init__(self, each: Sequence[np.random.Generator], counts: Sequence[int]) -> None:
        self._each, self._counts, self._total = each, counts, sum(counts)
        assert self._total >= LEAST_TOGETHER, counts

    def random(self, size: int | tuple[int, ...]) -> np.ndarray:
        return self._side_by_side("random", (), size)

    def integers(self, low: int, high: int, size: int | tuple[int, ...]) -> np.ndarray:
        return self._side_by_side("integers", (low, high), size)

    def uniform(self, low: float, high: float, size: int | tuple[int, ...]) -> np.ndarray:
        return self._side_by_side("uniform", (low, high), size)

    def choice(self, values: np.ndarray, size: int | tuple[int, ...]) -> np.ndarray:
        return self._side_by_side("choice", (values,), size)

    def _side_by_side(self, name: str, arguments: tuple[Any, ...], size: int | tuple[int, ...]) -> np.ndarray:
        shape = (size,) if isinstance(size, int) else size
        axis = shape.index(self._total)
        parts = [
            getattr(rng, name)(*arguments, size=(*shape[:axis], count, *shape[axis + 1 :]))
            for rng, count in zip(self._each, self._counts)
        ]
        return np.concatenate(parts, axis=axis)


Rng = np.random.Generator | Generators


def strong(image_BCLL: Tensor, recipe: Recipe, rng: Rng) -> Tensor:
    """The training view: crop, flip, policy, normalise."""
    count, side = len(image_BCLL), image_BCLL.shape[-1]
    changes = _crop(count, side, recipe, rng)
    if recipe.flip:
        changes.append(draw_flip(count, rng))
    if recipe.policy != "none":
        changes.append(draw_policy(count, recipe.policy, rng))
    named = [{f"{number}/{name}": values for name, values in one.arrays.items()} for number, one in enumerate(changes)]
    sent = send({name: values for one in named for name, values in one.items()}, image_BCLL.device)
    image = image_BCLL
    for number, one in enumerate(changes):
        image = one.apply(image, {name: sent[f"{number}/{name}"] for name in one.arrays})
    return normalise(image, recipe.mean, recipe.std)


def plain(image_BCLL: Tensor, recipe: Recipe) -> Tensor:
    """The view for prediction and tests: the centre, normalised."""
    return normalise(_centre(image_BCLL, recipe.image_size), recipe.mean, recipe.std)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x/255 − mean)/std per channel, one fused pass: x·a + b."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), image.device)
    return torch.addcmul(shift, image, scale).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=8)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Made once, because the copy makes a GPU wait."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=device).view(1, 3, 1, 1)
        return scale, shift


def _crop(count: int, side: int, recipe: Recipe, rng: Rng) -> list[Drawn]:
    if recipe.loader_crop() is not None:
        return []
    if recipe.crop == "pad":
        return [draw_crop(count, side, recipe.image_size, recipe.pad, rng)]
    if recipe.crop == "random":
        return [draw_crop(count, side, recipe.image_size, 0, rng)]
    if recipe.crop == "random-resized":
        return [draw_resized_crop(count, recipe.image_size, rng)]
    return [Drawn({}, lambda image, _: _centre(image, recipe.image_size))]


def _centre(image: Tensor, size: int) -> Tensor:
    begin = (image.shape[-1] - size) // 2
    return image[:, :, begin : begin + size, begin : begin + size]


def draw_crop(count: int, side: int, size: int, pad: int, rng: Rng) -> Drawn:
    """A window of `size` anywhere in the image of `side` pixels with a black frame of `pad` pixels around it."""

    def apply(image: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        padded = F.pad(image, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
        span = torch.arange(size, device=image.device)
        rows, columns = (sent["corner"][axis].view(-1, 1) + span for axis in (0, 1))
        which = torch.arange(count, device=image.device).view(-1, 1, 1)
        return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return Drawn({"corner": rng.integers(0, side + 2 * pad - size + 1, (2, count))}, apply)


def draw_flip(count: int, rng: Rng) -> Drawn:
    """Left-right, each image with probability ½."""

    def apply(image: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        return torch.where(sent["chosen"].view(-1, 1, 1, 1), image.flip(3), image)

    return Drawn({"chosen": rng.random(count) < 0.5}, apply)


def draw_resized_crop(
    count: int,
    size: int,
    rng: Rng,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Drawn:
    """A box of 8–100 % of the area and aspect 3/4–4/3, scaled to `size` by bilinear interpolation.

    As torchvision's: a box that is too long is drawn again, up to ten times, then it is the whole image. No
    anti-aliasing: the load size is so near `size` that a crop is shrunk by a few percent at most.
    """
    tries = 10
    area = rng.uniform(*scale, (tries, count))
    aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), (tries, count)))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (width <= 1) & (height <= 1)
    first = fits.argmax(axis=0), np.arange(count)
    width = np.where(fits.any(axis=0), width[first], 1)
    height = np.where(fits.any(axis=0), height[first], 1)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2] = (rng.random(count) * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (rng.random(count) * 2 - 1) * (1 - height)

    def apply(image: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        grid = F.affine_grid(sent["theta"], [count, 3, size, size], align_corners=False)
        scaled = F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        return scaled.round_().clamp_(0, 255).to(torch.uint8)

    return Drawn({"theta": theta}, apply)


def draw_policy(count: int, policy: str, rng: Rng) -> Drawn:
    """Two operations an image, drawn by the policy; images that share an operation are changed together.

    The batch is sorted by the first operation, changed group by group, sorted by the second, changed, and put back:
    three gathers, whatever the number of operations.
    """
    drawn = _randaugment(count, rng) if policy == "randaugment" else _autoaugment(policy, count, rng)
    operation_B2, probability_B2, level_B2 = drawn
    sign_B2 = rng.choice(np.array([-1.0, 1.0]), (count, 2))
    operation_B2 = np.where(rng.random((count, 2)) < probability_B2, operation_B2, -1)
    center_B2 = rng.random((count, 2)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {}
    groups: list[list[tuple[int, int, int]]] = []  # of each slot: operation, begin, end in its order
    before = np.arange(count)
    for slot in (0, 1):
        order = np.argsort(operation_B2[:, slot], kind="stable")
        operation = operation_B2[order, slot]
        numbers, begins = np.unique(operation, return_index=True)
        groups.append(list(zip(numbers.tolist(), begins.tolist(), [*begins[1:].tolist(), count])))
        strength = np.zeros(count, np.float32)
        for number, begin, end in groups[-1]:
            rows = order[begin:end]
            strength[begin:end] = _strength(number, level_B2[rows, slot], sign_B2[rows, slot]) if number >= 0 else 0
        arrays |= {f"order{slot}": np.argsort(before)[order], f"strength{slot}": strength}
        arrays[f"center{slot}"] = center_B2[order]
        before = order
    arrays["back"] = np.argsort(before)

    def apply(image: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        for slot, changes in enumerate(groups):
            image = image.index_select(0, sent[f"order{slot}"])
            strength, center = sent[f"strength{slot}"], sent[f"center{slot}"]
            image = torch.cat([
                _changed(number, image[begin:end], strength[begin:end], center[begin:end])
                for number, begin, end in changes
            ])  # fmt: skip
        return image.index_select(0, sent["back"])

    return Drawn(arrays, apply)


def _changed(number: int, image: Tensor, strength: Tensor, center: Tensor) -> Tensor:
    """Images that share one operation, −1 for none."""
    if number < 0:
        return image
    arguments = (strength, center) if OPERATIONS[number] == "cutout" else (strength,)
    changed: Tensor = getattr(imageops, OPERATIONS[number])(image, *arguments)
    return changed


def _strength(number: int, level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    name = OPERATIONS[number]
    magnitude = MAGNITUDES[name][level.astype(int)]
    if name in SIGNED:
        magnitude = magnitude * sign
    is_factor = name in ("color", "contrast", "sharpness", "brightness")
    return 1 + magnitude if is_factor else magnitude


def _autoaugment(policy: str, count: int, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = table(policy)[rng.integers(0, 25, count)]
    return chosen[:, :, 0].astype(int), chosen[:, :, 1], chosen[:, :, 2]


def _randaugment(count: int, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ordered pair of the 135 (operation, level 1–9) combinations, each applied with probability ½."""
    operation = rng.integers(0, len(OPERATIONS), (count, 2))
    return operation, np.full((count, 2), 0.5), rng.integers(1, 10, (count, 2))
