"""Given against likely: the estimated counts as a matrix of the classes that matter, and rows that show each pair.

Legend: C classes, S classes shown. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cleanctl.report.snapshot import Snapshot

SHOWN_CLASSES = 24
PAIRS, ROWS_A_PAIR = 12, 9


@dataclass(frozen=True, kw_only=True)
class Pair:
    """About `samples` rows labelled `given` are likely `likely` (places in classes). rows: the surest of them."""

    given: int
    likely: int
    samples: float
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ConfusionView:
    """places: classes shown (S). share_SS: of the rows labelled as the row's class, the share that is likely of the
    column's. transition_SS: of joint, the share of a true class (row) that is labelled as the column's class."""

    places: tuple[int, ...]
    share_SS: np.ndarray
    pairs: tuple[Pair, ...]
    transition_SS: np.ndarray | None


def confusion_of(snapshot: Snapshot) -> ConfusionView:
    """From the counts that `select` estimated and stored."""
    counts = snapshot.summary.get("confusion") or {}
    given_E = np.array(counts.get("given", ()), np.int64)
    likely_E = np.array(counts.get("likely", ()), np.int64)
    count_E = np.array(counts.get("samples", ()), np.float64)
    places = _shown(given_E, likely_E, count_E, len(snapshot.classes))
    size_C = np.bincount(snapshot.label_N[snapshot.ok_N], minlength=len(snapshot.classes))
    share_SS = _matrix(given_E, likely_E, count_E / np.maximum(size_C[given_E], 1), places)
    wrong = np.flatnonzero(given_E != likely_E)
    wrong = wrong[np.argsort(-count_E[wrong], kind="stable")][:PAIRS]
    return ConfusionView(
        places=places,
        share_SS=share_SS,
        pairs=tuple(
            Pair(given=int(given_E[e]), likely=int(likely_E[e]), samples=float(count_E[e]),
                 rows=_surest(snapshot, int(given_E[e]), int(likely_E[e])))
            for e in wrong
        ),
        transition_SS=_transition(snapshot, places),
    )  # fmt: skip


def _shown(given_E: np.ndarray, likely_E: np.ndarray, count_E: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """All classes, or those that take part in most of the confusion, in label order."""
    if num_classes <= SHOWN_CLASSES:
        return tuple(range(num_classes))
    wrong = given_E != likely_E
    weight_C = np.bincount(given_E[wrong], weights=count_E[wrong], minlength=num_classes)
    weight_C += np.bincount(likely_E[wrong], weights=count_E[wrong], minlength=num_classes)
    return tuple(sorted(np.argsort(-weight_C, kind="stable")[:SHOWN_CLASSES].tolist()))


def _matrix(row_E: np.ndarray, column_E: np.ndarray, value_E: np.ndarray, places: tuple[int, ...]) -> np.ndarray:
    """(S, S) float64; 0 where there is no such pair."""
    found = np.zeros((len(places), len(places)))
    number = {place: at for at, place in enumerate(places)}
    for row, column, value in zip(row_E.tolist(), column_E.tolist(), value_E.tolist(), strict=True):
        if row in number and column in number:
            found[number[row], number[column]] = value
    return found


def _surest(snapshot: Snapshot, given: int, likely: int) -> tuple[int, ...]:
    """Rows of the pair with the highest probability of the likely class."""
    selection = snapshot.selection
    rows = np.flatnonzero(snapshot.ok_N & (snapshot.label_N == given) & (selection.suggested == likely))
    return tuple(rows[np.argsort(-selection.p_max[rows], kind="stable")][:ROWS_A_PAIR].tolist())


def _transition(snapshot: Snapshot, places: tuple[int, ...]) -> np.ndarray | None:
    """joint's matrix T[true, given], where the selection was made from it."""
    found = (snapshot.summary.get("expected") or {}).get("transition")
    if not found:
        return None
    true_E, given_E = np.array(found["true"], np.int64), np.array(found["given"], np.int64)
    return _matrix(true_E, given_E, np.array(found["rate"], np.float64), places)
