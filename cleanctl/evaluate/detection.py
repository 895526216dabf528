"""How well a selection finds the right labels. Pure arrays of length N (or fewer); nothing of size N × classes.

The positive class is "the given label is the true one". Rows whose truth is unknown are left out by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Of `count` samples, `clean` have a right label and `kept` were kept. Rates in [0, 1]; None where undefined."""

    count: int
    clean: int
    kept: int
    precision: float | None
    recall: float | None
    f1: float | None


def detection(keep_N: np.ndarray, clean_N: np.ndarray) -> Detection:
    """Global precision, recall and F1 = 2PR/(P+R) (docs/method.md C.2) of bool keep_N as a detector of bool clean_N."""
    hits = int(np.count_nonzero(keep_N & clean_N))
    kept, clean = int(np.count_nonzero(keep_N)), int(np.count_nonzero(clean_N))
    return Detection(
        count=len(keep_N),
        clean=clean,
        kept=kept,
        precision=hits / kept if kept else None,
        recall=hits / clean if clean else None,
        f1=2 * hits / (kept + clean) if kept + clean else None,
    )


def roc_auc(score_N: np.ndarray, clean_N: np.ndarray) -> float | None:
    """Probability that a clean sample scores above a wrong one, ties counting half; None if one kind is absent.

    The Mann-Whitney statistic from one sort: every run of equal scores takes its mean rank. Raises ValueError on NaN.
    """
    if np.isnan(score_N).any():
        raise ValueError("the scores hold NaN")
    positives = int(np.count_nonzero(clean_N))
    negatives = len(clean_N) - positives
    if positives == 0 or negatives == 0:
        return None
    order = np.argsort(score_N, kind="stable")
    ordered = score_N[order]
    begin = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    end = np.concatenate([begin[1:], [len(ordered)]])
    hits_before = np.concatenate([[0], np.cumsum(clean_N[order], dtype=np.int64)])
    hits_of_run = hits_before[end] - hits_before[begin]
    # A run at begin…end has mean rank (begin + end + 1)/2; twice that keeps the sum in whole numbers.
    twice_rank_sum = int((hits_of_run * (begin + end + 1)).sum())
    return (twice_rank_sum - positives * (positives + 1)) / (2 * positives * negatives)


def scaled_in_class(score_N: np.ndarray, label_N: np.ndarray, num_classes: int) -> np.ndarray:
    """float64: min–max scaled to [0, 1] in each given class, 1 where a class is constant (docs/method.md A.5, A.7)."""
    score_N = score_N.astype(np.float64)
    low_K = np.full(num_classes, np.inf)
    high_K = np.full(num_classes, -np.inf)
    np.minimum.at(low_K, label_N, score_N)
    np.maximum.at(high_K, label_N, score_N)
    span_N = (high_K - low_K)[label_N]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(span_N > 0, (score_N - low_K[label_N]) / span_N, 1.0)
