"""Pillow's 8-bit resampling and our geometry, compiled by Numba: uint8 pixels of any size → one uint8 square.

The result equals Pillow's bit by bit (tests/data holds it to that): the same filter weights in doubles, rounded to 22
fractional bits; two passes, rounded to 8 bits between them. Since version 13, Pillow makes the vertical pass first
where the height shrinks much more than the width (by more than twice as many pixels). What is saved is the work whose
result is thrown away: only the rows and columns that the square needs are computed.

Needs FFCV, which brings Numba and the JPEG decoder. Compiling takes some ten seconds, once: the code is cached beside
this file or in Numba's own folder. The cache looks at this file alone: touch it after a change in geometry.py.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
import PIL
from numba import njit, types

from cleanctl.images import geometry
from cleanctl.images.ffcv_import import _libffcv
from cleanctl.images.packed.beton import JPEG

BICUBIC, BILINEAR = 0, 1
KINDS = {"bicubic": BICUBIC, "bilinear": BILINEAR}

PILLOW_REORDERS = int(PIL.__version__.partition(".")[0]) >= 13

_BITS = 22  # 32, less 8 for the pixel, less 2 for filter weights beyond one
_ROWS = 32  # source rows that the horizontal pass takes side by side, so that the compiler can use vectors

ROW_BITS = 40  # of an index; above them is the draw of a random crop


def _can_cache() -> bool:
    """Numba refuses to compile at all where it is to cache and finds no folder that it may write to."""
    try:
        njit(cache=True)(_can_cache)
    except RuntimeError:
        return False
    return True


compiled: Callable[..., Any] = njit(cache=_can_cache(), nogil=True, error_model="numpy")
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
def _filter(kind, source, extent, target, first, count):  # type: ignore[no-untyped-def]
    """Weights of the outputs first…first+count-1 when the first `extent` of `source` pixels are scaled to `target`.

    Returns start (count,), taps (count,) and weight (count, T) int32, so that an output is the sum of
    weight[i, t] · pixel[start[i] + t] over t < taps[i], in units of 2^-22.
    """
    scale = extent / target
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
    first, last = start[0], start[-1] + taps[-1]
    turned = np.empty((last - first, 3 * _ROWS), np.uint8)
    total = np.empty(3 * _ROWS, np.int32)
    for top in range(0, height, _ROWS):
        rows = min(_ROWS, height - top)
        for r in range(rows):
            for x in range(last - first):
                for c in range(3):
                    turned[x, c * _ROWS + r] = source[top + r, first + x, c]
        for i in range(count):
            total.fill(1 << (_BITS - 1))
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
        total.fill(1 << (_BITS - 1))
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
def resample(pixel_HWC, extent_y, extent_x, new_width, new_height, left, top, kind, vertical_first, out_hwc):  # type: ignore[no-untyped-def]
    """Scales uint8 (H, W, 3) to new_width × new_height and writes the part of out's size at (left, top) to `out_hwc`.

    The extents say where the picture ends: H and W, or less by a fraction of a pixel. The part lies inside the scaled
    image. Equals Pillow's `resize((new_width, new_height)).crop(...)`; a side whose length stays is left alone.
    """
    height, width = pixel_HWC.shape[:2]
    count_y, count_x = out_hwc.shape[:2]
    y_start, y_taps, y_weight = _filter(kind, height, extent_y, new_height, top, count_y)
    x_start, x_taps, x_weight = _filter(kind, width, extent_x, new_width, left, count_x)
    keep_y, keep_x = new_height == extent_y, new_width == extent_x
    if keep_y:
        needed = pixel_HWC[top : top + count_y]
    else:
        needed = pixel_HWC[y_start[0] : y_start[-1] + y_taps[-1]]
        y_start -= y_start[0]
    if vertical_first and not keep_y:
        middle = np.empty((count_y, width, 3), np.uint8)
        _vertical(needed, y_start, y_taps, y_weight, middle)
        needed = middle
    last_pass = vertical_first or keep_y
    across = out_hwc if last_pass else np.empty((len(needed), count_x, 3), np.uint8)
    if keep_x:
        _copy(needed, 0, left, across)
    else:
        _horizontal(needed, x_start, x_taps, x_weight, across)
    if not last_pass:
        _vertical(across, y_start, y_taps, y_weight, out_hwc)


@compiled
def _copy(source, top, left, out):  # type: ignore[no-untyped-def]
    """The part of `source` of out's size at (top, left). A loop: Numba takes seconds to compile array assignment."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                out[y, x, c] = source[top + y, left + x, c]


@compiled
def to_square(pixel_HWC, extent_y, extent_x, height, width, mode, kind, fill, reorders, out_SSC):  # type: ignore[no-untyped-def]
    """`resize.to_square`, compiled: the square of a height × width image, of which `pixel_HWC` may be a reduction.

    `reorders` is PILLOW_REORDERS.
    """
    size = out_SSC.shape[0]
    new_width, new_height, left, top = place(width, height, size, mode)
    vertical_first = reorders and height - new_height > 2 * max(0, width - new_width)
    x0, y0 = max(0, -left), max(0, -top)
    x1, y1 = min(size, new_width - left), min(size, new_height - top)
    if x1 - x0 == size and y1 - y0 == size:
        resample(pixel_HWC, extent_y, extent_x, new_width, new_height, left, top, kind, vertical_first, out_SSC)
        return
    part = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    x, y = max(left, 0), max(top, 0)
    resample(pixel_HWC, extent_y, extent_x, new_width, new_height, x, y, kind, vertical_first, part)
    out_SSC.fill(fill)
    for y in range(y1 - y0):
        for x in range(x1 - x0):
            for c in range(3):
                out_SSC[y0 + y, x0 + x, c] = part[y, x, c]


