"""The FFCV loader: rows of a `.beton` file → batches, decoded and resized by compiled threads, no Python per image.

In: rows. Out: ImageBatch, in the order asked for; the pixels are a view of a buffer that is used again. Nothing is
written. FFCV's Loader does the scheduling, its libjpeg-turbo the decoding; the square is made by our own operation,
because FFCV's resize (INTER_AREA, no antialiased bicubic) and its centre crop are not what CLIP models were trained on.

How FFCV's habits are dealt with:

- `drop_last` would lose the last batch; it is off, and `_set_order` gives any subset, order and repetition of rows.
- A pipeline compiles once for each Loader, so one Loader is kept and its order changed. What takes long to compile
  (resample.py) is cached on disk; the operation's own loop is short.
- It would size its scratch by the largest image times the batch times the batches ahead. Ours is one image a thread.
- A Loader sets torch's thread count. It is put back.
- A Loader whose thread dies leaves its consumer waiting for ever. Here the consumer looks after the thread.

A JPEG that libjpeg-turbo complains of is decoded once more by Pillow, whose verdict holds for both loaders.
"""

from __future__ import annotations

import ctypes
import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.libffcv import ctypes_imdecode
from ffcv.loader import Loader
from ffcv.pipeline.allocation_query import AllocationQuery
from numba import njit, prange, types

from cleanctl.data import resample
from cleanctl.data.beton import JPEG, BetonFile
from cleanctl.data.decode import UnreadableImage, decode_rgb
from cleanctl.data.draws import draws_of
from cleanctl.data.geometry import MODES, RandomCrop
from cleanctl.data.resize import to_random_square, to_square
from cleanctl.data.rows import RowTable
from cleanctl.records import ImageBatch, PixelSpec
from cleanctl.runtime import cpu_count

BATCHES_AHEAD = 2
_ROW_BITS = 40  # below the draw, in the index that FFCV carries for us

# A JPEG is decoded at a half, quarter or eighth of its size while its short side stays this many squares long. Two
# squares keep the cosine to the full decode above 0.9999 on photographs.
_SCALED_DECODE_ABOVE = 2

# Called by name, because code that holds an address cannot be cached on disk.
_IMDECODE = "cleanctl_ffcv_imdecode"
llvmlite.binding.add_symbol(_IMDECODE, ctypes.cast(ctypes_imdecode, ctypes.c_void_p).value)
_SIGNATURE: Any = types.int32(
    *(types.intp, types.uint64, types.uint32, types.uint32, types.intp),  # bytes, their number, size, pixels
    *(types.uint32, types.uint32, types.uint32, types.uint32),  # the part to decode: size, offset
    *(types.uint32, types.uint32, types.int8, types.int8),  # scale: numerator, denominator; crop?, flip?
)
_imdecode: Any = types.ExternalFunction(_IMDECODE, _SIGNATURE)


@resample.compiled
def _pixels(data, mode, height, width, shrink):  # type: ignore[no-untyped-def]
    """(uint8 (h, w, 3), whether the decoder was content)."""
    if mode != JPEG:
        return data[: height * width * 3].copy().reshape(height, width, 3), True
    out_height, out_width = (height + shrink - 1) // shrink, (width + shrink - 1) // shrink
    pixel_HWC = np.empty((out_height, out_width, 3), np.uint8)
    code = _imdecode(
        data.ctypes.data, data.size, height, width, pixel_HWC.ctypes.data, height, width, 0, 0, 1, shrink, 0, 0
    )
    return pixel_HWC, code == 0


@resample.compiled
def _decode_one(data, mode, height, width, draw, crop, choice, out_SSC):  # type: ignore[no-untyped-def]
    """Whether `out_SSC` was filled. crop: float64 (4,) for a random crop, empty for none. choice: int64 (4,): resize
    mode, interpolation, fill, and whether this Pillow reorders its passes."""
    shrink = 1
    while len(crop) == 0 and shrink < 8 and min(height, width) >= 2 * shrink * _SCALED_DECODE_ABOVE * len(out_SSC):
        shrink *= 2
    pixel_HWC, content = _pixels(data, mode, height, width, shrink)
    if not content:
        return False
    if len(crop):
        resample.to_random_square(pixel_HWC, draw, crop, choice[1], choice[3] != 0, out_SSC)
    else:
        resample.to_square(pixel_HWC, choice[0], choice[1], choice[2], choice[3] != 0, out_SSC)
    return True


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _decode_batch(index_B, metadata, storage, crop, choice, pixel_BSSC, ok_B):  # type: ignore[no-untyped-def]
    """Fills `pixel_BSSC` and `ok_B` for indices that are row + draw · 2^40; `storage` is what FFCV's memory gives."""
    file, address_N, size_N = storage
    for i in prange(len(index_B)):
        index = np.int64(index_B[i])
        field = metadata[index & ((1 << _ROW_BITS) - 1)]
        at = field["data_ptr"]
        data = file[at : at + size_N[np.searchsorted(address_N, at)]]
        height, width = np.int64(field["height"]), np.int64(field["width"])
        draw = index >> _ROW_BITS
        ok_B[i] = _decode_one(data, field["mode"], height, width, draw, crop, choice, pixel_BSSC[i])


