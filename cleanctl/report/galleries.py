"""Which rows the galleries show, and why each gallery is there. Pure; the same store gives the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.report.evidence import Evidence, division
from cleanctl.report.snapshot import Snapshot

ROWS = 30


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """rows: store rows, the first to see first. about: in words, which rows these are. of: how many there are."""

    id: str
    title: str
    about: str
    rows: tuple[int, ...]
    of: int


def galleries_of(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> list[Gallery]:
    """Those that have rows."""
    selection, ok_N = snapshot.selection, snapshot.ok_N
    p_N, best_N = selection.p_label.astype(np.float64), selection.p_max.astype(np.float64)
    other_N = ok_N & (selection.suggested != snapshot.label_N)
    found = [
        _gallery(
            "suspicious",
            "Most suspicious",
            "Of each class, the labels with the lowest probability, where another class is likely.",
            np.flatnonzero(other_N & ~selection.keep),
            _by_class(np.flatnonzero(other_N & ~selection.keep), snapshot.label_N, p_N),
        ),
        _gallery(
            "suggested",
            "Suggested labels",
            "Of each likely class, those where its probability is highest: candidates for a new label.",
            np.flatnonzero(other_N),
            _by_class(np.flatnonzero(other_N), selection.suggested, -best_N),
        ),
        _gallery(
            "kept-doubtful",
            "Kept, least sure",
            "Of each class, the kept labels with the lowest probability: a wrong one is likely here.",
            np.flatnonzero(ok_N & selection.keep),
            _by_class(np.flatnonzero(ok_N & selection.keep), snapshot.label_N, p_N),
        ),
    ]
    if evidence:
        near_N = np.min([one.distance() for one in evidence], axis=0)
        found.insert(
            1,
            _gallery(
                "borderline",
                "Borderline",
                "Nearest to a rule's threshold: a slightly other threshold decides otherwise.",
                np.flatnonzero(ok_N),
                near_N,
            ),
        )
    if len(evidence) > 1:
        found.insert(2, _disagreements(snapshot, evidence))
    return [one for one in found if one.rows]


def _disagreements(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> Gallery:
    divided_N = division(snapshot, evidence)
    rows = np.flatnonzero(snapshot.ok_N & (divided_N > 0))
    order_N = -divided_N + 1e-3 * _shuffled(len(snapshot))
    return _gallery(
        "disagreements",
        "Rules disagree",
        "Some rules keep these labels and some drop them, those first over which they are divided most evenly.",
        rows,
        order_N,
    )


def _gallery(id: str, title: str, about: str, rows: np.ndarray, order_N: np.ndarray) -> Gallery:
    """rows by rising order_N."""
    first = rows[np.argsort(order_N[rows], kind="stable")][:ROWS]
    return Gallery(id=id, title=title, about=about, rows=tuple(first.tolist()), of=len(rows))


def _by_class(rows: np.ndarray, class_N: np.ndarray, order_N: np.ndarray) -> np.ndarray:
    """(N,) float: among `rows`, the place within the class by rising order_N, then the order: one class's numbers are
    not another's, and a gallery of a single class tells little."""
    place_N = np.full(len(order_N), np.inf)
    sorted_M = rows[np.lexsort((order_N[rows], class_N[rows]))]
    if not len(sorted_M):
        return place_N
    first_M = np.flatnonzero(np.diff(class_N[sorted_M], prepend=class_N[sorted_M[0]] - 1))
    start_M = np.repeat(first_M, np.diff(first_M, append=len(sorted_M)))
    span = float(np.ptp(order_N[rows])) or 1.0
    place_N[sorted_M] = np.arange(len(sorted_M)) - start_M + (order_N[sorted_M] - order_N[rows].min()) / (2 * span)
    return place_N


def _shuffled(count: int) -> np.ndarray:
    """(N,) float in [0, 1): by chance, the same in every run."""
    return np.random.default_rng(0).random(count)
