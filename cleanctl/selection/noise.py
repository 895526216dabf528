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

import numpy as np

from cleanctl.records import ClassPosterior

ROUNDING = 1e-6  # a class whose probabilities are all equal reaches their mean


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


def estimate_confusion(posterior: ClassPosterior, label_N: np.ndarray, *, num_classes: int) -> Confusion:
    """label_N: int, 0…C-1."""
    size_C = np.bincount(label_N, minlength=num_classes)
    mean_C = np.bincount(label_N, weights=posterior.p_label, minlength=num_classes) / np.maximum(size_C, 1)
    # A class nobody is labelled with has no threshold of its own; nothing is confidently of it.
    threshold_C = np.where(size_C > 0, mean_C - ROUNDING, np.inf)
    likely_N = np.where(posterior.p_max >= threshold_C[posterior.suggested], posterior.suggested, -1)
    given_holds_N = posterior.p_label >= threshold_C[label_N]
    likely_N = np.where((likely_N < 0) & given_holds_N, label_N, likely_N)
    sure_N = likely_N >= 0
    pair, count = np.unique(label_N[sure_N].astype(np.int64) * num_classes + likely_N[sure_N], return_counts=True)
    given, likely = pair // num_classes, pair % num_classes
    joint_C = np.bincount(given, weights=count, minlength=num_classes)
    calibrated = count * size_C[given] / joint_C[given]
    order = np.argsort(-calibrated, kind="stable")
    right_C = np.bincount(given[given == likely], weights=calibrated[given == likely], minlength=num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        noise_C = np.where((size_C > 0) & (joint_C > 0), 1.0 - right_C / size_C, np.nan)
    return Confusion(given_E=given[order], likely_E=likely[order], count_E=calibrated[order], noise_C=noise_C)
