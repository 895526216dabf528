"""A scorer whose score another verb writes into the store: `select` reads it and never computes it.

`written_by` is the command to type where the score is missing, or older than the images or labels. What the verb hands
over becomes a stored score by `cleanctl.score.compute.record_score`. Nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.score.scorer import Reduce, Rows, Scorer

if TYPE_CHECKING:
    from cleanctl_kernels.zeroshot import ClassStats

    from cleanctl.store import Split


class RecordedScorer(Scorer):
    """Its stored score is named as the scorer itself: no option of `select` changes it."""

    written_by: ClassVar[str]

    def fit(self, rows: Rows, reduce: Reduce) -> Any:
        raise self.missing("no rows of a store")

    def score(self, model: Any, rows: Rows) -> Iterator[tuple[slice | np.ndarray, ClassStats]]:
        raise self.missing("no rows of a store")

    def outdated(self, split: Split, stored: Mapping[str, Any]) -> bool:
        """Whether what else it was made from has changed; images and labels of the split are looked at already."""
        return False

    def missing(self, found: str) -> StoreError:
        """The error that says what to type."""
        return StoreError(
            f"There is no usable score {self.name!r}: {found}.",
            so=f"Rules of {self.name} read what another command writes.",
            do=f"Write it with: {self.written_by}",
        )
