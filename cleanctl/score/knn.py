"""The kNN scorer: what an image's nearest neighbours are labelled.

    P(k | i) ∝ (votes for k among the K nearest by cosine) / (share of k among all labels)

In: Rows. Out: ClassStats a row and how the neighbours were searched (`cleanctl.score.neighbors` and `ivf` have the ways
and what they hold). A row does not vote for itself, and at most half of the others do: were it all of them, every label
but its own would have all of its votes. Votes are counted where the neighbours were found. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from cleanctl_kernels.arrays import Array, as_array_like, at_least_, device_type, namespace, numbers

from cleanctl.config.select import KNN_RECALL
from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.ivf import open_ivf
from cleanctl.score.neighbors import Search, drop_self, open_search
from cleanctl.score.resident import counted_votes
from cleanctl.score.scorer import CPU, Reduce, Rows, Scorer

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats

VOTE_BYTES = {"cpu": 32 << 20, "cuda": 1 << 30}


class Knn(Scorer):
    """Raises MissingPackageError if FAISS is demanded and absent."""

    name = "knn"
    evidence = 1
    revision = 2  # since at most half of the other rows vote
    include_self: ClassVar[bool] = False

    def parameters(self) -> dict[str, Any]:
        return {"neighbors": self.config.neighbors, **self.config.ivf}

    def fit(self, rows: Rows, reduce: Reduce) -> Search:
        """Exactly each part searches all rows for the neighbours of its own; in cells it searches its own for all."""
        num_rows, asked = rows.blocks.num_rows, self.config.neighbors
        if self.include_self:
            return self._search(rows, min(asked, num_rows), reduce)
        count = min(asked, max(1, (num_rows - 1) // 2), num_rows - 1)
        # One more than K is searched, so that the row itself can be dropped by its number, not by its place:
        # among identical images it is not always found first.
        found = self._search(rows, count + 1, reduce)
        if count == asked:
            return found
        rows.progress.warn(_too_few(num_rows, asked, count))
        return replace(found, by=f"{found.by}, {count:,} neighbours and not {asked:,}")

    def _search(self, rows: Rows, wanted: int, reduce: Reduce) -> Search:
        """wanted: neighbours of each row, itself among them."""
        device, backend = rows.device.value, self.config.knn_backend
        if self.config.knn_index == "ivf":
            return self._approximate(rows, wanted, reduce)
        data = rows.own_tiles() if rows.part is None else Float32Blocks(rows.blocks, device=device, cache_bytes=0)
        return open_search(data, wanted, backend=backend, device=device)

    def _approximate(self, rows: Rows, wanted: int, reduce: Reduce) -> Search:
        own = rows.own_tiles() if rows.device.value == "cpu" else replace(rows, device=CPU).own_tiles()
        return open_ivf(
            own,
            own if rows.part is None else Float32Blocks(rows.blocks, cache_bytes=0),
            wanted,
            reduce,
            recall=self.config.knn_recall or KNN_RECALL,
            probes=self.config.knn_probes,
            backend=self.config.knn_backend,
            device=rows.device.value,
        )

    def score(self, model: Search, rows: Rows) -> Iterator[tuple[slice, ClassStats]]:
        share_C = np.bincount(rows.label_N, minlength=rows.num_classes) / max(len(rows.label_N), 1)
        own, label = rows.own, None
        with rows.progress.track("nearest neighbours", total=own.stop - own.start, unit="rows") as task:
            for which, neighbor_BK in model.batches(own):
                if not self.include_self:
                    neighbor_BK = drop_self(neighbor_BK, numbers(neighbor_BK) + which.start)
                if label is None:
                    label = as_array_like(rows.label_N, neighbor_BK)
                for start, stats in _vote(neighbor_BK, which.start, label, share_C):
                    first = which.start - own.start + start
                    yield slice(first, first + len(stats.p_label)), stats
                task.advance(which.stop - which.start)

    def ran(self, model: Search, rows: Rows) -> dict[str, Any]:
        return model.to_json()


def _too_few(num_rows: int, asked: int, count: int) -> str:
    return (
        f"knn: {count:,} neighbours of each image vote and not {asked:,}, for there are {num_rows:,} images: were they "
        "nearly all of the others, they would speak against every label. Give fewer with --neighbors."
    )


def _vote(neighbor_BK: Array, first: int, label_N: Array, share_C: np.ndarray) -> Iterator[tuple[int, ClassStats]]:
    """Cut so that votes for all classes fit VOTE_BYTES; `first` is the number of the first row."""
    from cleanctl_kernels.zeroshot import stats_of_masses

    xp, classes = namespace(neighbor_BK), len(share_C)
    weight_C = np.divide(1.0, share_C, out=np.zeros(classes), where=share_C > 0)
    per_vote_C, prior_C = (as_array_like(one.astype(np.float32), neighbor_BK) for one in (weight_C, share_C))
    step = max(1, VOTE_BYTES[device_type(neighbor_BK)] // (8 * classes))
    for start in range(0, len(neighbor_BK), step):
        number_BK = neighbor_BK[start : start + step]
        voted_BK = label_N[at_least_(xp.asarray(number_BK, copy=True), 0)]
        mass_BC = _votes(voted_BK, number_BK >= 0, classes)
        mass_BC *= per_vote_C
        # A row without neighbours: the classes' own shares are all there is.
        mass_BC[xp.sum(mass_BC, axis=1) == 0] = prior_C
        yield start, stats_of_masses(mass_BC, label_N[first + start : first + start + len(voted_BK)])


def _votes(voted_BK: Array, counts_BK: Array, classes: int) -> Array:
    """(B, C) float32: how many of a row's neighbours have each label; counts_BK: bool, who has a vote."""
    if not isinstance(voted_BK, np.ndarray):
        return counted_votes(voted_BK, counts_BK, classes)
    place_BK = np.arange(len(voted_BK))[:, None] * classes + voted_BK
    votes = np.bincount(place_BK.ravel(), counts_BK.ravel(), len(voted_BK) * classes)
    return votes.reshape(-1, classes).astype(np.float32)
