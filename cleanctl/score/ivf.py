"""Approximate neighbours of all rows by an inverted file: only the cells nearest to a row are searched.

How many cells are visited follows from a recall that is asked for. The true neighbours of RECALL_ROWS rows, spread
evenly, are searched exactly; a true neighbour is found if and only if its cell is visited, so the rank of its cell says
at how many cells it would be. Every other of those rows chooses the number, the rest say what it finds.

In: the rows of one part. Every part holds the rows of its own in their cells (2 D bytes each, `cleanctl.score.cells`)
and none of the others'; each looks for the neighbours of all rows among its own, and the part that a row belongs to
merges what they found. So parts find what one process finds. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from cleanctl_kernels.threads import in_threads

from cleanctl.errors import MissingPackageError
from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.cells import Centres, Lists, cells_of, every, place_centres, widened
from cleanctl.score.neighbors import GPU_MOST, Batches, Found, Search, faiss_on_gpu, merged, queries
from cleanctl.score.scorer import Reduce

RECALL_ROWS = 500
QUERY_ROWS = 8_192  # that are compared with the rows of a cell together: those of them that visit it

Searched = Callable[[np.ndarray], Found]


def open_ivf(
    own: Float32Blocks,
    whole: Float32Blocks,
    count: int,
    reduce: Reduce,
    *,
    recall: float,
    probes: int | None = None,
    backend: str = "auto",
    device: str = "cpu",
) -> Search:
    """own: this part's rows, whole: all of them, both in numpy. count: neighbours of each row, itself among them.
    recall: wanted, unless `probes` says how many cells are visited. backend: faiss scans the cells row by row; auto
    takes that on a GPU, where FAISS is built for it, and else cell by cell. Raises MissingPackageError."""
    centres = place_centres(own, whole.num_rows, reduce)
    cell_M = cells_of(own, centres)
    rank_SK = _ranks_of_true_neighbours(own, whole.num_rows, cell_M, centres, count, reduce)

    def chosen() -> tuple[int, float, int]:
        if probes is not None:
            visited = min(probes, len(centres))
            return visited, recall_at(rank_SK, visited), len(rank_SK)
        choosing_SK, stating_SK = (rank_SK[::2], rank_SK[1::2]) if len(rank_SK) > 1 else (rank_SK, rank_SK)
        visited = probes_for(choosing_SK, recall, len(centres))
        return visited, recall_at(stating_SK, visited), len(stating_SK)

    visited, measured, rows = reduce.from_first(chosen)
    search, by = _searcher(own, cell_M, centres, count, visited, backend, device)
    return Search(
        by=f"{by}, {visited:,} of {len(centres):,} cells visited, measured recall {measured:.3f}",
        batches=lambda part: _batches(whole, search, count, part, reduce),
        cells=len(centres),
        probes=visited,
        recall=round(measured, 4),
        sampled=rows,
    )


# ---- how many cells


def recall_at(rank_SK: np.ndarray, probes: int) -> float:
    """Share of the true neighbours in the `probes` nearest cells. rank_SK: as `_ranks_of_true_neighbours` has it."""
    true_SK = rank_SK >= 0
    return float((rank_SK[true_SK] < probes).mean()) if true_SK.any() else 1.0


def probes_for(rank_SK: np.ndarray, recall: float, cells: int) -> int:
    """The fewest cells at which `recall` of the true neighbours are found."""
    rank_F = np.sort(rank_SK[rank_SK >= 0])
    if not len(rank_F):
        return cells
    return int(rank_F[int(np.ceil(recall * len(rank_F))) - 1]) + 1


def _ranks_of_true_neighbours(
    own: Float32Blocks, num_rows: int, cell_M: np.ndarray, centres: Centres, count: int, reduce: Reduce
) -> np.ndarray:
    """(S, K) int32 in the first part: the rank, from 0, of a true neighbour's cell among the cells by nearness to the
    row; -1 is the row itself. In the other parts nothing."""
    step = max(1, num_rows // RECALL_ROWS)
    own_SD, _ = every(own, step)
    gathered = reduce.gather(own_SD)
    query_SD = widened(reduce.from_first(partial(_there, gathered)))
    cosine_SK, row_SK = _exact(own, query_SD, min(count, num_rows))
    cell_SK = np.where(row_SK < 0, -1, cell_M[row_SK])
    found = [_of_parts(one, reduce) for one in (cosine_SK, np.where(row_SK < 0, -1, row_SK + own.first), cell_SK)]
    if any(one is None for one in found):
        return np.zeros((0, 0), np.int32)
    cosine_SF, row_SF, cell_SF = (np.concatenate(list(one), axis=1) for one in found if one is not None)
    at_SK = np.argsort(-cosine_SF, axis=1, kind="stable")[:, :count]
    row_SK, cell_SK = (np.take_along_axis(one, at_SK, axis=1) for one in (row_SF, cell_SF))
    rank_SK = np.empty(cell_SK.shape, np.int32)
    for number, query_D in enumerate(query_SD):
        rank_C = np.empty(len(centres), np.int32)
        rank_C[np.argsort(-centres.nearness(query_D[None])[0], kind="stable")] = np.arange(len(centres))
        rank_SK[number] = rank_C[cell_SK[number]]
    rank_SK[row_SK == step * np.arange(len(query_SD))[:, None]] = -1
    return rank_SK


def _there(gathered: np.ndarray | None) -> np.ndarray:
    assert gathered is not None, "the first part has the rows of all"
    return gathered


def _exact(data: Float32Blocks, query_SD: np.ndarray, count: int) -> Found:
    """The highest cosines among the rows of this part, and their numbers in it; -inf and -1 where it has fewer."""

    def work(rows: slice, image: np.ndarray) -> Found:
        cosine_SB = query_SD @ image.T
        few = min(count, cosine_SB.shape[1])
        at_SK = np.argpartition(-cosine_SB, few - 1, axis=1)[:, :few]
        return np.take_along_axis(cosine_SB, at_SK, axis=1), at_SK + rows.start

    best: Found = np.full((len(query_SD), count), -np.inf, np.float32), np.full((len(query_SD), count), -1, np.int64)
    for found in data.map(work, row_bytes=8 * len(query_SD)):
        best = merged(best, found, count)
    return best


def _of_parts(value_BK: np.ndarray, reduce: Reduce, *, at: int = 0) -> np.ndarray | None:
    """In part `at` (parts, B, K): what each part gave."""
    found = reduce.gather(value_BK, at=at)
    return None if found is None else found.reshape(reduce.parts, *value_BK.shape)


# ---- the search


def _searcher(
    own: Float32Blocks, cell_M: np.ndarray, centres: Centres, count: int, probes: int, backend: str, device: str
) -> tuple[Searched, str]:
    gpu = None
    if backend == "faiss" or (backend == "auto" and device == "cuda"):
        try:
            gpu = faiss_on_gpu(device) if max(count, probes) <= GPU_MOST else None
        except ImportError as exc:
            if backend == "faiss":
                extra = "gpu" if device == "cuda" else "cpu"
                raise MissingPackageError.of("faiss", extra=extra, needed_for="--knn-backend faiss") from exc
    if backend == "faiss" or gpu is not None:
        where = "" if gpu is None else " on the GPU"
        return _faiss_lists(own, centres, count, probes, gpu), f"FAISS IVF{where}"
    lists = Lists.of(own, cell_M, centres)
    return partial(lists.search, count=count, probes=probes), "IVF, cell by cell"


def _faiss_lists(own: Float32Blocks, centres: Centres, count: int, probes: int, gpu: Any) -> Searched:
    """FAISS's inverted file over the same cells."""
    import faiss

    # Inner products with unit centres would order cells otherwise: these are the nearest ones.
    quantizer: Any = faiss.IndexFlatL2(own.dim)
    quantizer.add(centres.centre_CD)
    scalar = faiss.ScalarQuantizer.QT_fp16
    metric, cells = faiss.METRIC_INNER_PRODUCT, len(centres)
    index: Any = faiss.IndexIVFScalarQuantizer(quantizer, own.dim, cells, scalar, metric, False)
    index.train(centres.centre_CD)
    for _, image in own:
        index.add(image)
    index.nprobe = probes
    if gpu is not None:
        index = faiss.index_cpu_to_gpu(gpu, 0, index)
        index.nprobe = probes

    def search(query_BD: np.ndarray) -> Found:
        cosine_BK, number_BK = index.search(query_BD, count)
        missing_BK = number_BK < 0
        return np.where(missing_BK, -np.inf, cosine_BK), np.where(missing_BK, -1, number_BK + own.first)

    return search