class _SquareDecoder(SimpleRGBImageDecoder):
    """FFCV's operation from a stored sample to its square, and to whether it could be decoded."""

    def __init__(self, spec: PixelSpec, crop: RandomCrop | None) -> None:
        super().__init__()
        self.spec = spec
        self.crop = np.array([] if crop is None else [*crop.scale, *crop.ratio], dtype=np.float64)

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, tuple[AllocationQuery, ...]]:
        shape = (self.spec.size, self.spec.size, 3)
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("u1"))
        # The flags are int32 because FFCV marks Numba's type of one-dimensional uint8 arrays, shared by the whole
        # process, as read-only while it opens a Loader; a signature that holds that type is not found again.
        return state, (AllocationQuery(shape, np.dtype("u1")), AllocationQuery((), np.dtype("i4")))

    def generate_code(self) -> Callable[..., Any]:
        spec, crop = self.spec, self.crop
        # In an array, because Numba would compile the loop anew for every literal number.
        choice = np.array(
            [MODES[spec.resize_mode], resample.KINDS[spec.interpolation], spec.fill, resample.PILLOW_REORDERS]
        )

        # FFCV compiles this anew for each Loader, and cannot cache it: the loop over images is in what it calls.
        def decode(index_B, memory, metadata, storage):  # type: ignore[no-untyped-def]
            _decode_batch(index_B, metadata, storage, crop, choice, memory[0], memory[1])
            return memory

        return decode


class FfcvLoader:
    """An ImageLoader over a packed file; `threads` decode at once."""

    name = "ffcv"

    def __init__(
        self,
        *,
        path: Path,
        table: RowTable,
        spec: PixelSpec,
        crop: RandomCrop | None = None,
        threads: int | None = None,
    ) -> None:
        self.spec = spec
        self.crop = crop
        self.table = table
        self._beton = BetonFile(path)
        self._loader = self._open(path, min(threads or cpu_count(), numba.get_num_threads()))

    def _open(self, path: Path, threads: int) -> Loader:
        import torch

        before = torch.get_num_threads()
        try:
            return Loader(
                str(path),
                batch_size=1,
                num_workers=threads,
                os_cache=True,
                seed=0,  # else FFCV draws one from NumPy's global generator
                drop_last=False,
                batches_ahead=BATCHES_AHEAD,
                pipelines={"image": [_SquareDecoder(self.spec, self.crop)]},
            )
        finally:
            torch.set_num_threads(before)

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` (repetitions allowed) once, in that order; `seed` fixes random crops."""
        row_N = np.asarray(row_N, dtype=np.int64)
        draw_N = np.zeros(len(row_N), np.int64) if self.crop is None else draws_of(len(row_N), seed)
        if not len(row_N):
            return
        assert row_N.min() >= 0
        assert row_N.max() < len(self.table)
        start = 0
        for pixel_BSSC, ok_B in self._run(row_N | draw_N << _ROW_BITS, batch_size):
            part = slice(start, start + len(pixel_BSSC))
            start += len(pixel_BSSC)
            yield self._batch(row_N[part], draw_N[part], pixel_BSSC, ok_B.astype(bool))

    def close(self) -> None:
        self._loader = None

    def _run(self, index_N: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        import torch

        before = torch.get_num_threads()
        _set_order(self._loader, index_N.astype(np.uint64), batch_size)
        epoch = iter(self._loader)
        try:
            for _ in range(-(-len(index_N) // batch_size)):
                item = _next(epoch)
                # Only now has FFCV's thread surely set the thread count, which it does as it starts.
                torch.set_num_threads(before)
                yield item
        finally:
            epoch.close()

    def _batch(self, row_B: np.ndarray, draw_B: np.ndarray, pixel_BSSC: np.ndarray, ok_B: np.ndarray) -> ImageBatch:
        reason: dict[int, str] = {}
        for index in np.flatnonzero(~ok_B).tolist():
            row = int(row_B[index])
            try:
                image = decode_rgb(self._beton[row].data)
            except UnreadableImage as exc:
                reason[row] = exc.reason
                continue
            ok_B[index] = True
            if self.crop is None:
                pixel_BSSC[index] = to_square(image, self.spec)
            else:
                pixel_BSSC[index] = to_random_square(image, self.spec, self.crop, int(draw_B[index]))
        if self.table.reason:
            for index, row in enumerate(row_B.tolist()):
                if row in self.table.reason:
                    ok_B[index] = False
                    reason[row] = self.table.reason[row]
        return ImageBatch(row_B=row_B, pixel_BSSC=pixel_BSSC, ok_B=ok_B, reason=reason)


def _set_order(loader: Loader, index_N: np.ndarray, batch_size: int) -> None:
    loader.batch_size = batch_size
    loader.indices = index_N
    loader.traversal_order.indices = index_N
    loader.first_traversal_order = index_N  # what FFCV takes an epoch's length from


def _next(epoch: Any) -> tuple[np.ndarray, np.ndarray]:
    while True:
        try:
            slot_and_result = epoch.output_queue.get(timeout=1)
        except queue.Empty:
            if epoch.is_alive():
                continue
            raise RuntimeError("FFCV's loading thread died; its own error is above.") from None
        assert slot_and_result is not None
        (item,) = slot_and_result[1]
        return item
