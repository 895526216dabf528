"""The kNN scorer: what an image's nearest neighbours are labelled.

    P(k | i) ∝ (votes for k among the K nearest by cosine) / (share of k among all labels)

In: EmbeddingBlocks, labels (N,). Out: ClassPosterior. A row does not vote for itself unless asked. FAISS searches
where it is installed (exact inner product, or IVF with its measured recall), else a blocked exact search in torch that
streams both sides. FAISS holds N × D float32; the torch search holds one tile. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.errors import MissingPackageError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks
from cleanctl.score.blocks import Float32Blocks, PosteriorWriter, require_labels

if TYPE_CHECKING:
    import torch

QUERY_ROWS = 1_024
RECALL_QUERIES = 500
VOTE_BYTES = 32 << 20


def knn_posterior(
    blocks: EmbeddingBlocks,
    label_N: np.ndarray,
    *,
    num_classes: int,
    neighbors: int = 200,
    include_self: bool = False,
    backend: str = "auto",
    probes: int = 0,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> ClassPosterior:
    """neighbors: K, cut to the rows there are. backend: auto, faiss, torch. probes: 0 exact, else FAISS IVF cells.

    Raises InputError on non-finite embeddings (rows named), MissingPackageError if FAISS is demanded and absent.
    """
    label = require_labels(label_N, blocks.num_rows, num_classes)
    count = min(neighbors, blocks.num_rows - (0 if include_self else 1))
    share_C = np.bincount(label, minlength=num_classes) / max(len(label), 1)
    writer = PosteriorWriter(blocks.num_rows)
    data = Float32Blocks(blocks, device=device, cache_bytes=0)
    # One more than K is searched, so that the row itself can be dropped by its number, not by its place:
    # among identical images it is not always found first.
    wanted = count if include_self else count + 1
    search = _choose_search(backend, probes, device, progress)
    with progress.track("nearest neighbours", total=blocks.num_rows, unit="rows") as task:
        for rows, neighbor_BK in search(data, wanted):
            if not include_self:
                neighbor_BK = drop_self(neighbor_BK, np.arange(rows.start, rows.stop))
            _vote(rows, neighbor_BK, label, share_C, writer)
            task.advance(rows.stop - rows.start)
    return writer.posterior


def drop_self(neighbor_BK: np.ndarray, row_B: np.ndarray) -> np.ndarray:
    """(B, K-1): each row without its own number, or without its last entry where it does not occur."""
    own_BK = neighbor_BK == row_B[:, None]
    own_BK[~own_BK.any(axis=1), -1] = True
    return neighbor_BK[~own_BK].reshape(len(neighbor_BK), -1)


def _vote(
    rows: slice, neighbor_BK: np.ndarray, label_N: np.ndarray, share_C: np.ndarray, writer: PosteriorWriter
) -> None:
    import torch
    from cleanctl_kernels.zeroshot import stats_of_masses

    per_vote_C = torch.from_numpy(np.where(share_C > 0, 1.0 / np.maximum(share_C, 1e-30), 0.0)).float()
    step = max(1, VOTE_BYTES // (4 * len(share_C)))
    for start in range(0, len(neighbor_BK), step):
        voted_BK = torch.from_numpy(label_N[neighbor_BK[start : start + step]])
        mass_BC = torch.zeros(len(voted_BK), len(share_C))
        if voted_BK.shape[1]:
            mass_BC.scatter_add_(1, voted_BK, per_vote_C[voted_BK])
        else:  # a row alone has no neighbours: the classes' own shares are all there is
            mass_BC += torch.from_numpy(share_C).float()
        part = slice(rows.start + start, rows.start + start + len(voted_BK))
        writer.put(part, stats_of_masses(mass_BC, torch.from_numpy(label_N[part])))


def _choose_search(backend: str, probes: int, device: str, progress: Progress) -> Any:
    try:
        import faiss  # noqa: F401
    except ImportError as exc:
        if backend == "faiss" or probes:
            raise MissingPackageError.of("faiss", extra="cpu", needed_for="approximate nearest neighbours") from exc
        progress.note("kNN: exact blocked search in torch (FAISS is not installed; cleanctl[cpu] brings it).")
        return torch_search
    if backend == "torch" or (device == "cuda" and not probes):
        reason = "asked for" if backend == "torch" else "exact search on the GPU"
        progress.note(f"kNN: exact blocked search in torch ({reason}).")
        return torch_search

    def search(data: Float32Blocks, count: int) -> Iterator[tuple[slice, np.ndarray]]:
        return faiss_search(data, count, probes=probes, progress=progress)

    return search


def torch_search(data: Float32Blocks, count: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Exact: yields (rows, (B, count) int64 row numbers, nearest first)."""
    import torch

    for query_rows, query in data:
        for start in range(query_rows.start, query_rows.stop, QUERY_ROWS):
            rows = slice(start, min(start + QUERY_ROWS, query_rows.stop))
            query_BD = query[rows.start - query_rows.start : rows.stop - query_rows.start]
            best_BK = torch.empty(len(query_BD), 0, device=query.device)
            index_BK = torch.empty(len(query_BD), 0, dtype=torch.int64, device=query.device)
            for base_rows, base in data:
                best_BK, index_BK = _merge(best_BK, index_BK, query_BD @ base.T, base_rows.start, count)
            yield rows, index_BK.cpu().numpy()


