"""How well a selection finds the right labels. Pure arrays of length N (or fewer); nothing of size N × classes.

The positive class is "the given label is the true one". Rows whose truth is unknown are left out by the caller.
"""

from __future__ import annotations

import numpy as np

from cleanctl.results import Detection


def detection(keep_N: np.ndarray, clean_N: np.ndarray) -> Detection:
    """bool keep_N as a detector of bool clean_N."""
    return Detection.of(keep_N, clean_N)


def roc_auc(score_N: np.ndarray, clean_N: np.ndarray) -> float | None:
    """Probability that a clean sample scores above a wrong one, ties counting half; None if one kind is absent.

    score_N: finite; ValueError otherwise.
    """
    if not np.isfinite(score_N).all():
        raise ValueError("The scores hold NaN or infinity.")
    right, wrong = int(np.count_nonzero(clean_N)), int(np.count_nonzero(~clean_N))
    if not right or not wrong:
        return None
    _, place_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # from 1; those that tie share the middle of their ranks
    return float((rank[place_N[clean_N]].sum() - right * (right + 1) / 2) / (right * wrong))