@compiled
def to_random_square(pixel_HWC, draw, crop, kind, reorders, out_SSC):  # type: ignore[no-untyped-def]
    """`resize.to_random_square`, compiled; `crop` is float64 (4,): scale and ratio, low and high."""
    height, width = pixel_HWC.shape[:2]
    left, top, box_width, box_height = random_box(width, height, draw, crop[0], crop[1], crop[2], crop[3])
    box = np.empty((box_height, box_width, 3), np.uint8)
    _copy(pixel_HWC, top, left, box)
    to_square(
        box, float(box_height), float(box_width), box_height, box_width, geometry.SQUASH, kind, 0, reorders, out_SSC
    )


# --- from a stored sample to its square -------------------------------------------------------------------------------

# A JPEG is decoded at a half, quarter or eighth of its size while its short side stays this many squares long. On
# photographs, that keeps the cosine to the full decode above 0.9999.
_SCALED_DECODE_ABOVE = 2.5

# libjpeg-turbo, as FFCV's own library brings it. FFCV's `imdecode` asks it for the fast, inexact DCT, which is no
# faster on processors of today and moves pixels by one on average; asked plainly, it gives Pillow's pixels bit by bit.
_turbojpeg = ctypes.CDLL(_libffcv.__file__)


def _external(name: str, result: Any, *arguments: Any) -> Any:
    """A C function, called by name: code that holds an address could not be cached on disk."""
    symbol = f"cleanctl_{name}"
    llvmlite.binding.add_symbol(symbol, ctypes.cast(getattr(_turbojpeg, name), ctypes.c_void_p).value)
    return types.ExternalFunction(symbol, result(*arguments))


_int, _pointer = types.int32, types.intp
_new_decoder = _external("tjInitDecompress", _pointer)
_end_decoder = _external("tjDestroy", _int, _pointer)
_decompress = _external("tjDecompress2", _int, _pointer, _pointer, types.uint64, _pointer, _int, _int, _int, _int, _int)
_TO_RGB, _NO_FLAGS = 0, 0


@compiled
def _pixels(data, mode, height, width, shrink, decoder):  # type: ignore[no-untyped-def]
    """(uint8 (h, w, 3), whether the decoder was content)."""
    if mode != JPEG:
        return data[: height * width * 3].copy().reshape(height, width, 3), True
    out_height, out_width = (height + shrink - 1) // shrink, (width + shrink - 1) // shrink
    pixel_HWC = np.empty((out_height, out_width, 3), np.uint8)
    code = _decompress(
        decoder, data.ctypes.data, data.size, pixel_HWC.ctypes.data, out_width, 0, out_height, _TO_RGB, _NO_FLAGS
    )
    return pixel_HWC, code == 0


@compiled
def _decode_one(data, field, shape, draw, crop, choice, decoder, out_SSC):  # type: ignore[no-untyped-def]
    """Whether `out_SSC` was filled.

    shape: height and width before any reduction. crop: float64 (4,) for a random crop, empty for none. choice: int64
    (4,): resize mode, interpolation, fill, and whether this Pillow reorders its passes.
    """
    height, width = np.int64(field["height"]), np.int64(field["width"])
    shrink = 1
    if field["mode"] == JPEG and len(crop) == 0:
        while shrink < 8 and min(height, width) >= 2 * shrink * _SCALED_DECODE_ABOVE * len(out_SSC):
            shrink *= 2
    pixel_HWC, content = _pixels(data, field["mode"], height, width, shrink, decoder)
    if not content:
        return False
    if len(crop):
        to_random_square(pixel_HWC, draw, crop, choice[1], choice[3] != 0, out_SSC)
    else:
        to_square(
            *(pixel_HWC, height / shrink, width / shrink, np.int64(shape[0]), np.int64(shape[1])),
            *(choice[0], choice[1], choice[2], choice[3] != 0, out_SSC),
        )
    return True


@compiled
def decode_rows(index_B, metadata, file, size_N, shape_N2, crop, choice, pixel_BSSC, ok_B):  # type: ignore[no-untyped-def]
    """Fills `pixel_BSSC` and `ok_B` for indices that are row + draw · 2^40. Holds no lock of Python's."""
    decoder = _new_decoder()
    for i in range(len(index_B)):
        index = np.int64(index_B[i])
        row = index & ((1 << ROW_BITS) - 1)
        field = metadata[row]
        at = np.int64(field["data_ptr"])
        data = file[at : at + np.int64(size_N[row])]
        ok_B[i] = _decode_one(data, field, shape_N2[row], index >> ROW_BITS, crop, choice, decoder, pixel_BSSC[i])
    _end_decoder(decoder)
