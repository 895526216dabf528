"""Where the pixels of a crop come from, in plain integers, for every loader alike.

The functions reproduce open_clip's transforms (torchvision's Resize and CenterCrop for `shortest`, its ResizeKeepRatio
and CenterCropOrPad for `longest`) down to the direction in which each of them rounds, and torchvision's
RandomResizedCrop and RandomCrop with draws of our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cleanctl.config import within
from cleanctl.errors import UsageError
from cleanctl.records import PixelSpec

DRAW_BITS = 23  # what the FFCV loader can carry beside a row number in one index
_TRIES = 10


class Placement(NamedTuple):
    """The image's part `box` (left, top, width, height) is scaled to width × height, where the crop's corner lies at
    (left, top); negative values mean a border of fill colour."""

    box: tuple[int, int, int, int]
    width: int
    height: int
    left: int
    top: int


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """torchvision's RandomResizedCrop: a random box, scaled to the crop. `scale` is the range of the box's share of
    the area, `ratio` of its width / height. A box that does not fit is drawn again, ten times; then the largest central
    one is taken."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        within("the crop's smallest scale", self.scale[0], 1e-4, self.scale[1])
        within("the crop's largest scale", self.scale[1], self.scale[0], 1.0)
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"The crop's ratio is {self.ratio}.", do="Give two positive numbers, the smaller first.")

    def place(self, width: int, height: int, spec: PixelSpec, draw: int) -> Placement:
        return Placement(self._box(width, height, _uniform(draw)), spec.size, spec.size, 0, 0)

    def _box(self, width: int, height: int, uniform: Iterator[float]) -> tuple[int, int, int, int]:
        low, high = (math.log(ratio) for ratio in self.ratio)
        for _ in range(_TRIES):
            area = width * height * (self.scale[0] + (self.scale[1] - self.scale[0]) * next(uniform))
            ratio = math.exp(low + (high - low) * next(uniform))
            box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                left = int(next(uniform) * (width - box_width + 1))
                return left, int(next(uniform) * (height - box_height + 1)), box_width, box_height
        box_width = min(width, max(1, round(height * self.ratio[1])))
        box_height = min(height, max(1, round(width / self.ratio[0])))
        return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


@dataclass(frozen=True, kw_only=True)
class WindowCrop:
    """The whole image scaled until its short side has `resize` pixels, and a window of it, anywhere with equal chance
    (torchvision's Resize and RandomCrop). `resize` is at least the crop's size."""

    resize: int

    def place(self, width: int, height: int, spec: PixelSpec, draw: int) -> Placement:
        if self.resize < spec.size:
            raise UsageError(f"A window of {spec.size} pixels does not fit in an image scaled to {self.resize}.")
        new_width, new_height = _scale_short_side(width, height, self.resize)
        uniform = _uniform(draw)
        left = int(next(uniform) * (new_width - spec.size + 1))
        top = int(next(uniform) * (new_height - spec.size + 1))
        return Placement((0, 0, width, height), new_width, new_height, left, top)


Crop = RandomCrop | WindowCrop


def draws_of(count: int, seed: int, done: int = 0) -> np.ndarray:
    """int64 (count,) in 0…2^23-1: a number for each position of an epoch from `done` on, from which its random crop is
    made; a function of the seed and the position only, whatever the batch size and wherever an epoch goes on."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.integers(0, 1 << DRAW_BITS, size=done + count, dtype=np.int64)[done:]


def place(width: int, height: int, spec: PixelSpec, crop: Crop | None = None, draw: int = 0) -> Placement:
    """The placement of a width × height image, whole or where crops are random the one that `draw` stands for."""
    if crop is not None:
        return crop.place(width, height, spec, draw)
    size, box = spec.size, (0, 0, width, height)
    if spec.resize_mode == "squash":
        return Placement(box, size, size, 0, 0)
    if spec.resize_mode == "shortest":
        new_width, new_height = _scale_short_side(width, height, size)
        # torchvision rounds the offset half to even.
        return Placement(box, new_width, new_height, round((new_width - size) / 2), round((new_height - size) / 2))
    ratio = max(height / size, width / size)
    new_width, new_height = max(1, round(width / ratio)), max(1, round(height / ratio))
    # A border takes the odd cell on its far side, a cut rounds half to even.
    left = -((size - new_width) // 2) if new_width < size else round((new_width - size) / 2)
    top = -((size - new_height) // 2) if new_height < size else round((new_height - size) / 2)
    return Placement(box, new_width, new_height, left, top)


def scaled_side(spec: PixelSpec, crop: Crop | None) -> int | None:
    """The side in pixels that an image's short side is scaled to at least; None where that differs by the draw."""
    if crop is None:
        return spec.size if spec.resize_mode != "longest" else None
    return crop.resize if isinstance(crop, WindowCrop) else None


def _scale_short_side(width: int, height: int, size: int) -> tuple[int, int]:
    # torchvision truncates the long side.
    return (size, int(size * height / width)) if width <= height else (int(size * width / height), size)


def _uniform(draw: int) -> Iterator[float]:
    """Numbers in [0, 1), a function of `draw` alone on every platform: a linear congruential generator."""
    state = (draw + 1) * 16807 % 2147483647
    while True:
        state = state * 48271 % 2147483647
        yield state / 2147483647
