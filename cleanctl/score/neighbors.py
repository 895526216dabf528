"""Who a row's nearest neighbours are, by cosine, exactly: in FAISS, on a GPU or by blocks. `cleanctl.score.ivf` finds
most of them.

In: Float32Blocks (N, D). Out: a Search, which says how it searches and yields (rows, (B, count) int64 row numbers,
nearest first; -1 where IVF found no more), in numpy, from a GPU in torch. Both sides are streamed: by blocks one tile
of each is held, in FAISS FAISS_QUERIES rows and their nearest; on a GPU N × D float16 (`cleanctl.score.resident`), in
FAISS there float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, to_numpy

from cleanctl.errors import MissingPackageError, install_command
from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.resident import open_resident

QUERY_ROWS = 1_024
FAISS_QUERIES, FAISS_ROWS = 16_384, 32_768  # that look at one another in one call
GPU_MOST = 2_048  # neighbours and probes of FAISS on a GPU

Found = tuple[np.ndarray, np.ndarray]  # (B, K) cosines, falling, and row numbers
Batches = Iterator[tuple[slice, Array]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """by: for people. batches: of the neighbours of a slice of the rows. cells, probes, recall: of IVF alone. recall:
    share of the true neighbours found, measured on `sampled` rows spread evenly, the row itself not counted."""

    by: str
    batches: Callable[[slice], Batches]
    cells: int | None = None
    probes: int | None = None
    recall: float | None = None
    sampled: int | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"cells": self.cells, "probes": self.probes, "recall": self.recall, "recall_rows": self.sampled}
        return {"by": self.by, **{key: value for key, value in found.items() if value is not None}}


def open_search(data: Float32Blocks, count: int, *, backend: str = "auto", device: str = "cpu") -> Search:
    """count: neighbours of each row, itself among them. backend: auto, faiss, blocked. `auto` takes FAISS on a CPU, and
    on a GPU our own search: nobody has measured the two there. Raises MissingPackageError if FAISS is demanded and
    absent."""
    if backend != "faiss" and device != "cpu":
        return _on_device(data, count)
    try:
        import faiss  # noqa: F401
    except ImportError as exc:
        if backend == "faiss":
            extra = "gpu" if device == "cuda" else "cpu"
            raise MissingPackageError.of("faiss", extra=extra, needed_for="--knn-backend faiss") from exc
        return _by_blocks(data, count, f"FAISS is not installed ({install_command('cpu')})")
    gpu = faiss_on_gpu(device)
    if backend == "blocked":
        return _by_blocks(data, count, "asked for")
    if gpu and count <= GPU_MOST:
        by = "FAISS on the GPU, exact inner product"
        return Search(by=by, batches=lambda part: _exact_faiss_on_gpu(data, count, part, gpu))
    return Search(by="FAISS, exact inner product", batches=lambda part: _exact_faiss(data, count, part))


def faiss_on_gpu(device: str) -> Any:
    """FAISS's resources of the GPU, None where FAISS was built without, or another device was asked for."""
    import faiss

    if device != "cuda" or not getattr(faiss, "get_num_gpus", lambda: 0)():
        return None
    return faiss.StandardGpuResources()


def _on_device(data: Float32Blocks, count: int) -> Search:
    resident = open_resident(data)
    if resident is None:
        return _by_blocks(data, count, "the rows do not fit the GPU's memory")
    by = f"exact search among the rows on {data.device}, tf32 candidates ranked in float64"
    return Search(by=by, batches=lambda part: resident.batches(count, part))


def _by_blocks(data: Float32Blocks, count: int, reason: str) -> Search:
    return Search(by=f"exact blocked search ({reason})", batches=lambda part: blocked_search(data, count, part))


def queries(data: Float32Blocks, part: slice) -> Iterator[tuple[slice, Array]]:
    """The rows of `part`, at most QUERY_ROWS at a time."""
    for rows, image in data:
        if rows.start >= part.stop:
            return
        for start in range(max(rows.start, part.start), min(rows.stop, part.stop), QUERY_ROWS):
            few = slice(start, min(start + QUERY_ROWS, rows.stop, part.stop))
            yield few, image[few.start - rows.start : few.stop - rows.start]


def blocked_search(data: Float32Blocks, count: int, part: slice) -> Batches:
    """Exact; both sides are streamed."""
    for rows, query_BD in queries(data, part):
        # A copy: the inner pass over the blocks may write where this one lies.
        yield rows, exact_neighbors(namespace(query_BD).asarray(query_BD, copy=True), data, count)


