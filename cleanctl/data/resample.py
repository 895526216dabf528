"""Pillow's 8-bit resampling and our geometry, compiled by Numba: uint8 pixels of any size → one uint8 square.

The result equals Pillow's bit by bit (tests/data holds it to that): the same filter weights in doubles, rounded to 22
fractional bits; two passes, rounded to 8 bits between them. Since version 13, Pillow makes the vertical pass first
where the height shrinks much more than the width (by more than twice as many pixels). What is saved is the work whose
result is thrown away: only the rows and columns that the square needs are computed.

Needs Numba, which comes with FFCV. The compiled code is cached beside this file, or in Numba's own cache folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
from numba import njit

from cleanctl.data import geometry

BICUBIC, BILINEAR = 0, 1
KINDS = {"bicubic": BICUBIC, "bilinear": BILINEAR}

PILLOW_REORDERS = int(PIL.__version__.partition(".")[0]) >= 13

_BITS = 22  # 32, less 8 for the pixel, less 2 for filter weights beyond one
_ROWS = 32  # source rows that the horizontal pass takes side by side, so that the compiler can use vectors

compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")
place = compiled(geometry.place)
random_box = compiled(geometry.random_box)


@compiled
def _weight(kind: int, x: float) -> float:
    x = abs(x)
    if kind == BILINEAR:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@compiled
def _filter(kind, source, target, first, count):  # type: ignore[no-untyped-def]
    """Weights of the outputs first…first+count-1 when `source` pixels are scaled to `target`.

    Returns start (count,), taps (count,) and weight (count, T) int32, so that an output is the sum of
    weight[i, t] · pixel[start[i] + t] over t < taps[i], in units of 2^-22.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = (1.0 if kind == BILINEAR else 2.0) * stretch
    width = math.ceil(support) * 2 + 1
    start = np.zeros(count, np.int64)
    taps = np.zeros(count, np.int64)
    weight = np.zeros((count, width), np.int32)
    exact = np.zeros(width)
    for i in range(count):
        center = (first + i + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), source)
        total = 0.0
        for t in range(high - low):
            exact[t] = _weight(kind, (t + low - center + 0.5) * (1.0 / stretch))
            total += exact[t]
        for t in range(high - low):
            share = exact[t] / total if total != 0.0 else exact[t]
            weight[i, t] = int((-0.5 if share < 0 else 0.5) + share * (1 << _BITS))
        start[i], taps[i] = low, high - low
    return start, taps, weight


@compiled
def _to_byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(value >> _BITS, 0), 255))


@compiled
def _horizontal(source, start, taps, weight, out):  # type: ignore[no-untyped-def]
    """source (H, W, 3) → out (H, n, 3).

    Blocks of rows are turned so that one column of the block, all channels and rows of it, lies side by side: the
    innermost loop then runs over contiguous bytes with one weight for all.
    """
    height, count = source.shape[0], len(start)
    first = start.min()
    last = (start + taps).max()
    turned = np.empty((last - first, 3 * _ROWS), np.uint8)
    total = np.empty(3 * _ROWS, np.int32)
    for top in range(0, height, _ROWS):
        rows = min(_ROWS, height - top)
        for r in range(rows):
            for x in range(last - first):
                for c in range(3):
                    turned[x, c * _ROWS + r] = source[top + r, first + x, c]
        for i in range(count):
            total[:] = 1 << (_BITS - 1)
            at = start[i] - first
            for t in range(taps[i]):
                share = weight[i, t]
                for j in range(3 * _ROWS):
                    total[j] += np.int32(share * turned[at + t, j])
            for r in range(rows):
                for c in range(3):
                    out[top + r, i, c] = _to_byte(total[c * _ROWS + r])


@compiled
def _vertical(source, start, taps, weight, out):  # type: ignore[no-untyped-def]
    """source (H, n, 3) → out (m, n, 3)."""
    width = source.shape[1] * 3
    total = np.empty(width, np.int32)
    for i in range(len(start)):
        total[:] = 1 << (_BITS - 1)
        for t in range(taps[i]):
            share = weight[i, t]
            row = source[start[i] + t].reshape(width)
            for j in range(width):
                total[j] += np.int32(share * row[j])
        line = out[i]
        for x in range(source.shape[1]):
            for c in range(3):
                line[x, c] = _to_byte(total[3 * x + c])


@compiled
def resample(pixel_HWC, new_width, new_height, left, top, kind, vertical_first, out_hwc):  # type: ignore[no-untyped-def]
    """Scales uint8 (H, W, 3) to new_width × new_height and writes the part of out's size at (left, top) to `out_hwc`.

    The part lies inside the scaled image. Equals Pillow's `resize((new_width, new_height)).crop(...)`. A side whose
    length stays is left alone, as Pillow leaves it.
    """
    height, width = pixel_HWC.shape[:2]
    count_y, count_x = out_hwc.shape[:2]
    y_start, y_taps, y_weight = _filter(kind, height, new_height, top, count_y)
    x_start, x_taps, x_weight = _filter(kind, width, new_width, left, count_x)
    if new_height == height:
        needed = pixel_HWC[top : top + count_y]
    else:
        needed = pixel_HWC[y_start.min() : (y_start + y_taps).max()]
        y_start -= y_start.min()
    if vertical_first and new_height != height:
        middle = np.empty((count_y, width, 3), np.uint8)
        _vertical(needed, y_start, y_taps, y_weight, middle)
        needed = middle
    if new_width == width:
        across = np.ascontiguousarray(needed[:, left : left + count_x])
    else:
        across = np.empty((len(needed), count_x, 3), np.uint8)
        _horizontal(needed, x_start, x_taps, x_weight, across)
    if vertical_first or new_height == height:
        out_hwc[:] = across
    else:
        _vertical(across, y_start, y_taps, y_weight, out_hwc)


@compiled
def to_square(pixel_HWC, mode, kind, fill, reorders, out_SSC):  # type: ignore[no-untyped-def]
    """`resize.to_square`, compiled: uint8 (H, W, 3) → `out_SSC` (S, S, 3); `reorders` is PILLOW_REORDERS."""
    size = out_SSC.shape[0]
    height, width = pixel_HWC.shape[:2]
    new_width, new_height, left, top = place(width, height, size, mode)
    vertical_first = reorders and height - new_height > 2 * max(0, width - new_width)
    x0, y0 = max(0, -left), max(0, -top)
    x1, y1 = min(size, new_width - left), min(size, new_height - top)
    if x1 - x0 == size and y1 - y0 == size:
        resample(pixel_HWC, new_width, new_height, left, top, kind, vertical_first, out_SSC)
        return
    part = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    resample(pixel_HWC, new_width, new_height, max(left, 0), max(top, 0), kind, vertical_first, part)
    out_SSC[:] = fill
    out_SSC[y0:y1, x0:x1] = part


@compiled
def to_random_square(pixel_HWC, draw, crop, kind, reorders, out_SSC):  # type: ignore[no-untyped-def]
    """`resize.to_random_square`, compiled; `crop` is float64 (4,): scale and ratio, low and high."""
    height, width = pixel_HWC.shape[:2]
    left, top, box_width, box_height = random_box(width, height, draw, crop[0], crop[1], crop[2], crop[3])
    box = np.ascontiguousarray(pixel_HWC[top : top + box_height, left : left + box_width])
    to_square(box, geometry.SQUASH, kind, 0, reorders, out_SSC)