def _merge(
    best_BK: torch.Tensor, index_BK: torch.Tensor, cosine_BM: torch.Tensor, first: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    fresh, place = cosine_BM.topk(min(count, cosine_BM.shape[1]), dim=1)
    together = torch.cat([best_BK, fresh], dim=1)
    numbers = torch.cat([index_BK, place + first], dim=1)
    best, order = together.topk(min(count, together.shape[1]), dim=1)
    return best, numbers.gather(1, order)


def faiss_search(
    data: Float32Blocks, count: int, *, probes: int = 0, progress: Progress = SILENT
) -> Iterator[tuple[slice, np.ndarray]]:
    """Exact inner product, or IVF that visits `probes` cells, its recall measured on a sample and noted."""
    import faiss

    image_ND = np.empty((data.num_rows, data.dim), np.float32)
    for rows, image in data:
        image_ND[rows] = image.cpu().numpy()
    index: Any = faiss.IndexFlatIP(data.dim)
    if probes:
        cells = max(1, min(int(4 * data.num_rows**0.5), data.num_rows // 39))
        index = faiss.IndexIVFFlat(index, data.dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(probes, cells)
        index.train(image_ND)
    index.add(image_ND)
    if probes:
        recall = _recall(index, image_ND, count)
        progress.note(f"kNN: FAISS IVF, {cells} cells, {index.nprobe} visited, measured recall {recall:.3f}.")
    else:
        progress.note("kNN: FAISS, exact inner product.")
    for start in range(0, data.num_rows, QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, data.num_rows))
        neighbor_BK = index.search(image_ND[rows], count)[1]
        yield rows, _filled(neighbor_BK)


def _filled(neighbor_BK: np.ndarray) -> np.ndarray:
    """IVF marks places it could not fill with -1; the nearest neighbour takes them."""
    return np.where(neighbor_BK < 0, neighbor_BK[:, :1].clip(min=0), neighbor_BK)


def _recall(index: Any, image_ND: np.ndarray, count: int) -> float:
    """Share of the true nearest neighbours that the index finds, over rows spread evenly."""
    import faiss

    query_BD = image_ND[:: max(1, len(image_ND) // RECALL_QUERIES)]
    found_BK = index.search(query_BD, count)[1]
    true_BK = faiss.knn(query_BD, image_ND, count, metric=faiss.METRIC_INNER_PRODUCT)[1]
    hits = sum(len(np.intersect1d(found, true)) for found, true in zip(found_BK, true_BK))
    return hits / max(true_BK.size, 1)
