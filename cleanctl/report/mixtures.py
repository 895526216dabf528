"""The loss rules' mixtures as a picture needs them: histogram, two components and the cut of each class.

The store keeps each row's posterior, not the components. Weights, means and variances are the posterior's own moments:
one M-step of EM (docs/method.md A.5), at a converged fit the components themselves within its tolerance.

Legend: N rows, B bins. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.report.evidence import Evidence
from cleanctl.report.snapshot import Snapshot
from cleanctl.score.mixture import scaled_in_class

BINS = 48
CURVE_POINTS = 96
LEAST_VARIANCE = 1e-6  # the fit's own floor


@dataclass(frozen=True, kw_only=True)
class ClassMixture:
    """One class under one loss rule, on its scores ln P(label) scaled to [0, 1].

    low, high: ln P at 0 and at 1. kept_B, dropped_B: int, by bin. weight_2, mean_2, variance_2: the clean component
    first; None where all scores are equal or the class has fewer than two rows. cuts: where keeping changes, ascending.
    """

    place: int
    count: int
    kept: int
    low: float
    high: float
    edge_B: np.ndarray
    kept_B: np.ndarray
    dropped_B: np.ndarray
    weight_2: np.ndarray | None
    mean_2: np.ndarray | None
    variance_2: np.ndarray | None
    cuts: tuple[float, ...]

    def curves(self) -> tuple[np.ndarray, np.ndarray] | None:
        """x (P,) and the expected rows a bin of both components (2, P)."""
        if self.weight_2 is None or self.mean_2 is None or self.variance_2 is None:
            return None
        x_P = np.linspace(0.0, 1.0, CURVE_POINTS)
        away = (x_P - self.mean_2[:, None]) ** 2 / (2 * self.variance_2[:, None])
        density = np.exp(-away) / np.sqrt(2 * np.pi * self.variance_2[:, None])
        return x_P, self.count / BINS * self.weight_2[:, None] * density


def mixtures_of(snapshot: Snapshot, rule: Evidence, *, most: int | None = None) -> list[ClassMixture]:
    """Of every class with rows, in label order. most: of so many classes at most, those that drop most. rule: one of
    the mechanism `loss`."""
    ok_N = snapshot.ok_N
    label_M, keep_M = snapshot.label_N[ok_N], rule.keep_N[ok_N]
    log_M = rule.score_N[ok_N].astype(np.float64)
    posterior_M = _fitted(snapshot, rule)[ok_N].astype(np.float64)
    scaled_M, _ = scaled_in_class(log_M, label_M, len(snapshot.classes))
    order = np.argsort(label_M, kind="stable")
    ends = np.searchsorted(label_M[order], np.arange(len(snapshot.classes) + 1))
    dropped_C = np.bincount(label_M[~keep_M], minlength=len(snapshot.classes))
    places = [place for place in np.argsort(-dropped_C, kind="stable").tolist() if ends[place] < ends[place + 1]]
    found = []
    for place in sorted(places[:most]):
        rows = order[ends[place] : ends[place + 1]]
        found.append(_of_class(place, log_M[rows], scaled_M[rows], posterior_M[rows], keep_M[rows]))
    return found


def _fitted(snapshot: Snapshot, rule: Evidence) -> np.ndarray:
    """The posterior as fitted: the selection's own may be corrected (--mixture-posterior monotone)."""
    score = snapshot.scores.get(rule.name.removeprefix("~").partition(".")[0])
    return rule.number_N if score is None else score.clean


def _of_class(
    place: int, log_M: np.ndarray, scaled_M: np.ndarray, posterior_M: np.ndarray, keep_M: np.ndarray
) -> ClassMixture:
    edge_B = np.linspace(0.0, 1.0, BINS + 1)
    low, high = float(log_M.min()), float(log_M.max())
    weight, mean, variance = moments(scaled_M, posterior_M) if high > low else (None, None, None)
    return ClassMixture(
        place=place,
        count=len(log_M),
        kept=int(keep_M.sum()),
        low=low,
        high=high,
        edge_B=edge_B,
        kept_B=np.histogram(scaled_M[keep_M], edge_B)[0],
        dropped_B=np.histogram(scaled_M[~keep_M], edge_B)[0],
        weight_2=weight,
        mean_2=mean,
        variance_2=variance,
        cuts=changes(scaled_M, keep_M),
    )


def moments(x_M: np.ndarray, posterior_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(2,) weight, mean and variance of the component of `posterior_M` and of the other. A component that nothing
    belongs to has weight 0."""
    part_2M = np.stack([posterior_M, 1 - posterior_M])
    size_2 = part_2M.sum(axis=1)
    mean_2 = (part_2M @ x_M) / np.maximum(size_2, 1e-12)
    spread_2 = (part_2M * (x_M - mean_2[:, None]) ** 2).sum(axis=1) / np.maximum(size_2, 1e-12)
    return size_2 / len(x_M), mean_2, spread_2 + LEAST_VARIANCE


def changes(x_M: np.ndarray, keep_M: np.ndarray) -> tuple[float, ...]:
    """Midway between neighbouring values of x of which one is kept and the other dropped, ascending."""
    order = np.lexsort((keep_M, x_M))
    x, keep = x_M[order], keep_M[order]
    at = np.flatnonzero(keep[1:] != keep[:-1])
    return tuple(((x[at] + x[at + 1]) / 2).tolist())
