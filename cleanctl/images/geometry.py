"""Where the pixels of a model's square come from, in plain integers.

The functions reproduce open_clip's transforms (torchvision's Resize and CenterCrop for `shortest`, its ResizeKeepRatio
and CenterCropOrPad for `longest`) down to the direction in which each of them rounds. They hold no array and no
object, so that the same source runs in Python (the torch loader) and compiled by Numba (the FFCV loader).

A placement is (resized width, resized height, left, top): the image is scaled to that size and the square's corner
lies at (left, top) in it; negative values mean a border of fill colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cleanctl.config import within
from cleanctl.errors import UsageError

SHORTEST, LONGEST, SQUASH = 0, 1, 2
MODES = {"shortest": SHORTEST, "longest": LONGEST, "squash": SQUASH}


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A random box for training: `scale` is the range of its share of the area, `ratio` of width / height.

    Drawn as in torchvision's RandomResizedCrop, but a box that is too long for the image is cut to it instead of
    being drawn again, so that one draw always suffices.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        within("the crop's smallest scale", self.scale[0], 1e-4, self.scale[1])
        within("the crop's largest scale", self.scale[1], self.scale[0], 1.0)
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"The crop's ratio is {self.ratio}.", do="Give two positive numbers, the smaller first.")


def place(width: int, height: int, size: int, mode: int) -> tuple[int, int, int, int]:
    """The placement of a width × height image in a square of `size`, for a mode of MODES."""
    if mode == SQUASH:
        return size, size, 0, 0
    if mode == SHORTEST:
        # torchvision truncates the long side and rounds the offset half to even.
        if width <= height:
            new_width, new_height = size, int(size * height / width)
        else:
            new_width, new_height = int(size * width / height), size
        return new_width, new_height, round((new_width - size) / 2.0), round((new_height - size) / 2.0)
    ratio = max(height / size, width / size)
    new_width, new_height = max(1, round(width / ratio)), max(1, round(height / ratio))
    # A border takes the odd cell on its far side, a cut rounds half to even.
    left = -((size - new_width) // 2) if new_width < size else round((new_width - size) / 2.0)
    top = -((size - new_height) // 2) if new_height < size else round((new_height - size) / 2.0)
    return new_width, new_height, left, top


def random_box(
    width: int, height: int, draw: int, scale_0: float, scale_1: float, ratio_0: float, ratio_1: float
) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a RandomCrop's box in an image, a function of `draw` (0…2^23-1) alone.

    The draws come from a small linear congruential generator: its products fit in 64 bits, so that Python and Numba
    agree on every box.
    """
    state = (draw + 1) * 16807 % 2147483647
    state = state * 48271 % 2147483647
    area = width * height * (scale_0 + (scale_1 - scale_0) * (state / 2147483647.0))
    state = state * 48271 % 2147483647
    log_ratio = math.log(ratio_0) + (math.log(ratio_1) - math.log(ratio_0)) * (state / 2147483647.0)
    box_width = min(width, max(1, round(math.sqrt(area * math.exp(log_ratio)))))
    box_height = min(height, max(1, round(math.sqrt(area / math.exp(log_ratio)))))
    state = state * 48271 % 2147483647
    left = state * (width - box_width + 1) // 2147483647
    state = state * 48271 % 2147483647
    top = state * (height - box_height + 1) // 2147483647
    return left, top, box_width, box_height