def _batches(whole: Float32Blocks, search: Searched, count: int, part: slice, reduce: Reduce) -> Batches:
    """The neighbours of the rows of `part`, and in turn with the other parts those of theirs among this one's rows."""
    if reduce.parts == 1:
        for rows, (_, number_BK) in in_threads(partial(_asked, search), _copied(whole, part)):
            yield rows, number_BK
        return
    bounds = reduce.gather(np.array([part.start, part.stop]))
    each = reduce.from_first(lambda: None if bounds is None else bounds.reshape(-1, 2).tolist())
    for owner, (start, stop) in enumerate(each or []):
        for rows, found in in_threads(partial(_asked, search), _copied(whole, slice(start, stop))):
            cosine, number = (_of_parts(one, reduce, at=owner) for one in found)
            if cosine is None or number is None:
                continue
            best: Found = cosine[0], number[0]
            for pair in zip(cosine[1:], number[1:]):
                best = merged(best, pair, count)
            yield rows, best[1]


def _asked(search: Searched, batch: tuple[slice, np.ndarray]) -> tuple[slice, Found]:
    return batch[0], search(batch[1])


def _copied(whole: Float32Blocks, part: slice) -> Iterator[tuple[slice, np.ndarray]]:
    """QUERY_ROWS rows at a time, in memory of their own."""
    held: list[tuple[slice, np.ndarray]] = []

    def joined() -> tuple[slice, np.ndarray]:
        rows = slice(held[0][0].start, held[-1][0].stop)
        return rows, np.concatenate([image for _, image in held])

    for rows, image in queries(whole, part):
        if held and rows.stop - held[0][0].start > QUERY_ROWS:
            yield joined()
            held.clear()
        held.append((rows, np.array(image)))
    if held:
        yield joined()
