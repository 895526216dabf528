"""Which rows the galleries show, and why each gallery is there. Pure; the same store gives the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.report.evidence import Evidence
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
            "Labels with the lowest probability, where another class is likely. Most of these labels are wrong.",
            np.flatnonzero(other_N & ~selection.keep),
            p_N,
        ),
        _gallery(
            "suggested",
            "Suggested labels",
            "Another class is likely with the highest probability: candidates for a new label.",
            np.flatnonzero(other_N),
            -best_N,
        ),
        _gallery(
            "kept-doubtful",
            "Kept, with the least evidence",
            "If a kept label is wrong, it is likely one of these.",
            np.flatnonzero(ok_N & selection.keep),
            p_N,
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
        found.insert(2, _disagreements(snapshot))
    return [one for one in found if one.rows]


def _disagreements(snapshot: Snapshot) -> Gallery:
    rows = np.flatnonzero(snapshot.ok_N & (snapshot.split_share_N > 0))
    order_N = -snapshot.split_share_N + 1e-3 * _shuffled(len(snapshot))
    return _gallery(
        "disagreements",
        "Rules that disagree",
        "Some rules keep these labels and some drop them, those first over which they are divided most evenly.",
        rows,
        order_N,
    )


def _gallery(id: str, title: str, about: str, rows: np.ndarray, order_N: np.ndarray) -> Gallery:
    """rows by rising order_N."""
    first = rows[np.argsort(order_N[rows], kind="stable")][:ROWS]
    return Gallery(id=id, title=title, about=about, rows=tuple(first.tolist()), of=len(rows))


def _shuffled(count: int) -> np.ndarray:
    """(N,) float in [0, 1): by chance, the same in every run."""
    return np.random.default_rng(0).random(count)
