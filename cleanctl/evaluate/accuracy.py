"""Accuracy, counted batch by batch: top-1, top-5 and the mistakes by pair of classes, of a classifier's logits.

Legend: B samples of a block, C classes.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from cleanctl.results import Accuracy, Confusion


class AccuracyCounter:
    """Takes logits block by block and keeps counts only: by class, and of the pairs that were confused."""

    def __init__(self, num_classes: int, *, pairs: bool = False) -> None:
        self.num_classes = num_classes
        self._mistakes: Counter[int] | None = Counter() if pairs else None
        self.seen_C = np.zeros(num_classes, np.int64)
        self.hit_C = np.zeros(num_classes, np.int64)
        self.hit5 = 0
        self.undefined = 0

    def add(self, logit_BC: np.ndarray, label_B: np.ndarray) -> None:
        """label_B: int in 0…C-1. On a tie the lowest class wins, for top-1 and top-5 alike. A row that holds NaN
        predicts nothing: it counts as wrong and in `undefined`."""
        own_B1 = np.take_along_axis(logit_BC, label_B[:, None].astype(np.int64), axis=1)
        lower_BC = np.arange(self.num_classes) < label_B[:, None]
        rank_B = ((logit_BC > own_B1) | ((logit_BC == own_B1) & lower_BC)).sum(axis=1)
        undefined_B = np.isnan(logit_BC).any(axis=1)
        rank_B[undefined_B] = self.num_classes
        self.undefined += int(undefined_B.sum())
        self.seen_C += np.bincount(label_B, minlength=self.num_classes)
        self.hit_C += np.bincount(label_B[rank_B == 0], minlength=self.num_classes)
        if self._mistakes is not None:
            wrong_B = (rank_B > 0) & ~undefined_B
            pair_B = label_B[wrong_B].astype(np.int64) * self.num_classes + logit_BC[wrong_B].argmax(axis=1)
            self._mistakes.update(pair_B.tolist())
        self.hit5 += int(np.count_nonzero(rank_B < min(5, self.num_classes)))

    def result(self) -> Accuracy:
        count = int(self.seen_C.sum())
        return Accuracy(
            count=count,
            top1=int(self.hit_C.sum()) / count if count else None,
            top5=self.hit5 / count if count and self.num_classes > 5 else None,
            per_class=tuple(int(hit) / int(seen) if seen else None for hit, seen in zip(self.hit_C, self.seen_C)),
            seen=tuple(self.seen_C.tolist()),
            confusion=self._confusion(),
        )

    def _confusion(self) -> Confusion | None:
        if self._mistakes is None:
            return None
        pairs = sorted(self._mistakes.items(), key=lambda pair: (-pair[1], pair[0]))
        return Confusion(
            actual=tuple(code // self.num_classes for code, _ in pairs),
            predicted=tuple(code % self.num_classes for code, _ in pairs),
            samples=tuple(count for _, count in pairs),
        )
