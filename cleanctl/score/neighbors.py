"""Who a row's nearest neighbours are, by cosine: exact in FAISS or torch, or approximate by FAISS's inverted file, IVF.

In: Float32Blocks (N, D). Out: a Search, which says how it searches and yields (rows, (B, count) int64 row numbers,
nearest first; -1 where IVF found no more). Exact search in torch holds one tile of each side, in FAISS N × D float32;
IVF holds N × D float16, which is what the store holds, so it loses nothing but what lies in cells it does not visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.errors import MissingPackageError, install_command
from cleanctl.score.blocks import Float32Blocks

if TYPE_CHECKING:
    import torch

QUERY_ROWS = 1_024
RECALL_QUERIES = 500
ROWS_PER_CELL = 48  # rows that place each cell's centre; FAISS warns below 39
MAX_CELLS = 16_384

Batches = Iterator[tuple[slice, np.ndarray]]


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


def open_search(
    data: Float32Blocks, count: int, *, backend: str = "auto", probes: int = 0, device: str = "cpu"
) -> Search:
    """count: neighbours of each row, itself among them. backend: auto, faiss, torch. probes: 0 exact, else IVF cells
    visited for each row. Raises MissingPackageError if FAISS is demanded and absent."""
    try:
        import faiss  # noqa: F401
    except ImportError as exc:
        if backend == "faiss" or probes:
            raise MissingPackageError.of("faiss", extra="cpu", needed_for="approximate nearest neighbours") from exc
        return _by_torch(data, count, f"FAISS is not installed ({install_command('cpu')})")
    if probes:
        return _by_ivf(data, count, probes)
    if backend == "torch" or device == "cuda":
        return _by_torch(data, count, "asked for" if backend == "torch" else "exact search on the GPU")
    return Search(by="FAISS, exact inner product", batches=lambda part: _exact_faiss(data, count, part))


def _by_torch(data: Float32Blocks, count: int, reason: str) -> Search:
    return Search(by=f"exact blocked search in torch ({reason})", batches=lambda part: torch_search(data, count, part))


def queries(data: Float32Blocks, part: slice) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of `part`, at most QUERY_ROWS at a time."""
    for rows, image in data:
        for start in range(max(rows.start, part.start), min(rows.stop, part.stop), QUERY_ROWS):
            few = slice(start, min(start + QUERY_ROWS, rows.stop, part.stop))
            yield few, image[few.start - rows.start : few.stop - rows.start]


def torch_search(data: Float32Blocks, count: int, part: slice) -> Batches:
    """Exact; both sides are streamed."""
    for rows, query_BD in queries(data, part):
        # A copy: the inner pass over the blocks may write where this one lies.
        yield rows, exact_neighbors(query_BD.clone(), data, count)


def exact_neighbors(query_BD: torch.Tensor, data: Float32Blocks, count: int) -> np.ndarray:
    """(B, count) int64: one pass over all blocks."""
    import torch

    best_BK = torch.empty(len(query_BD), 0, device=query_BD.device)
    index_BK = torch.empty(len(query_BD), 0, dtype=torch.int64, device=query_BD.device)
    for base_rows, base in data:
        best_BK, index_BK = _merge(best_BK, index_BK, query_BD @ base.T, base_rows.start, count)
    return index_BK.cpu().numpy()


def _merge(
    best_BK: torch.Tensor, index_BK: torch.Tensor, cosine_BM: torch.Tensor, first: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    fresh, place = cosine_BM.topk(min(count, cosine_BM.shape[1]), dim=1)
    together = torch.cat([best_BK, fresh], dim=1)
    numbers = torch.cat([index_BK, place + first], dim=1)
    best, order = together.topk(min(count, together.shape[1]), dim=1)
    return best, numbers.gather(1, order)


def _exact_faiss(data: Float32Blocks, count: int, part: slice) -> Batches:
    import faiss

    image_ND = np.empty((data.num_rows, data.dim), np.float32)
    for rows, image in data:
        image_ND[rows] = image.cpu().numpy()
    for start in range(part.start, part.stop, QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, part.stop))
        # Without an index object, which would hold a second copy of the rows.
        yield rows, faiss.knn(image_ND[rows], image_ND, count, metric=faiss.METRIC_INNER_PRODUCT)[1]


def _by_ivf(data: Float32Blocks, count: int, probes: int) -> Search:
    index, cells = _ivf_index(data, probes)
    every = max(1, data.num_rows // RECALL_QUERIES)
    query_BD, row_B = _every(data, every)
    recall = _recall(index.search(query_BD, count)[1], query_BD, row_B, data, count)

    def batches(part: slice) -> Batches:
        for rows, query in queries(data, part):
            yield rows, index.search(query.cpu().numpy(), count)[1]

    return Search(
        by=f"FAISS IVF, {index.nprobe} of {cells} cells visited, measured recall {recall:.3f}",
        batches=batches,
        cells=cells,
        probes=index.nprobe,
        recall=round(recall, 4),
        sampled=len(row_B),
    )


def _ivf_index(data: Float32Blocks, probes: int) -> tuple[Any, int]:
    """An index of all rows and its number of cells; FAISS places the cells from a fixed seed."""
    import faiss

    cells = max(1, min(int(4 * data.num_rows**0.5), data.num_rows // ROWS_PER_CELL, MAX_CELLS))
    index: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(data.dim),
        data.dim,
        cells,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the values themselves, not what is left after their cell's centre: these are float16 already
    )
    index.nprobe = min(probes, cells)
    index.train(_every(data, max(1, data.num_rows // (ROWS_PER_CELL * cells)))[0])
    for _, image in data:
        index.add(image.cpu().numpy())
    return index, cells


def _every(data: Float32Blocks, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Every step-th row: (B, D) float32 and its number (B,)."""
    parts = []
    for rows, image in data:
        parts.append(image[-rows.start % step :: step].cpu().numpy().copy())
    return np.concatenate(parts), np.arange(0, data.num_rows, step)


def _recall(found_BK: np.ndarray, query_BD: np.ndarray, row_B: np.ndarray, data: Float32Blocks, count: int) -> float:
    import torch

    true_BK = exact_neighbors(torch.from_numpy(query_BD).to(data.device), data, count)
    found_BK, true_BK = drop_self(found_BK, row_B), drop_self(true_BK, row_B)
    hits = sum(len(np.intersect1d(found, true)) for found, true in zip(found_BK, true_BK))
    return hits / true_BK.size if true_BK.size else 1.0


def drop_self(neighbor_BK: np.ndarray, row_B: np.ndarray) -> np.ndarray:
    """(B, K-1): each row without its own number, or without its last entry where it does not occur."""
    own_BK = neighbor_BK == row_B[:, None]
    own_BK[~own_BK.any(axis=1), -1] = True
    return neighbor_BK[~own_BK].reshape(len(neighbor_BK), -1)
