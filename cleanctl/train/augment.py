"""Augmentation of whole batches where the data lives: bytes in, normalised floats out (docs/method.md B.5).

In: uint8 (B, 3, L, L) at the recipe's load size. Out: float32 (B, 3, S, S), normalised, channels last in memory.
Every random choice is drawn on the CPU from the generator given, so that a processor and a GPU, a first run and a
resumed one, augment a step alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cleanctl.train import imageops
from cleanctl.train.policies import MAGNITUDES, OPERATIONS, SIGNED, table
from cleanctl.train.recipe import Recipe


def strong(image_BCLL: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """The training view: crop, flip, policy, normalise."""
    image = _crop(image_BCLL, recipe, rng)
    if recipe.flip:
        image = flip(image, rng)
    if recipe.policy != "none":
        image = apply_policy(image, recipe.policy, rng)
    return normalise(image, recipe.mean, recipe.std)


def plain(image_BCLL: Tensor, recipe: Recipe) -> Tensor:
    """The view for prediction and tests: the centre, normalised."""
    side = image_BCLL.shape[-1]
    begin = (side - recipe.image_size) // 2
    end = begin + recipe.image_size
    return normalise(image_BCLL[:, :, begin:end, begin:end], recipe.mean, recipe.std)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x/255 − mean)/std per channel, one fused pass: x·a + b."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=image.device).view(1, 3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=image.device).view(1, 3, 1, 1)
    return torch.addcmul(shift, image, scale).contiguous(memory_format=torch.channels_last)


def _crop(image: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    if recipe.loader_crop() is not None:
        return image
    if recipe.crop == "pad":
        return random_crop(image, recipe.image_size, recipe.pad, rng)
    if recipe.crop == "random":
        return random_crop(image, recipe.image_size, 0, rng)
    if recipe.crop == "random-resized":
        return random_resized_crop(image, recipe.image_size, rng)
    begin = (image.shape[-1] - recipe.image_size) // 2
    return image[:, :, begin : begin + recipe.image_size, begin : begin + recipe.image_size]


def random_crop(image: Tensor, size: int, pad: int, rng: np.random.Generator) -> Tensor:
    """A window of `size` anywhere in the image with a black frame of `pad` pixels around it."""
    count, _, side, _ = image.shape
    corner = rng.integers(0, side + 2 * pad - size + 1, (2, count))
    padded = F.pad(image, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    span = np.arange(size)
    rows = torch.from_numpy(corner[0][:, None, None] + span[None, :, None]).to(image.device)
    columns = torch.from_numpy(corner[1][:, None, None] + span[None, None, :]).to(image.device)
    which = torch.arange(count, device=image.device).view(-1, 1, 1)
    return padded[which, rows, columns].permute(0, 3, 1, 2)


def flip(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Left-right, each image with probability ½."""
    chosen = torch.from_numpy(rng.random(len(image)) < 0.5).to(image.device).view(-1, 1, 1, 1)
    return torch.where(chosen, image.flip(3), image)


def random_resized_crop(
    image: Tensor,
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """A box of 8–100 % of the area and aspect 3/4–4/3, scaled to `size` by bilinear interpolation.

    As torchvision's: a box that is too long is drawn again, up to ten times, then it is the whole image. No
    anti-aliasing: the load size is so near `size` that a crop is shrunk by a few percent at most.
    """
    count, tries = len(image), 10
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
    grid = F.affine_grid(torch.from_numpy(theta).to(image.device), [count, 3, size, size], align_corners=False)
    scaled = F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def apply_policy(image: Tensor, policy: str, rng: np.random.Generator) -> Tensor:
    """Two operations an image, drawn by the policy; images that share an operation are changed together."""
    drawn = _randaugment(len(image), rng) if policy == "randaugment" else _autoaugment(policy, len(image), rng)
    operation_B2, probability_B2, level_B2 = drawn
    sign_B2 = rng.choice(np.array([-1.0, 1.0]), (len(image), 2))
    operation_B2 = np.where(rng.random((len(image), 2)) < probability_B2, operation_B2, -1)
    center_B2 = rng.random((len(image), 2))
    out = image.contiguous()
    for slot in (0, 1):
        # One gather per slot, then every group writes its part: cheaper than a read and a write per group.
        before, out = out, out.clone()
        for number in np.unique(operation_B2[:, slot]):
            if number >= 0:
                rows = np.flatnonzero(operation_B2[:, slot] == number)
                strength = _strength(number, level_B2[rows, slot], sign_B2[rows, slot])
                _apply(OPERATIONS[number], before, out, rows, strength, center_B2[rows])
    return out


def _apply(name: str, before: Tensor, out: Tensor, rows: np.ndarray, strength: np.ndarray, center: np.ndarray) -> None:
    at = torch.from_numpy(rows).to(out.device)
    arguments = [torch.from_numpy(strength.astype(np.float32)).to(out.device)]
    if name == "cutout":
        arguments.append(torch.from_numpy(center.astype(np.float32)).to(out.device))
    out[at] = getattr(imageops, name)(before[at], *arguments)


def _strength(number: int, level: np.ndarray, sign: np.ndarray) -> np.ndarray:
    name = OPERATIONS[number]
    magnitude = MAGNITUDES[name][level.astype(int)]
    if name in SIGNED:
        magnitude = magnitude * sign
    is_factor = name in ("color", "contrast", "sharpness", "brightness")
    return 1 + magnitude if is_factor else magnitude


def _autoaugment(policy: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = table(policy)[rng.integers(0, 25, count)]
    return chosen[:, :, 0].astype(int), chosen[:, :, 1], chosen[:, :, 2]


def _randaugment(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ordered pair of the 135 (operation, level 1–9) combinations, each applied with probability ½."""
    operation = rng.integers(0, len(OPERATIONS), (count, 2))
    return operation, np.full((count, 2), 0.5), rng.integers(1, 10, (count, 2))
