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
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(clean_N, score_N)) if clean_N.any() and not clean_N.all() else None
