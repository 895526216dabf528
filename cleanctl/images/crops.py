"""Stored samples → squares, by compiled code on a few threads, and Pillow's verdict where it is not content.

In: where samples lie in a buffer (a mapped FFCV file, or one in memory). Out: uint8 squares. Needs FFCV.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cleanctl.images import resample
from cleanctl.images.decode import UnreadableImage, decode_rgb
from cleanctl.images.geometry import MODES, RandomCrop
from cleanctl.images.packed.beton import Sample
from cleanctl.images.resize import cut_square
from cleanctl.records import PixelSpec


class SquareDecoder:
    """Decodes on threads of its own: Numba's parallel loops compile long, and their thread pools bear neither a fork
    nor a second loader at the same time."""

    def __init__(self, spec: PixelSpec, crop: RandomCrop | None, threads: int) -> None:
        self.spec = spec
        self.crop = crop
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cleanctl-decode")
        self._crop = np.array([] if crop is None else [*crop.scale, *crop.ratio], dtype=np.float64)
        self._choice = np.array(
            [MODES[spec.resize_mode], resample.KINDS[spec.interpolation], spec.fill, resample.PILLOW_REORDERS],
            dtype=np.int64,
        )

    def fill(
        self,
        index_B: np.ndarray,
        metadata: np.ndarray,
        file: np.ndarray,
        size_N: np.ndarray,
        shape_N2: np.ndarray,
        pixel_BSSC: np.ndarray,
        ok_B: np.ndarray,
    ) -> None:
        """Fills pixel_BSSC uint8 (B, S, S, 3) and ok_B int32 (B,), whether the decoder was content.

        index_B: uint64, row + draw · 2^40. metadata, size_N uint64, shape_N2 int32 (height and width before any
        reduction): of the rows. file: uint8, what their addresses point into.
        """
        # Several parts a thread, because images differ in what they cost.
        step = max(4, -(-len(index_B) // (4 * self._threads)))
        parts = [slice(start, start + step) for start in range(0, len(index_B), step)]

        def run(part: slice) -> None:
            resample.decode_rows(
                *(index_B[part], metadata, file, size_N, shape_N2),
                *(self._crop, self._choice, pixel_BSSC[part], ok_B[part]),
            )

        list(self._pool.map(run, parts))

    def ask_pillow(
        self, pixel_BSSC: np.ndarray, ok_B: np.ndarray, draw_B: np.ndarray, sample: Callable[[int], Sample]
    ) -> dict[int, str]:
        """Where not ok_B (bool), another try, whose verdict holds for all loaders: position → why it is unreadable.

        sample: the stored one at a position of the batch.
        """
        reason: dict[int, str] = {}
        for index in np.flatnonzero(~ok_B).tolist():
            try:
                image = decode_rgb(sample(index).data)
            except UnreadableImage as exc:
                reason[index] = exc.reason
                continue
            ok_B[index] = True
            pixel_BSSC[index] = cut_square(image, self.spec, self.crop, int(draw_B[index]))
        return reason

    def close(self) -> None:
        self._pool.shutdown()
