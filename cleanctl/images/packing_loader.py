"""The FFCV loader's first pass: crops of what is being packed, while it is packed, so that files are read once.

In: a `Packing` that has just begun, or goes on. Out: ImageBatch, and the whole `.beton` at the end of the pass. The
pixels are those that FfcvLoader gives of the finished file, bit by bit: the same samples, decoded by the same code.

Worth it where reading the files takes as long as what is done with them: behind a URL, or beside a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cleanctl.images.crop_decoder import CropDecoder, Stored
from cleanctl.images.packed.pack import Packed, Packing
from cleanctl.progress import Task
from cleanctl.records import ImageBatch, PixelSpec
from cleanctl.runtime import cpu_count


class PackingLoader:
    """An ImageLoader of one pass: rows are asked for once, in ascending order, in one or several calls."""

    name = "ffcv"

    def __init__(self, *, packing: Packing, spec: PixelSpec, threads: int | None = None) -> None:
        self._packing = packing
        self._decoder = CropDecoder(spec, None, threads or cpu_count())
        self._packed: Iterator[tuple[int, Packed]] = (
            pair for rows, packed in packing for pair in zip(rows.tolist(), packed)
        )

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` once, in that order. After the last row of all, the file is whole."""
        row_N = np.asarray(row_N, dtype=np.int64)
        for start in range(0, len(row_N), batch_size):
            row_B = row_N[start : start + batch_size]
            yield self._decode(row_B, [self._take(row) for row in row_B.tolist()])
        if len(row_N) and row_N[-1] == len(self._packing) - 1:
            assert next(self._packed, None) is None

    def skip(self, stop: int, task: Task) -> None:
        """Packs the rows before `stop`, which will not be asked for."""
        for row in range(stop):
            self._take(row)
            if row % 1000 == 999:
                task.advance(1000)
        task.advance(stop % 1000)

    def close(self) -> None:
        """Ends packing: what is packed is kept, and the rest is for the next run."""
        self._packing.close()
        self._decoder.close()

    def _take(self, wanted: int) -> Packed:
        for row, item in self._packed:
            if row == wanted:
                return item
            assert row < wanted, "rows are given once, in ascending order"
        raise AssertionError("rows are given once, in ascending order")

    def _decode(self, row_B: np.ndarray, items: list[Packed]) -> ImageBatch:
        count, size = len(items), self._decoder.spec.size
        pixel_BSSC = np.empty((count, size, size, 3), np.uint8)
        stored = [Stored(item.sample, (item.width, item.height)) for item in items]
        failed = self._decoder.fill(stored, np.zeros(count, np.int64), pixel_BSSC)
        failed |= {index: item.reason for index, item in enumerate(items) if item.reason}
        ok_B = np.ones(count, dtype=bool)
        ok_B[list(failed)] = False
        return ImageBatch(
            row_B=row_B,
            pixel_BSSC=pixel_BSSC,
            ok_B=ok_B,
            reason={int(row_B[index]): why for index, why in failed.items()},
            fingerprints=self._packing.fingerprints.at(row_B),
        )
