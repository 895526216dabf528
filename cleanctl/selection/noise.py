"""What the scores say of the labels as a whole: noise per class, and which label is mistaken for which.

Confident learning's calibrated counts: a sample labelled y counts towards (y, k) when P(k) reaches t_k, the mean P(k)
of the samples labelled k; each row y is then scaled to the number of samples labelled y. Of several classes that reach
their threshold the most probable counts. A posterior keeps the most probable class and the given one, not all C: a
sample whose only confident class is another is not counted, which moves the noise rate by half a point at most on
CIFAR-10 (docs/quality.md). A class none of whose samples is confident has no estimate, where cleanlab would say it has
no noise. Sparse: at most N pairs. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

TOGETHER = 1 << 20  # samples whose temporaries are held at a time
ROUNDING = 1e-6  # a class whose probabilities are all equal reaches their mean


class Evidence(Protocol):
    """What is needed of a ClassPosterior."""

    @property
    def p_label(self) -> np.ndarray: ...

    @property
    def p_max(self) -> np.ndarray: ...

    @property
    def suggested(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Pairs (given, likely) by falling count. count_E: float64, calibrated samples. noise_C: float64 share of each
    class whose likely label is another; NaN where the class has no samples."""

    given_E: np.ndarray
    likely_E: np.ndarray
    count_E: np.ndarray
    noise_C: np.ndarray

    def off_diagonal(self, limit: int) -> list[tuple[int, int, float]]:
        """The most confused pairs (given, likely, estimated samples)."""
        wrong_E = np.flatnonzero(self.given_E != self.likely_E)[:limit]
        return [(int(self.given_E[e]), int(self.likely_E[e]), float(self.count_E[e])) for e in wrong_E]


def estimate_confusion(posterior: Evidence, label_N: np.ndarray, *, num_classes: int) -> Confusion:
    """label_N: int, 0…C-1."""
    size_C = np.bincount(label_N, minlength=num_classes)
    mean_C = np.bincount(label_N, weights=posterior.p_label, minlength=num_classes) / np.maximum(size_C, 1)
    # A class nobody is labelled with has no threshold of its own; nothing is confidently of it.
    threshold_C = np.where(size_C > 0, mean_C - ROUNDING, np.inf)
    pair, count = _counted(posterior, label_N, threshold_C)
    given, likely = pair // num_classes, pair % num_classes
    joint_C = np.bincount(given, weights=count, minlength=num_classes)
    calibrated = count * size_C[given] / joint_C[given]
    order = np.argsort(-calibrated, kind="stable")
    right_C = np.bincount(given[given == likely], weights=calibrated[given == likely], minlength=num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise_C = np.where((size_C > 0) & (joint_C > 0), 1.0 - right_C / size_C, np.nan)
    return Confusion(given_E=given[order], likely_E=likely[order], count_E=calibrated[order], noise_C=noise_C)


def _counted(posterior: Evidence, label_N: np.ndarray, threshold_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs (given · C + likely) occur among the sure samples, ascending, and how often."""
    pair = count = np.zeros(0, np.int64)
    for start in range(0, len(label_N), TOGETHER):
        rows = slice(start, start + TOGETHER)
        label_B, suggested_B = label_N[rows], posterior.suggested[rows]
        likely_B = np.where(posterior.p_max[rows] >= threshold_C[suggested_B], suggested_B, -1)
        given_holds_B = posterior.p_label[rows] >= threshold_C[label_B]
        likely_B = np.where((likely_B < 0) & given_holds_B, label_B, likely_B)
        sure_B = likely_B >= 0
        found, times = np.unique(
            label_B[sure_B].astype(np.int64) * len(threshold_C) + likely_B[sure_B], return_counts=True
        )
        every = np.concatenate([pair, found])
        pair, place = np.unique(every, return_inverse=True)
        count = np.bincount(place, np.concatenate([count, times]), len(pair)).astype(np.int64)
    return pair, count
