"""Stored samples → crops, on a few threads: libjpeg-turbo's pixels, or Pillow's where libjpeg-turbo complains.

In: samples of an FFCV file, mapped or on their way into one. Out: uint8 crops. Needs FFCV, which brings libjpeg-turbo.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cleanctl.images.crop import to_crops
from cleanctl.images.decode import UnreadableImage, decode_rgb
from cleanctl.images.ffcv_import import _libffcv
from cleanctl.images.geometry import Crop, scaled_side
from cleanctl.images.packed.beton import JPEG, Sample
from cleanctl.records import PixelSpec

# A JPEG is decoded at a half, quarter or eighth of its size while its short side stays this many crops long. On
# photographs, that keeps the cosine to the full decode above 0.9999.
_SCALED_DECODE_ABOVE = 2.5
_TOGETHER_UP_TO = 2**14  # pixels of an image; neighbours of one size are resized in one call
_TO_RGB, _NO_FLAGS = 0, 0

# FFCV's own `imdecode` asks for the fast, inexact DCT, which is no faster on processors of today and moves pixels by
# one on average; asked plainly, libjpeg-turbo gives Pillow's pixels bit by bit. It is reached through FFCV's library,
# which is linked to it.
_turbojpeg = ctypes.CDLL(_libffcv.__file__)
_turbojpeg.tjInitDecompress.restype = ctypes.c_void_p
_turbojpeg.tjDestroy.argtypes = [ctypes.c_void_p]
_turbojpeg.tjDecompress2.argtypes = [
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
]


class Stored(NamedTuple):
    """A sample, and the width and height of its upright image before any reduction."""

    sample: Sample
    size: tuple[int, int]


# position → why its bytes are not to be believed, or ""; it may put others in their place. Called on the threads.
Check = Callable[[int], str]


class _Batch(NamedTuple):
    stored: Sequence[Stored]
    draw_B: np.ndarray
    pixel_BSSC: np.ndarray
    failed: dict[int, str]
    check: Check | None


class CropDecoder:
    """Decodes on threads of its own, which hold no lock of Python's while they decode and resize."""

    def __init__(self, spec: PixelSpec, crop: Crop | None, threads: int) -> None:
        self.spec, self.crop = spec, crop
        self._threads, self._side = threads, scaled_side(spec, crop)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cleanctl-decode")

    def fill(
        self, stored: Sequence[Stored], draw_B: np.ndarray, pixel_BSSC: np.ndarray, check: Check | None = None
    ) -> dict[int, str]:
        """Fills pixel_BSSC uint8 (B, S, S, 3); gives position → why, for those that cannot be decoded."""
        batch = _Batch(stored, draw_B, pixel_BSSC, {}, check)
        # Several parts a thread, because images differ in what they cost.
        step = max(4, -(-len(stored) // (4 * self._threads)))
        parts = [range(start, min(start + step, len(stored))) for start in range(0, len(stored), step)]
        for _ in self._pool.map(lambda part: self._fill_part(part, batch), parts):
            pass
        return batch.failed

    def close(self) -> None:
        self._pool.shutdown()

    def _fill_part(self, part: range, batch: _Batch) -> None:
        if batch.check is not None:
            batch.failed.update({index: why for index in part if (why := batch.check(index))})
        sound = [index for index in part if index not in batch.failed]
        handle = _turbojpeg.tjInitDecompress()
        try:
            for _, positions in itertools.groupby(sound, lambda index: self._alike(index, batch.stored[index])):
                self._fill_alike(list(positions), batch, handle)
        finally:
            _turbojpeg.tjDestroy(handle)

    def _alike(self, index: int, stored: Stored) -> object:
        """The same for neighbours whose crops are made in one call: small images of one size."""
        mode, width, height, _ = stored.sample
        return index if self.crop or width * height > _TOGETHER_UP_TO else (mode, width, height, stored.size)

    def _fill_alike(self, positions: list[int], batch: _Batch, handle: int) -> None:
        sample, size = batch.stored[positions[0]]
        draw, shrink = int(batch.draw_B[positions[0]]), self._shrink(sample)
        decoded, pixels = [], []
        for index in positions:
            data = batch.stored[index].sample.data
            pixel_HWC = _decode(sample._replace(data=data), shrink, handle)
            if pixel_HWC is not None:
                decoded.append(index)
                pixels.append(pixel_HWC)
                continue
            try:  # what Pillow says of the file holds for all loaders
                image = decode_rgb(data)
            except UnreadableImage as exc:
                batch.failed[index] = exc.reason
                continue
            whole = np.array(image)[None]
            batch.pixel_BSSC[index] = to_crops(whole, self.spec, self.crop, draw, size=size, extent=image.size)[0]
        if pixels:
            together = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
            extent = sample.width / shrink, sample.height / shrink
            crop_KSSC = to_crops(together, self.spec, self.crop, draw, size=size, extent=extent)
            for index, crop_SSC in zip(decoded, crop_KSSC):  # NumPy assigns to a list of positions byte by byte
                batch.pixel_BSSC[index] = crop_SSC

    def _shrink(self, sample: Sample) -> int:
        shrink = 1
        if sample.mode == JPEG and self._side is not None:
            while shrink < 8 and min(sample[1:3]) >= 2 * shrink * _SCALED_DECODE_ABOVE * self._side:
                shrink *= 2
        return shrink


def _decode(sample: Sample, shrink: int, handle: int) -> np.ndarray | None:
    """uint8 (H, W, 3), a JPEG scaled down by `shrink`; None if libjpeg-turbo complains."""
    data, height, width = np.frombuffer(sample.data, np.uint8), sample.height, sample.width
    if sample.mode != JPEG:
        return data[: height * width * 3].reshape(height, width, 3).copy()
    pixel_HWC = np.empty((-(-height // shrink), -(-width // shrink), 3), np.uint8)
    code = _turbojpeg.tjDecompress2(
        *(handle, data.ctypes.data, len(data), pixel_HWC.ctypes.data),
        *(pixel_HWC.shape[1], 0, pixel_HWC.shape[0], _TO_RGB, _NO_FLAGS),
    )
    return pixel_HWC if code == 0 else None
