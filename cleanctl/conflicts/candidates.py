"""Which images might be copies of each other: the nearest neighbours of each by their embeddings.

Embeddings are centred, cut to at most 128 principal axes, and whitened: scaled to equal variance on each axis. A model
puts what its classes have in common on the large axes, where images of one class lie close; what tells one image from
another is on the small ones. Whitened, a copy is nearly always among the first neighbours (docs/conflicts.md). An image
then takes 128 bytes in FAISS's inverted file (IVF with 8-bit values), so that the search stays in memory. Up to
EXACT_ROWS images are searched exactly. Without FAISS the search is exact too, block by block, and slow.

Legend: M images of the pool, R of them searched, D embedding size, d axes kept, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanctl.conflicts.pool import Pool
from cleanctl.errors import InputError, install_command
from cleanctl.progress import Progress

AXES = 128
ROWS_PER_AXIS = 10  # of few images fewer axes: whitening would make any two of them equally far apart
DAMPING = 1e-3  # of the largest variance, added to all: an axis of rounding errors alone must not count
SAMPLE_ROWS = 32_768  # for the axes
EXACT_ROWS = 50_000
ROWS_PER_CELL = 48
MAX_CELLS = 16_384
PROBES = 12
TRAINING_STEPS = 10  # of k-means; cells need not be good, only even
QUERY_ROWS = 8_192


@dataclass(frozen=True)
class Pairs:
    """Candidates, each pair once: pool numbers first_P < second_P, int64. by: how they were searched, in words."""

    first_P: np.ndarray
    second_P: np.ndarray
    by: str


def find_pairs(
    pool: Pool, searched_M: np.ndarray, axes: Axes, *, neighbors: int, least_cosine: float, progress: Progress
) -> Pairs:
    """The `neighbors` nearest of each searched image of the split itself, among all searched ones (bool (M,)).

    Pairs whose whitened embeddings have a cosine below least_cosine are left out.
    """
    number_R = np.flatnonzero(searched_M)
    index, by = _index(pool, searched_M, axes)
    found: list[np.ndarray] = []
    with progress.track("nearest neighbours", total=int((number_R < pool.own).sum()), unit="images") as task:
        for number_B, point_Bd in _points(pool, searched_M, axes, stop=pool.own):
            distance_BK, near_BK = index(point_Bd, neighbors + 1)
            at_B, at_K = np.nonzero((distance_BK <= 2 * (1 - least_cosine)) & (near_BK >= 0))
            one_P, other_P = number_B[at_B], number_R[near_BK[at_B, at_K]]
            apart_P = one_P != other_P
            found.append(np.sort(np.stack([one_P, other_P], axis=1)[apart_P], axis=1))
            task.advance(len(number_B))
    pair_P2 = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)
    return Pairs(pair_P2[:, 0], pair_P2[:, 1], by)


class Axes:
    """Embeddings (B, D) float16 → whitened points (B, d) float32 of unit length."""

    def __init__(self, pool: Pool) -> None:
        step = max(1, len(pool) // SAMPLE_ROWS)
        sample = np.concatenate([image_BD[-number_B[0] % step :: step] for number_B, image_BD in pool.blocks()])
        if not np.isfinite(sample).all():
            raise InputError("Embeddings of the split hold NaN or infinity.", do="Embed these images again.")
        self._mean_D = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = sample.astype(np.float32) - self._mean_D
        variance, axis = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(sample))
        kept = min(AXES, max(8, len(sample) // ROWS_PER_AXIS))
        variance, axis = np.maximum(variance[::-1][:kept], 0), axis[:, ::-1][:, :kept]
        scale = np.sqrt(np.maximum(variance + DAMPING * variance[0], 1e-12))
        self._axis_Dd = np.ascontiguousarray(axis / scale, dtype=np.float32)
        self.dim = len(scale)

    def __call__(self, image_BD: np.ndarray) -> np.ndarray:
        point_Bd = (image_BD.astype(np.float32) - self._mean_D) @ self._axis_Dd
        return point_Bd / np.maximum(np.linalg.norm(point_Bd, axis=1, keepdims=True), 1e-12)


def _points(pool: Pool, searched_M: np.ndarray, axes: Axes, *, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(pool numbers, projections (B, d) float32) of the searched images below `stop`."""
    for number_B, image_BD in pool.blocks():
        keep_B = searched_M[number_B] & (number_B < stop)
        number_B, image_BD = number_B[keep_B], image_BD[keep_B]
        for start in range(0, len(number_B), QUERY_ROWS):
            part = slice(start, start + QUERY_ROWS)
            yield number_B[part], axes(image_BD[part])


def _index(pool: Pool, searched_M: np.ndarray, axes: Axes) -> tuple[Any, str]:
    """A function (points, K) → (squared distances (B, K), numbers among the searched (B, K) int64), and what it is."""
    count = int(searched_M.sum())
    try:
        import faiss
    except ImportError:
        points = _all_points(pool, searched_M, axes)
        return lambda x, k: _blocked(points, x, k), f"exact search without FAISS ({install_command('cpu')} is faster)"
    if count <= EXACT_ROWS:
        points = _all_points(pool, searched_M, axes)
        return lambda x, k: faiss.knn(x, points, min(k, count)), "FAISS, exact search"
    dim = axes.dim
    cells = max(1, min(int(4 * count**0.5), count // ROWS_PER_CELL, MAX_CELLS))
    index: Any = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dim), dim, cells, faiss.ScalarQuantizer.QT_8bit)
    index.cp.niter = TRAINING_STEPS
    index.nprobe = min(PROBES, cells)
    step = max(1, count // (ROWS_PER_CELL * cells))
    index.train(np.concatenate([x[::step] for _, x in _points(pool, searched_M, axes, stop=len(pool))]))
    for _, point_Bd in _points(pool, searched_M, axes, stop=len(pool)):
        index.add(point_Bd)
    return index.search, f"FAISS IVF, {index.nprobe} of {cells} cells visited"


def _all_points(pool: Pool, searched_M: np.ndarray, axes: Axes) -> np.ndarray:
    return np.concatenate([x for _, x in _points(pool, searched_M, axes, stop=len(pool))])


def _blocked(point_Rd: np.ndarray, x_Bd: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact, in NumPy: one tile of rows after another, the nearest so far carried along."""
    best_BK, near_BK = np.zeros((len(x_Bd), 0), np.float32), np.zeros((len(x_Bd), 0), np.int64)
    for start in range(0, len(point_Rd), QUERY_ROWS):
        tile = point_Rd[start : start + QUERY_ROWS]
        distance = (x_Bd**2).sum(axis=1)[:, None] + (tile**2).sum(axis=1) - 2 * (x_Bd @ tile.T)
        best_BK = np.concatenate([best_BK, np.maximum(distance, 0)], axis=1)
        near_BK = np.concatenate([near_BK, np.tile(np.arange(start, start + len(tile)), (len(x_Bd), 1))], axis=1)
        if best_BK.shape[1] > count:
            order = np.argpartition(best_BK, count - 1, axis=1)[:, :count]
            best_BK, near_BK = np.take_along_axis(best_BK, order, 1), np.take_along_axis(near_BK, order, 1)
    return best_BK, near_BK
