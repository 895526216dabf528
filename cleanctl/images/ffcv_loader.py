"""The FFCV loader: rows of a `.beton` file → batches, decoded and resized by compiled threads, no Python per image.

In: rows. Out: ImageBatch, in the order asked for; the pixels are a view of a buffer that is used again. Nothing is
written. FFCV's Loader reads, schedules and keeps batches ahead; squares are made by our own operation, because FFCV's
decoding (inexact DCT), resizing (INTER_AREA) and centre crop are not what CLIP models were trained on.

How FFCV's habits are dealt with:

- `drop_last` would lose the last batch; it is off, and `_set_order` gives any subset, order and repetition of rows.
- A pipeline compiles once for each Loader, so one Loader is kept and its order changed. What takes long to compile is
  compiled by us and cached on disk.
- It would size its scratch by the largest image times the batch times the batches ahead. Ours is one image a thread.
- A Loader sets torch's thread count. It is put back.
- A Loader whose thread dies leaves its consumer waiting for ever. Here the consumer looks after the thread.

A JPEG that libjpeg-turbo complains of is decoded once more by Pillow, whose verdict holds for both loaders.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.images import resample
from cleanctl.images.crops import SquareDecoder
from cleanctl.images.draws import draws_of
from cleanctl.images.ffcv_import import AllocationQuery, Loader, Operation, SimpleRGBImageDecoder, lean_rows
from cleanctl.images.geometry import RandomCrop
from cleanctl.images.packed.beton import BetonFile
from cleanctl.images.packed.rows import RowTable
from cleanctl.records import ImageBatch, PixelSpec
from cleanctl.runtime import cpu_count

BATCHES_AHEAD = 2


class _Locate(SimpleRGBImageDecoder):
    """FFCV's decoder by name, which hands on where the samples are. FFCV compiles it for each Loader: it is short."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        return replace(previous_state, jit_mode=True, shape=(), dtype=np.dtype("u1")), None

    def generate_code(self) -> Callable[..., Any]:
        def locate(index_B, memory, metadata, storage):  # type: ignore[no-untyped-def]
            return index_B, metadata, storage

        return locate


class _Squares(Operation):
    """FFCV's operation from located samples to their squares and to whether each could be decoded.

    It is no compiled stage of FFCV's but calls code that is compiled already.
    """

    def __init__(self, decoder: SquareDecoder, shape_N2: np.ndarray) -> None:
        super().__init__()
        self.decoder = decoder
        self.shape_N2 = np.ascontiguousarray(shape_N2, dtype=np.int32)

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, tuple[AllocationQuery, ...]]:
        shape = (self.decoder.spec.size, self.decoder.spec.size, 3)
        state = replace(previous_state, jit_mode=False, shape=shape, dtype=np.dtype("u1"))
        # The flags are int32 because FFCV marks Numba's type of one-dimensional uint8 arrays, shared by the whole
        # process, as read-only while it opens a Loader; a signature that holds that type is not found again.
        return state, (AllocationQuery(shape, np.dtype("u1")), AllocationQuery((), np.dtype("i4")))

    def generate_code(self) -> Callable[..., Any]:
        def decode(located: tuple, memory: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            index_B, metadata, (file, _, size_N) = located
            self.decoder.fill(index_B, metadata, file, size_N, self.shape_N2, *memory)
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
        self.crop = crop
        self.table = table
        self.fingerprints = table.fingerprints
        self._beton = BetonFile(path)
        self._decoder = SquareDecoder(spec, crop, threads or cpu_count())
        self._loader = self._open(path)

    def _open(self, path: Path) -> Loader:
        import torch

        squares = _Squares(self._decoder, self.table.shape_N2)
        before = torch.get_num_threads()
        try:
            with lean_rows():
                return Loader(
                    str(path),
                    batch_size=1,
                    num_workers=1,  # its own threads have nothing to do
                    os_cache=True,
                    seed=0,  # else FFCV draws one from NumPy's global generator
                    drop_last=False,
                    batches_ahead=BATCHES_AHEAD,
                    pipelines={"image": [_Locate(), squares]},
                )
        finally:
            torch.set_num_threads(before)

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` (repetitions allowed) once, in that order; `seed` fixes random crops."""
        row_N = np.asarray(row_N, dtype=np.int64)
        draw_N = np.zeros(len(row_N), np.int64) if self.crop is None else draws_of(len(row_N), seed, done)
        if not len(row_N):
            return
        assert row_N.min() >= 0
        assert row_N.max() < len(self.table)
        start = 0
        for pixel_BSSC, ok_B in self._run(row_N | draw_N << resample.ROW_BITS, batch_size):
            part = slice(start, start + len(pixel_BSSC))
            start += len(pixel_BSSC)
            yield self._batch(row_N[part], draw_N[part], pixel_BSSC, ok_B.astype(bool))

    def close(self) -> None:
        self._decoder.close()

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
        found = self._decoder.ask_pillow(pixel_BSSC, ok_B, draw_B, lambda index: self._beton[int(row_B[index])])
        reason = {int(row_B[index]): why for index, why in found.items()}
        if self.table.reason:
            for index, row in enumerate(row_B.tolist()):
                if row in self.table.reason:
                    ok_B[index] = False
                    reason[row] = self.table.reason[row]
        fingerprints = self.table.fingerprints.at(row_B)
        return ImageBatch(row_B=row_B, pixel_BSSC=pixel_BSSC, ok_B=ok_B, reason=reason, fingerprints=fingerprints)


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
