"""What was looked at → noise rate, precision and recall of a selection, with limits that hold whatever the noise is.

Legend: H cells of the rows, each kept or dropped as a whole, each with a simple random sample of looks.
    noise        wrong labels of all rows
    precision    right labels of the kept rows
    recall       of all right labels those that are kept
A look that decided nothing is no evidence: at each limit it counts as what moves the limit outwards, and so does a cell
without a look. The limits are those of `contrast`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cleanctl.review.contrast import Cells, Hypothesis, furthest, p_value

MARGIN = 0.2  # share of the level that is held back where the hypothesis leaves numbers open (`contrast`)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """int64 (H,): size rows, of which right + wrong + unknown were looked at. keep_H bool."""

    size_H: np.ndarray
    keep_H: np.ndarray
    right_H: np.ndarray
    wrong_H: np.ndarray
    unknown_H: np.ndarray

    @property
    def seen_H(self) -> np.ndarray:
        return self.right_H + self.wrong_H + self.unknown_H


@dataclass(frozen=True, kw_only=True)
class Interval:
    """value: the estimate, None where nobody looked at what it needs; low <= value <= high, all in [0, 1]."""

    value: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Question:
    """rate: W_H → the quantity, None where there is no right label to take a share of. hypothesis: value → (a_H, b) so
    that Σ a_h W_h is b where the quantity has the value, and more where it is larger. possible: it is about some rows.
    """

    rate: Callable[[np.ndarray], float | None]
    hypothesis: Hypothesis
    possible: bool


def noise(looks: Looks) -> Question:
    rows, ones_H = int(looks.size_H.sum()), np.ones(len(looks.size_H))
    return Question(
        rate=lambda wrong_H: float(wrong_H.sum()) / rows, hypothesis=lambda v: (ones_H, v * rows), possible=rows > 0
    )


def precision(looks: Looks) -> Question:
    keep_H, kept = looks.keep_H, int(looks.size_H[looks.keep_H].sum())
    sign_H = np.where(keep_H, -1.0, 0.0)
    return Question(
        rate=lambda wrong_H: 1 - float(wrong_H[keep_H].sum()) / kept,
        hypothesis=lambda v: (sign_H, -(1 - v) * kept),
        possible=kept > 0,
    )


def recall(looks: Looks) -> Question:
    """That it is v is linear in the numbers of wrong labels: (1 - v) (kept - W_kept) = v (dropped - W_dropped)."""
    keep_H = looks.keep_H
    kept, dropped = int(looks.size_H[keep_H].sum()), int(looks.size_H[~keep_H].sum())

    def rate(wrong_H: np.ndarray) -> float | None:
        right = kept - float(wrong_H[keep_H].sum())
        every = right + dropped - float(wrong_H[~keep_H].sum())
        return right / every if every > 0 else None

    return Question(
        rate=rate,
        hypothesis=lambda v: (np.where(keep_H, v - 1, v), v * dropped - (1 - v) * kept),
        possible=kept + dropped > 0,
    )


QUANTITIES: dict[str, Callable[[Looks], Question]] = {"noise": noise, "precision": precision, "recall": recall}


def estimate(name: str, looks: Looks, confidence: float = 0.95) -> Interval | None:
    """name: of QUANTITIES. None where there are no rows that it is about."""
    question = QUANTITIES[name](looks)
    if not question.possible:
        return None
    limits = []
    for end in (0.0, 1.0):
        cells, hypothesis, extreme_H = _outwards(looks, question.hypothesis, end)
        start = question.rate(extreme_H)
        if start is None:  # no right label was found, so that a share of them can be anything
            return Interval(value=None, low=0.0, high=1.0)
        limits.append(furthest(cells, hypothesis, start, end, _level(looks, question, confidence)))
    return Interval(value=_value(looks, question), low=limits[0], high=limits[1])


def covers(name: str, looks: Looks, value: float, confidence: float = 0.95) -> bool:
    """Whether `estimate` gives limits that hold this value, without computing them."""
    question = QUANTITIES[name](looks)
    level = _level(looks, question, confidence)
    for end in (0.0, 1.0):
        cells, hypothesis, extreme_H = _outwards(looks, question.hypothesis, end)
        start = question.rate(extreme_H)
        outside = start is not None and (value > start if end else value < start)
        if outside and p_value(cells, *hypothesis(value), upper=end > 0) <= level:
            return False
    return True


def _level(looks: Looks, question: Question, confidence: float) -> float:
    """Of each one-sided test."""
    open_numbers = np.count_nonzero(question.hypothesis(0.5)[0][looks.seen_H > 0]) > 1
    return (1 - confidence) / 2 * (1 - MARGIN * open_numbers)


def _outwards(looks: Looks, hypothesis: Hypothesis, end: float) -> tuple[Cells, Hypothesis, np.ndarray]:
    """The cells with looks, the hypothesis on them, and W_H as estimated: what was not decided or not looked at counts
    as what brings the quantity nearer to the end, 0 or 1."""
    worse_H = np.sign(hypothesis(0.5)[0]) * (end - 0.5) > 0
    wrong_H = looks.wrong_H + np.where(worse_H, looks.unknown_H, 0)
    known_H = looks.seen_H > 0
    blind_H = np.where(~known_H & worse_H, looks.size_H, 0)

    def about(v: float) -> tuple[np.ndarray, float]:
        a_H, b = hypothesis(v)
        return a_H[known_H], b - float(a_H @ blind_H)

    cells = Cells(size_H=looks.size_H[known_H], seen_H=looks.seen_H[known_H], wrong_H=wrong_H[known_H])
    return cells, about, np.where(known_H, looks.size_H * wrong_H / np.maximum(looks.seen_H, 1), blind_H)


def _value(looks: Looks, question: Question) -> float | None:
    """From the looks that decided; a cell without one gets the rate of its side, kept or dropped."""
    decided_H = looks.right_H + looks.wrong_H
    share_H = looks.wrong_H / np.maximum(decided_H, 1)
    needed_H = (question.hypothesis(0.5)[0] != 0) & (looks.size_H > 0)
    for side_H in (looks.keep_H, ~looks.keep_H):
        known_H, blind_H = side_H & (decided_H > 0), side_H & (decided_H == 0) & needed_H
        if blind_H.any():
            if not known_H.any():
                return None
            share_H[blind_H] = looks.size_H[known_H] @ share_H[known_H] / looks.size_H[known_H].sum()
    return question.rate(looks.size_H * share_H)
