"""What a set of kept labels, a ranking and stated probabilities are worth, given the truth. Pure; all in [0, 1].

keep_N bool, score_N float (higher is cleaner), p_N float in [0, 1], clean_N bool: the given label is the true one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cleanctl.evaluate.detection import detection, roc_auc

BINS = 10


def measured(keep_N: np.ndarray, score_N: np.ndarray | None, clean_N: np.ndarray) -> dict[str, Any]:
    """Of the kept set precision, recall, F1; of the ranking, where there is one, what `ranked` gives."""
    found = detection(keep_N, clean_N)
    rest = {} if score_N is None else ranked(score_N, clean_N)
    return {"precision": found.precision, "recall": found.recall, "f1": found.f1, **rest}


def ranked(score_N: np.ndarray, clean_N: np.ndarray) -> dict[str, float | None]:
    """auc; ap: average precision of the wrong labels, lowest score first; recall_95, recall_99: highest recall of right
    labels among top parts of at least that precision; miss: share of the wrong labels that are not among the lowest
    scores, as many as there are wrong labels."""
    from sklearn.metrics import average_precision_score

    order_N = np.argsort(-score_N, kind="stable")
    hits_N = np.cumsum(clean_N[order_N])
    precision_N = hits_N / np.arange(1, len(hits_N) + 1)
    wrong = int((~clean_N).sum())
    lowest_N = order_N[len(order_N) - wrong :]
    return {
        "auc": roc_auc(score_N, clean_N),
        "ap": float(average_precision_score(~clean_N, -score_N)) if wrong else None,
        "recall_95": _recall_at(0.95, precision_N, hits_N),
        "recall_99": _recall_at(0.99, precision_N, hits_N),
        "miss": float(clean_N[lowest_N].mean()) if wrong else None,
    }


def _recall_at(precision: float, precision_N: np.ndarray, hits_N: np.ndarray) -> float:
    enough = np.flatnonzero(precision_N >= precision)
    return float(hits_N[enough[-1]] / hits_N[-1]) if len(enough) else 0.0


def precision_at_recall(score_N: np.ndarray, clean_N: np.ndarray, recall: float) -> float:
    """Of the shortest top part that holds this share of the right labels."""
    hits_N = np.cumsum(clean_N[np.argsort(-score_N, kind="stable")])
    last = int(np.searchsorted(hits_N, recall * hits_N[-1]))
    return float(hits_N[min(last, len(hits_N) - 1)] / (min(last, len(hits_N) - 1) + 1))


def reliability(p_N: np.ndarray, clean_N: np.ndarray) -> list[list[float]]:
    """(mean p, share that is right, rows) of each tenth of [0, 1] that holds rows."""
    bin_N = np.minimum((p_N * BINS).astype(int), BINS - 1)
    return [
        [float(p_N[bin_N == k].mean()), float(clean_N[bin_N == k].mean()), int((bin_N == k).sum())]
        for k in range(BINS)
        if (bin_N == k).any()
    ]


def stated(p_N: np.ndarray, keep_N: np.ndarray, clean_N: np.ndarray) -> dict[str, float]:
    """Expected less true precision of what is kept."""
    if not keep_N.any():
        return {"expected": 0.0, "error": 0.0}
    expected = float(p_N[keep_N].mean(dtype=np.float64))
    return {"expected": expected, "error": expected - float(clean_N[keep_N].mean())}
