"""The kNN scorer: what an image's nearest neighbours are labelled.

    P(k | i) ∝ (votes for k among the K nearest by cosine) / (share of k among all labels)

In: EmbeddingBlocks, labels (N,). Out: ClassPosterior and how the neighbours were searched (`cleanctl.score.neighbors`
has the ways and what they hold). A row does not vote for itself unless asked. Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks
from cleanctl.score.blocks import Float32Blocks, PosteriorWriter, require_labels
from cleanctl.score.neighbors import drop_self, open_search

VOTE_BYTES = 32 << 20


class KnnScores(NamedTuple):
    """search: JSON values; `by` for people, and for IVF its `cells`, `probes` and measured `recall`."""

    posterior: ClassPosterior
    search: dict[str, Any]


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
) -> KnnScores:
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
    search = open_search(data, wanted, backend=backend, probes=probes, device=device)
    progress.note(f"kNN: {search.by}.")
    with progress.track("nearest neighbours", total=blocks.num_rows, unit="rows") as task:
        for rows, neighbor_BK in search.batches():
            if not include_self:
                neighbor_BK = drop_self(neighbor_BK, np.arange(rows.start, rows.stop))
            _vote(rows, neighbor_BK, label, share_C, writer)
            task.advance(rows.stop - rows.start)
    return KnnScores(writer.posterior, search.to_json())


def _vote(
    rows: slice, neighbor_BK: np.ndarray, label_N: np.ndarray, share_C: np.ndarray, writer: PosteriorWriter
) -> None:
    import torch
    from cleanctl_kernels.zeroshot import stats_of_masses

    share = torch.from_numpy(share_C).float()
    per_vote_C = torch.where(share > 0, 1.0 / share.clamp(min=1e-30), 0.0)
    step = max(1, VOTE_BYTES // (4 * len(share_C)))
    for start in range(0, len(neighbor_BK), step):
        number_BK = torch.from_numpy(neighbor_BK[start : start + step])
        voted_BK = torch.from_numpy(label_N)[number_BK.clamp(min=0)]
        mass_BC = torch.zeros(len(voted_BK), len(share_C))
        mass_BC.scatter_add_(1, voted_BK, torch.where(number_BK >= 0, per_vote_C[voted_BK], 0.0))
        # A row without neighbours: the classes' own shares are all there is.
        mass_BC += (mass_BC.sum(dim=1, keepdim=True) == 0) * share
        part = slice(rows.start + start, rows.start + start + len(voted_BK))
        writer.put(part, stats_of_masses(mass_BC, torch.from_numpy(label_N[part])))
