"""`Comparison`: is one image a copy of another? By their pixels where both can be read, else by their embeddings.

Pixels are thumbnails of 32 × 32, read once through the product's loaders and kept, 3 kB each, in an unnamed temporary
file beside the store, so that memory does not grow with the number of images. Whitened embeddings (candidates.py),
which alone tell less, are kept in the same way, and only where an image that is needed cannot be read. Both files
vanish with the process.

Legend: M images of the pool, P pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cleanctl.conflicts.candidates import Axes
from cleanctl.conflicts.pixels import GREY, likeness
from cleanctl.conflicts.pool import Pool
from cleanctl.images.loaders import SeededLoader
from cleanctl.progress import Progress, Task
from cleanctl.records import PixelSpec

SPEC = PixelSpec(size=32, resize_mode="squash", interpolation="bilinear")
READ_BATCH = 256
PAIRS_AT_ONCE = 512  # 60 MiB of working memory
COARSE = 8  # side of the picture by which most pairs are told apart
LEAST_COARSE = 0.55
COARSE_FLOOR = 16.0  # added to the variances: flat pictures are then as alike as their levels

OpenLoader = Callable[[str, PixelSpec], SeededLoader]


class Comparison:
    """least_likeness: of pixels, see pixels.py. least_cosine: of whitened embeddings, where pixels are not
    there."""

    def __init__(self, pool: Pool, axes: Axes, *, least_likeness: float, least_cosine: float, folder: Path) -> None:
        self._pool, self._axes, self._folder = pool, axes, folder
        self._least_likeness, self._least_cosine = least_likeness, least_cosine
        self.seen_M = np.zeros(len(pool), bool)  # whose thumbnail is there
        self.unreadable = 0
        self._place_M = np.full(len(pool), -1, np.int64)  # in the thumbnails
        self._thumbnail: np.ndarray = np.zeros((0, SPEC.size, SPEC.size, 3), np.uint8)
        self._vector_place_M = np.full(len(pool), -1, np.int64)
        self._vector: np.ndarray = np.zeros((0, axes.dim), np.float16)

    def read(self, wanted_M: np.ndarray, open_loader: OpenLoader, progress: Progress) -> None:
        """Thumbnails of the images in wanted_M (bool)."""
        self._place_M[wanted_M] = np.arange(int(wanted_M.sum()))
        self._thumbnail = self._temporary((int(wanted_M.sum()), SPEC.size, SPEC.size, 3), np.dtype(np.uint8))
        with progress.track("reading images", total=len(self._thumbnail), unit="images") as task:
            for part in self._pool.parts:
                number_W = part.first + np.flatnonzero(wanted_M[part.first : part.stop])
                if not len(number_W):
                    continue
                loader = open_loader(part.split.name, SPEC)
                try:
                    at = 0
                    for batch in loader.batches(part.row_K[number_W - part.first], batch_size=READ_BATCH):
                        number_B = number_W[at : at + len(batch.row_B)]
                        ok_B = batch.ok_B
                        self._thumbnail[self._place_M[number_B[ok_B]]] = batch.pixel_BSSC[ok_B]
                        self.seen_M[number_B[ok_B]] = True
                        self.unreadable += int((~ok_B).sum())
                        at += len(number_B)
                        task.advance(len(number_B))
                finally:
                    loader.close()

    def remember(self, wanted_M: np.ndarray) -> None:
        """Embeddings of the images in wanted_M (bool)."""
        self._vector_place_M[wanted_M] = np.arange(int(wanted_M.sum()))
        self._vector = self._temporary((int(wanted_M.sum()), self._axes.dim), np.dtype(np.float16))
        if not len(self._vector):
            return
        for number_B, image_BD in self._pool.blocks():
            keep_B = wanted_M[number_B]
            self._vector[self._vector_place_M[number_B[keep_B]]] = self._axes(image_BD[keep_B])

    def alike(self, first_P: np.ndarray, second_P: np.ndarray, task: Task | None = None) -> np.ndarray:
        """(P,) float32: how alike two images are, in (0, 1]; 0 where they are no copies of each other."""
        alike_P = np.zeros(len(first_P), np.float32)
        seen_P = self.seen_M[first_P] & self.seen_M[second_P]
        for start in range(0, len(first_P), 64 * PAIRS_AT_ONCE):
            at = slice(start, start + 64 * PAIRS_AT_ONCE)
            self._by_pixels(first_P[at], second_P[at], np.flatnonzero(seen_P[at]), alike_P[at])
            self._by_embeddings(first_P[at], second_P[at], np.flatnonzero(~seen_P[at]), alike_P[at])
            if task is not None:
                task.advance(min(64 * PAIRS_AT_ONCE, len(first_P) - start))
        return alike_P

    def _by_pixels(self, first_P: np.ndarray, second_P: np.ndarray, at_Q: np.ndarray, alike_P: np.ndarray) -> None:
        one_Q, other_Q = self._place_M[first_P[at_Q]], self._place_M[second_P[at_Q]]
        near_Q = np.concatenate(
            [
                coarse_likeness(self._thumbnail[one_Q[part]], self._thumbnail[other_Q[part]]) >= LEAST_COARSE
                for part in _parts(len(one_Q), 8 * PAIRS_AT_ONCE)
            ]
            or [np.zeros(0, bool)]
        )
        at_Q, one_Q, other_Q = at_Q[near_Q], one_Q[near_Q], other_Q[near_Q]
        for part in _parts(len(one_Q), PAIRS_AT_ONCE):
            found = likeness(self._thumbnail[one_Q[part]], self._thumbnail[other_Q[part]])
            alike_P[at_Q[part]] = np.where(found >= self._least_likeness, found, 0)

    def _by_embeddings(self, first_P: np.ndarray, second_P: np.ndarray, at_Q: np.ndarray, alike_P: np.ndarray) -> None:
        for part in _parts(len(at_Q), 8 * PAIRS_AT_ONCE):
            one = self._vector[self._vector_place_M[first_P[at_Q[part]]]].astype(np.float32)
            other = self._vector[self._vector_place_M[second_P[at_Q[part]]]].astype(np.float32)
            cosine = np.minimum((one * other).sum(axis=1), 1)
            alike_P[at_Q[part]] = np.where(cosine >= self._least_cosine, cosine, 0)

    def _temporary(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self._folder) as file:  # numpy's mapping keeps it alive
            file.truncate(int(np.prod(shape)) * dtype.itemsize)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def coarse_likeness(a_PSSC: np.ndarray, b_PSSC: np.ndarray) -> np.ndarray:
    """(P,) float32, at most 1: the similarity of structure of two small grey pictures as they lie."""
    a_PQ, b_PQ = _coarse(a_PSSC), _coarse(b_PSSC)
    apart_P = ((a_PQ - b_PQ) ** 2).mean(axis=1)
    spread_P = a_PQ.var(axis=1) + b_PQ.var(axis=1) + 2 * COARSE_FLOOR
    return 1 - apart_P / spread_P


def _coarse(image_PSSC: np.ndarray) -> np.ndarray:
    count, size = image_PSSC.shape[:2]
    cell = size // COARSE
    small = image_PSSC.reshape(count, COARSE, cell, COARSE, cell, 3).mean(axis=(2, 4), dtype=np.float32)
    return (small @ GREY).reshape(count, -1)
