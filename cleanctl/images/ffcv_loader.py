"""The FFCV loader: rows of a `.beton` file → batches, decoded and resized on threads.

In: rows. Out: ImageBatch, in the order asked for; the pixels are a view of a buffer that is used again. Nothing is
written. FFCV's Loader reads, schedules and keeps batches ahead; crops are made by our own operation, because FFCV's
decoding (inexact DCT), resizing (INTER_AREA) and centre crop are not what CLIP models were trained on.

How FFCV's habits are dealt with:

- `drop_last` would lose the last batch; it is off, and our subclass gives any subset, order and repetition of rows.
- It would size its scratch by the largest image times the batch times the batches ahead. Ours is one image a thread.
- A Loader sets torch's thread count. It is put back.
- A Loader whose thread dies leaves its consumer waiting for ever. An error of our operation is handed on as a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.images.crop_decoder import CropDecoder, Stored
from cleanctl.images.ffcv_import import AllocationQuery, Loader, Operation, SimpleRGBImageDecoder, light_loader
from cleanctl.images.geometry import Crop, draws_of
from cleanctl.images.packed.beton import Sample
from cleanctl.images.packed.pack import Limit, pack_bytes
from cleanctl.images.packed.rows import RowTable
from cleanctl.records import ImageBatch, PixelSpec, Storage
from cleanctl.runtime import cpu_count

BATCHES_AHEAD = 2
ROW_BITS = 40  # of an index; above them is the draw of a random crop


class _OrderedLoader(Loader):
    """FFCV's Loader over the rows of `index_N`, which may change between epochs."""

    index_N = np.zeros(0, np.uint64)

    def next_traversal_order(self) -> np.ndarray:
        return self.index_N

    def __len__(self) -> int:
        return -(-len(self.index_N) // self.batch_size)


class _Locate(SimpleRGBImageDecoder):
    """FFCV's decoder by name, which hands on where the samples are."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        return replace(previous_state, jit_mode=True, shape=(), dtype=np.dtype("u1")), None

    def generate_code(self) -> Callable[..., Any]:
        return lambda index_B, memory, metadata, storage: (index_B, metadata, storage)


class _Crops(Operation):
    """FFCV's operation from located samples to (row_B, draw_B, pixel_BSSC, position → why it cannot be decoded), or to
    the error that ended it."""

    def __init__(self, decoder: CropDecoder, table: RowTable, files: Storage) -> None:
        super().__init__()
        self.decoder = decoder
        self.table = table
        self.files = files

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, AllocationQuery]:
        shape, dtype = (self.decoder.spec.size, self.decoder.spec.size, 3), np.dtype("u1")
        return replace(previous_state, jit_mode=False, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        def decode(located: tuple, pixel_BSSC: np.ndarray) -> Any:
            try:
                index_B, metadata, (file, _, size_N) = located
                row_B = (index_B & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)
                data = file.view(np.ndarray).data
                stored = []
                for (mode, width, height, at), size, shape in zip(
                    metadata[row_B].tolist(), size_N[row_B].tolist(), self.table.shape_N2[row_B].tolist()
                ):
                    stored.append(Stored(Sample(mode, width, height, data[at : at + size]), (shape[1], shape[0])))
                draw_B = (index_B >> np.uint64(ROW_BITS)).astype(np.int64)
                check = partial(self._mend, stored, row_B)
                return row_B, pixel_BSSC, self.decoder.fill(stored, draw_B, pixel_BSSC, check)
            except BaseException as exc:  # noqa: BLE001 - raised where the batch is asked for
                return exc

        return decode

    def _mend(self, stored: list[Stored], row_B: np.ndarray, position: int) -> str:
        """Puts the image file's own content where the packed bytes are damaged; else why that cannot be done."""
        row, (sample, size) = int(row_B[position]), stored[position]
        if self.table.has(row, sample.data):
            return ""
        (content,) = self.files.read([self.table.keys[row]])
        fresh = pack_bytes(content, Limit(self.table.limit))
        if fresh.digest != self.table.fingerprints.digest_N16[row].tobytes():
            return f"the packed file is damaged and the image {fresh.reason or 'has changed'}; run cleanctl embed again"
        stored[position] = Stored(fresh.sample, size)
        return ""


class FfcvLoader:
    """An ImageLoader over a packed file; `threads` decode at once. files: where rows damaged in it are read."""

    name = "ffcv"

    def __init__(
        self,
        *,
        path: Path,
        table: RowTable,
        files: Storage,
        spec: PixelSpec,
        crop: Crop | None = None,
        threads: int | None = None,
    ) -> None:
        self.crop = crop
        self.table = table
        self._files = files
        self._decoder = CropDecoder(spec, crop, threads or cpu_count())
        self._loader = self._open(path)

    def _open(self, path: Path) -> Loader:
        import torch

        before = torch.get_num_threads()
        try:
            with light_loader():
                return _OrderedLoader(
                    str(path),
                    batch_size=1,
                    num_workers=1,  # its own threads have nothing to do
                    os_cache=True,
                    seed=0,  # else FFCV draws one from NumPy's global generator
                    drop_last=False,
                    batches_ahead=BATCHES_AHEAD,
                    pipelines={"image": [_Locate(), _Crops(self._decoder, self.table, self._files)]},
                )
        finally:
            torch.set_num_threads(before)

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` (repetitions allowed) once, in that order; `seed` fixes random crops."""
        import torch

        row_N = np.asarray(row_N, dtype=np.int64)
        if not len(row_N):
            return
        assert row_N.min() >= 0
        assert row_N.max() < len(self.table)
        draw_N = np.zeros(len(row_N), np.int64) if self.crop is None else draws_of(len(row_N), seed, done)
        before = torch.get_num_threads()
        self._loader.batch_size = batch_size
        self._loader.index_N = (row_N | draw_N << ROW_BITS).astype(np.uint64)
        epoch = iter(self._loader)
        try:
            for (item,) in epoch:
                # Only now has FFCV's thread surely set the thread count, which it does as it starts.
                torch.set_num_threads(before)
                if isinstance(item, BaseException):
                    raise item
                yield self._batch(*item)
        finally:
            epoch.close()

    def close(self) -> None:
        self._decoder.close()

    def _batch(self, row_B: np.ndarray, pixel_BSSC: np.ndarray, failed: dict[int, str]) -> ImageBatch:
        reason = {int(row_B[index]): why for index, why in failed.items()}
        if self.table.reason:
            reason |= {row: self.table.reason[row] for row in row_B.tolist() if row in self.table.reason}
        return ImageBatch(
            row_B=row_B,
            pixel_BSSC=pixel_BSSC,
            ok_B=~np.isin(row_B, list(reason)),
            reason=reason,
            fingerprints=self.table.fingerprints.at(row_B),
        )