def exact_neighbors(query_BD: Array, data: Float32Blocks, count: int) -> np.ndarray:
    """(B, count) int64: one pass over all blocks."""

    def work(rows: slice, base: Array) -> tuple[Array, Array]:
        best_BK, place_BK = _highest(query_BD @ base.T, count)
        return best_BK, place_BK + rows.start

    xp, merged = namespace(query_BD), None
    for found in data.map(work, row_bytes=4 * len(query_BD)):
        if merged is None:
            merged = found
            continue
        best_BM, number_BM = (xp.concat(pair, axis=1) for pair in zip(merged, found))
        best_BK, place_BK = _highest(best_BM, count)
        merged = best_BK, xp.take_along_axis(number_BM, place_BK, axis=1)
    assert merged is not None, "no rows"
    return to_numpy(merged[1])


def _highest(x_BM: Array, count: int) -> tuple[Array, Array]:
    """(B, K) the highest entries of each row, falling, and their places; K at most `count`. The standard has no such
    function."""
    count = min(count, x_BM.shape[1])
    if not isinstance(x_BM, np.ndarray):
        values, places = x_BM.topk(count, dim=1)
        return values, places
    place_BK = np.argpartition(-x_BM, count - 1, axis=1)[:, :count]
    place_BK.sort(axis=1)  # so that the lower of two rows alike comes first
    value_BK = np.take_along_axis(x_BM, place_BK, axis=1)
    order_BK = np.argsort(-value_BK, axis=1, kind="stable")
    return np.take_along_axis(value_BK, order_BK, axis=1), np.take_along_axis(place_BK, order_BK, axis=1)


def _exact_faiss(data: Float32Blocks, count: int, part: slice) -> Batches:
    """Neither side is held: FAISS_QUERIES rows look at one tile after the other and keep the best of each."""
    import faiss

    for start in range(part.start, part.stop, FAISS_QUERIES):
        rows = slice(start, min(start + FAISS_QUERIES, part.stop))
        query_BD, best = _some(data, rows), None
        for first, base_BD in _joined(data, FAISS_ROWS):
            # Without an index object, which would hold a copy of the rows.
            found = faiss.knn(query_BD, base_BD, min(count, len(base_BD)), metric=faiss.METRIC_INNER_PRODUCT)
            best = merged(best, (found[0], found[1] + first), count)
        assert best is not None, "no rows"
        yield rows, best[1]


def _some(data: Float32Blocks, rows: slice) -> np.ndarray:
    """(B, D) float32 of a slice of the rows."""
    return np.concatenate([to_numpy(image).copy() for _, image in queries(data, rows)])


def _joined(data: Float32Blocks, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """The number of the first row, and at most `most` rows (or one tile): fewer, larger pieces than tiles."""
    tiles: list[np.ndarray] = []
    for rows, image in data:
        if tiles and sum(map(len, tiles)) + len(image) > most:
            yield rows.start - sum(map(len, tiles)), np.concatenate(tiles)
            tiles = []
        tiles.append(to_numpy(image).copy())
    yield data.num_rows - sum(map(len, tiles)), np.concatenate(tiles)


def merged(best: Found | None, found: Found, count: int) -> Found:
    """The nearest of both, falling; of two alike the one of `best`."""
    if best is None:
        return found
    value_BM, number_BM = (np.concatenate(pair, axis=1) for pair in zip(best, found))
    value_BK, place_BK = _highest(value_BM, count)
    return value_BK, np.take_along_axis(number_BM, place_BK, axis=1)


def _exact_faiss_on_gpu(data: Float32Blocks, count: int, part: slice, gpu: Any) -> Batches:
    """The GPU holds all rows in float32."""
    import faiss

    index = faiss.index_cpu_to_gpu(gpu, 0, faiss.IndexFlatIP(data.dim))
    for _, image in data:
        index.add(to_numpy(image))
    for rows, query in queries(data, part):
        yield rows, index.search(to_numpy(query), count)[1]


def drop_self(neighbor_BK: Array, row_B: Array) -> Array:
    """(B, K-1): each row without its own number, or without its last entry where it does not occur."""
    own_BK = neighbor_BK == row_B[:, None]
    own_BK[~namespace(own_BK).any(own_BK, axis=1), -1] = True
    return neighbor_BK[~own_BK].reshape(len(neighbor_BK), -1)
