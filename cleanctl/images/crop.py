"""Decoded pixels → the uint8 crop that a PixelSpec asks for, for every loader that decodes on processors.

Resized by torch's antialiased interpolation of bytes, whose filters are Pillow's: within one grey level of open_clip's
own transform (but for one value in some ten thousand), at half of Pillow's time.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from cleanctl.images.geometry import Crop, Placement, place
from cleanctl.records import PixelSpec

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# A 1×10000 image resized whole would hold half a gigabyte to keep one crop of it. Beyond this length, in crops, only
# the part that is kept is resized.
_WHOLE_UP_TO = 8


def to_crop(pixel_HWC: np.ndarray, spec: PixelSpec, crop: Crop | None = None, draw: int = 0) -> np.ndarray:
    """uint8 (S, S, 3) of an upright image, uint8 (H, W, 3): the whole one's crop, or the random one of `draw`."""
    height, width = pixel_HWC.shape[:2]
    return to_crops(pixel_HWC[None], spec, crop, draw, size=(width, height), extent=(width, height))[0]


def to_crops(
    pixel_KHWC: np.ndarray,
    spec: PixelSpec,
    crop: Crop | None = None,
    draw: int = 0,
    *,
    size: tuple[int, int],
    extent: tuple[float, float],
) -> np.ndarray:
    """uint8 (K, S, S, 3) of K images of one size, with one placement; at small sizes far cheaper than one by one.

    size: their own width and height, of which pixel_KHWC may be a reduction. extent: width and height at which the
    picture ends within pixel_KHWC, whole or less by a part of a pixel.
    """
    at = place(*size, spec, crop, draw)
    if at.box != (0, 0, *size):
        column, row = extent[0] / size[0], extent[1] / size[1]
        left, right = (round(x * column) for x in (at.box[0], at.box[0] + at.box[2]))
        top, bottom = (round(y * row) for y in (at.box[1], at.box[1] + at.box[3]))
        pixel_KHWC = pixel_KHWC[:, top : max(bottom, top + 1), left : max(right, left + 1)]
        extent = pixel_KHWC.shape[2], pixel_KHWC.shape[1]
    if max(at.width, at.height) > _WHOLE_UP_TO * spec.size:
        return np.stack([_cut_ribbon(pixel_HWC, spec, at) for pixel_HWC in pixel_KHWC])
    return _cut(_scale(pixel_KHWC, (at.width, at.height), extent, spec.interpolation), spec, at)


def _scale(pixel_KHWC: np.ndarray, to: tuple[int, int], extent: tuple[float, float], interpolation: str) -> np.ndarray:
    import torch
    import torch.nn.functional as F

    if to == extent:
        return pixel_KHWC
    # NumPy gives an axis of one the stride 0; torch then misses that channels come last, and is half as fast.
    pixel = torch.from_numpy(pixel_KHWC[0])[None] if len(pixel_KHWC) == 1 else torch.from_numpy(pixel_KHWC)
    pixel = pixel.permute(0, 3, 1, 2)
    if extent == (pixel.shape[3], pixel.shape[2]):
        scaled = F.interpolate(pixel, to[::-1], mode=interpolation, antialias=True)
    else:
        # Stretching what a decoder has rounded up would cost more than all other errors together. The factors are
        # raised a little because torch rounds the size that follows from them down.
        factor = tuple(side / of * (1 + 1e-9) for side, of in zip(to[::-1], extent[::-1]))
        scaled = F.interpolate(pixel, scale_factor=factor, mode=interpolation, antialias=True)
    return scaled.permute(0, 2, 3, 1).numpy()


def _cut(scaled_KHWC: np.ndarray, spec: PixelSpec, at: Placement) -> np.ndarray:
    """The crop at (at.left, at.top), with the fill colour where the image ends."""
    size = spec.size
    kept = scaled_KHWC[:, max(0, at.top) : at.top + size, max(0, at.left) : at.left + size]
    if kept.shape[1:3] == (size, size):
        return kept
    crop_KSSC = np.full((len(kept), size, size, 3), spec.fill, np.uint8)
    crop_KSSC[:, max(0, -at.top) :, max(0, -at.left) :][:, : kept.shape[1], : kept.shape[2]] = kept
    return crop_KSSC


def _cut_ribbon(pixel_HWC: np.ndarray, spec: PixelSpec, at: Placement) -> np.ndarray:
    height, width = pixel_HWC.shape[:2]
    column, row = width / at.width, height / at.height
    box = (at.left * column, at.top * row, (at.left + spec.size) * column, (at.top + spec.size) * row)
    image = Image.fromarray(np.ascontiguousarray(pixel_HWC))
    return np.array(image.resize((spec.size, spec.size), FILTERS[spec.interpolation], box=box))
