"""What was looked at → noise rate, precision and recall of a selection, with limits that hold whatever the noise is.

Legend: H cells of the rows, each kept or dropped as a whole, each with a simple random sample of looks; G samples of
one plan at once, for simulations.
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

MARGIN = 0.4  # share of the level that is held back where the hypothesis leaves numbers open (`contrast`)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """size_H int64: rows. keep_H bool. right_GH, wrong_GH, unknown_GH int64: what the looks found; their sum, the looks
    in each cell, is the same in every sample."""

    size_H: np.ndarray
    keep_H: np.ndarray
    right_GH: np.ndarray
    wrong_GH: np.ndarray
    unknown_GH: np.ndarray

    @property
    def seen_H(self) -> np.ndarray:
        seen_H: np.ndarray = self.right_GH[0] + self.wrong_GH[0] + self.unknown_GH[0]
        return seen_H

    @property
    def kept(self) -> int:
        return int(self.size_H[self.keep_H].sum())

    @property
    def dropped(self) -> int:
        return int(self.size_H[~self.keep_H].sum())


@dataclass(frozen=True, kw_only=True)
class Interval:
    """float64 (G,): value, the estimate, NaN where no look tells it; low <= high, all in [0, 1]."""

    value_G: np.ndarray
    low_G: np.ndarray
    high_G: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Question:
    """rate: W_GH → the quantity, NaN where there is no right label to take a share of. hypothesis: value_G → (a_GH,
    b_G) so that Σ a_h W_h is b where the quantity has the value, and more where it is larger. rows: that it is about.
    """

    rate: Callable[[np.ndarray], np.ndarray]
    hypothesis: Hypothesis
    rows: int


def noise(looks: Looks) -> Question:
    rows = looks.kept + looks.dropped
    return Question(
        rate=lambda wrong_GH: wrong_GH.sum(axis=1) / rows,
        hypothesis=lambda v_G: (np.ones((len(v_G), len(looks.size_H))), v_G * rows),
        rows=rows,
    )


def precision(looks: Looks) -> Question:
    sign_H = np.where(looks.keep_H, -1.0, 0.0)
    return Question(
        rate=lambda wrong_GH: 1 + wrong_GH @ sign_H / looks.kept,
        hypothesis=lambda v_G: (np.tile(sign_H, (len(v_G), 1)), -(1 - v_G) * looks.kept),
        rows=looks.kept,
    )


def recall(looks: Looks) -> Question:
    """That it is v is linear in the numbers of wrong labels: (1 - v) (kept - W_kept) = v (dropped - W_dropped)."""

    def rate(wrong_GH: np.ndarray) -> np.ndarray:
        right_G = looks.kept - wrong_GH[:, looks.keep_H].sum(axis=1)
        every_G = right_G + looks.dropped - wrong_GH[:, ~looks.keep_H].sum(axis=1)
        return np.where(every_G > 0, right_G / np.maximum(every_G, 1e-300), np.nan)

    def hypothesis(v_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a_GH = np.where(looks.keep_H, v_G[:, None] - 1, v_G[:, None])
        return a_GH, v_G * looks.dropped - (1 - v_G) * looks.kept

    return Question(rate=rate, hypothesis=hypothesis, rows=looks.kept + looks.dropped)


QUANTITIES: dict[str, Callable[[Looks], Question]] = {"noise": noise, "precision": precision, "recall": recall}


def estimate(name: str, looks: Looks, confidence: float = 0.95) -> Interval | None:
    """name: of QUANTITIES. None where there are no rows that it is about."""
    question = QUANTITIES[name](looks)
    if not question.rows:
        return None
    level = _level(looks, question, confidence)
    limits = []
    for end in (0.0, 1.0):
        cells, hypothesis, extreme_GH = _outwards(looks, question.hypothesis, end)
        start_G = question.rate(extreme_GH)
        none_G = np.isnan(start_G)  # no right label was found, so that a share of them can be anything
        found_G = furthest(cells, hypothesis, np.where(none_G, 0.5, start_G), end, level)
        limits.append(np.where(none_G, end, found_G))
    return Interval(value_G=_value(looks, question), low_G=limits[0], high_G=limits[1])


def covers(name: str, looks: Looks, value: float, confidence: float = 0.95) -> np.ndarray:
    """(G,) bool: whether `estimate` gives limits that hold this value, without computing them."""
    question = QUANTITIES[name](looks)
    level = _level(looks, question, confidence)
    value_G = np.full(len(looks.right_GH), value)
    held_G = np.ones(len(value_G), bool)
    for end in (0.0, 1.0):
        cells, hypothesis, extreme_GH = _outwards(looks, question.hypothesis, end)
        start_G = question.rate(extreme_GH)
        beyond_G = value > start_G if end else value < start_G
        held_G &= ~beyond_G | (p_value(cells, *hypothesis(value_G), upper=end > 0) > level)
    return held_G


def _level(looks: Looks, question: Question, confidence: float) -> float:
    """Of each one-sided test."""
    open_numbers = np.count_nonzero(question.hypothesis(np.array([0.5]))[0][0, looks.seen_H > 0]) > 1
    return (1 - confidence) / 2 * (1 - MARGIN * open_numbers)


def _outwards(looks: Looks, hypothesis: Hypothesis, end: float) -> tuple[Cells, Hypothesis, np.ndarray]:
    """The cells with looks, the hypothesis on them, and W_GH as estimated: what was not decided or not looked at counts
    as what brings the quantity nearer to the end, 0 or 1."""
    seen_H, size_H = looks.seen_H, looks.size_H
    worse_H = hypothesis(np.array([0.5]))[0][0] * (end - 0.5) > 0
    wrong_GH = looks.wrong_GH + np.where(worse_H, looks.unknown_GH, 0)
    known_H = seen_H > 0
    blind_H = np.where(~known_H & worse_H, size_H, 0)

    def about(v_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a_GH, b_G = hypothesis(v_G)
        return a_GH[:, known_H], b_G - a_GH @ blind_H

    cells = Cells(size_H=size_H[known_H], seen_H=seen_H[known_H], wrong_GH=wrong_GH[:, known_H])
    return cells, about, np.where(known_H, size_H * wrong_GH / np.maximum(seen_H, 1), blind_H)


def _value(looks: Looks, question: Question) -> np.ndarray:
    """From the looks that decided; a cell without one gets the rate of its side, kept or dropped."""
    decided_GH = looks.right_GH + looks.wrong_GH
    share_GH = looks.wrong_GH / np.maximum(decided_GH, 1)
    needed_H = question.hypothesis(np.array([0.5]))[0][0] != 0
    for side_H in (looks.keep_H, ~looks.keep_H):
        told_GH = np.where(side_H & (decided_GH > 0), looks.size_H, 0)
        rows_G = told_GH.sum(axis=1)
        side_G = np.where(rows_G > 0, (told_GH * share_GH).sum(axis=1) / np.maximum(rows_G, 1), np.nan)
        blind_GH = side_H & needed_H & (decided_GH == 0) & (looks.size_H > 0)
        share_GH = np.where(blind_GH, side_G[:, None], share_GH)
    return question.rate(looks.size_H * share_GH)
