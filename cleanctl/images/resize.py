"""An upright RGB image → the uint8 square that a PixelSpec asks for, with Pillow.

This is the reference: open_clip's own transform up to normalisation, on an image that is RGB already. The FFCV loader's
compiled resampler (`resample.py`) is held to it bit by bit.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from cleanctl.images.geometry import MODES, RandomCrop, place, random_box
from cleanctl.records import PixelSpec

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# A 1×10000 image resized whole would hold half a gigabyte to keep one square of it. Beyond this length, in squares,
# only the part that is kept is resized. Pillow may order its two passes otherwise then, which moves what overshoots.
_WHOLE_UP_TO = 8


def to_square(image: Image.Image, spec: PixelSpec) -> np.ndarray:
    """uint8 (S, S, 3)."""
    size, resample = spec.size, FILTERS[spec.interpolation]
    width, height, left, top = place(image.width, image.height, size, MODES[spec.resize_mode])
    if max(width, height) > _WHOLE_UP_TO * size:
        column, row = image.width / width, image.height / height
        box = (left * column, top * row, (left + size) * column, (top + size) * row)
        return np.array(image.resize((size, size), resample, box=box))
    if (width, height) != image.size:
        image = image.resize((width, height), resample)
    if left >= 0 and top >= 0 and width >= left + size and height >= top + size:
        return np.array(image.crop((left, top, left + size, top + size)))
    square = Image.new("RGB", (size, size), (spec.fill,) * 3)
    square.paste(image, (-left, -top))
    return np.array(square)


def cut_square(image: Image.Image, spec: PixelSpec, crop: RandomCrop | None, draw: int) -> np.ndarray:
    """uint8 (S, S, 3): the whole image's square, or where crops are random the one that `draw` stands for."""
    return to_square(image, spec) if crop is None else to_random_square(image, spec, crop, draw)


def to_random_square(image: Image.Image, spec: PixelSpec, crop: RandomCrop, draw: int) -> np.ndarray:
    """uint8 (S, S, 3): the box that `draw` stands for, scaled to the square."""
    left, top, width, height = random_box(*image.size, draw, *crop.scale, *crop.ratio)
    box = image.crop((left, top, left + width, top + height))
    return np.array(box.resize((spec.size, spec.size), FILTERS[spec.interpolation]))
