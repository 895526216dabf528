"""Accuracy, counted batch by batch: zero-shot from stored embeddings, top-1 and top-5 of a classifier's logits.

Legend: N samples, B of a block, D embedding size, P prompts, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cleanctl.results import Accuracy


class AccuracyCounter:
    """Takes logits block by block and keeps counts only."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
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
        self.hit5 += int(np.count_nonzero(rank_B < min(5, self.num_classes)))

    def result(self) -> Accuracy:
        count = int(self.seen_C.sum())
        return Accuracy(
            count=count,
            top1=int(self.hit_C.sum()) / count if count else None,
            top5=self.hit5 / count if count and self.num_classes > 5 else None,
            per_class=tuple(int(hit) / int(seen) if seen else None for hit, seen in zip(self.hit_C, self.seen_C)),
        )


def zero_shot(
    blocks: Iterable[tuple[slice, np.ndarray]],
    label_N: np.ndarray,
    text_PD: np.ndarray,
    class_P: np.ndarray,
    num_classes: int,
    *,
    temperature: float = 0.07,
) -> dict[str, Accuracy]:
    """Accuracy of stored embeddings against prompts, read once: by "sum" and by "nearest".

    "sum" adds exp(⟨f, t⟩/τ) over a class's prompts (docs/method.md A.3); "nearest" takes the class of the single most
    similar prompt. label_N: the true classes, −1 where unknown (left out); its rows are those of `blocks`.
    """
    counters = {"sum": AccuracyCounter(num_classes), "nearest": AccuracyCounter(num_classes)}
    member_PC = (class_P[:, None] == np.arange(num_classes)).astype(np.float32)
    text_DP = np.ascontiguousarray(text_PD.T.astype(np.float32))
    order = np.argsort(class_P, kind="stable")
    first_C = np.searchsorted(class_P[order], np.arange(num_classes))
    for rows, image_BD in blocks:
        for at in range(0, len(image_BD), 4096):
            label_B = label_N[rows][at : at + 4096]
            known_B = label_B >= 0
            similarity_BP = image_BD[at : at + 4096][known_B].astype(np.float32) @ text_DP
            top_B1 = similarity_BP.max(axis=1, keepdims=True, initial=-1.0)
            sum_BC = np.exp((similarity_BP - top_B1) / temperature) @ member_PC
            nearest_BC = np.maximum.reduceat(similarity_BP[:, order], first_C, axis=1)
            counters["sum"].add(sum_BC, label_B[known_B])
            counters["nearest"].add(nearest_BC, label_B[known_B])
    return {name: counter.result() for name, counter in counters.items()}
