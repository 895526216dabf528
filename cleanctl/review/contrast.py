"""Looks at a stratified sample → limits of a sum over all rows, by inverting a test.

Legend: H cells, each drawn from by simple random sampling without replacement.
    size_H     rows N_h                     wrong_H    of those seen, with a wrong label: S_h
    seen_H     looked at: n_h, 1 or more    W_h        wrong labels among all N_h: unknown

The hypothesis is Σ a_h W_h = b. The statistic is T = Σ a_h N_h S_h / n_h, its weights rounded to a lattice, so that its
distribution under given W_h is a convolution of hypergeometric distributions and is computed, not approximated. The
hypothesis leaves H - 1 numbers open. They are set to what the looks make most likely (`likeliest`, with SMOOTH looks of
each kind added to each cell, so that a cell in which nothing was found counts as uncertain), and then once more AWAY
standard deviations further to where T varies most; the larger probability counts. With one cell nothing is open and the
limits are the exact ones of the hypergeometric distribution (among many rows: Clopper and Pearson's). No model of the
noise and no score has a part in this; scores say only which cell a row is in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

SMOOTH = 0.5
AWAY = 2.0  # standard deviations
EDGE = 60.0  # of the search for λ, which is 1e-12 (e^|x| - 1) with the sign of x

Hypothesis = Callable[[float], tuple[np.ndarray, float]]  # value → (a_H, b)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """int64 (H,); 1 <= seen_H <= size_H, 0 <= wrong_H <= seen_H."""

    size_H: np.ndarray
    seen_H: np.ndarray
    wrong_H: np.ndarray


def furthest(cells: Cells, hypothesis: Hypothesis, start: float, end: float, level: float) -> float:
    """The value between start and end, seen from start, from which on the looks reject the hypothesis.

    hypothesis: Σ a_h W_h = b holds where the quantity has this value, Σ a_h W_h > b where it is larger.
    level: of the one-sided test. start: the estimate. end: 0 or 1; returned where it is not rejected either.
    """

    def above(value: float) -> float:
        return p_value(cells, *hypothesis(value), upper=end > start) - level

    if not len(cells.size_H) or start == end or above(end) > 0:
        return end
    if above(start) <= 0:  # the lattice is coarse where nearly all rows were seen
        return start
    return float(brentq(above, start, end, xtol=1e-6))


def p_value(cells: Cells, a_H: np.ndarray, b: float, *, upper: bool) -> float:
    """Probability of a T as low as that seen, if upper, or as high; 0 where no W_h can give b."""
    wrong_H = likeliest(cells, a_H, b)
    if wrong_H is None:
        return 0.0
    found = tail(cells, a_H, wrong_H, lower=upper)
    tilt_H = towards_spread(cells, a_H, wrong_H)
    wider_H = likeliest(cells, a_H, b, tilt_H) if tilt_H.any() else None
    return found if wider_H is None else max(found, tail(cells, a_H, wider_H, lower=upper))


def towards_spread(cells: Cells, a_H: np.ndarray, wrong_H: np.ndarray) -> np.ndarray:
    """What is added to the slopes of the likelihood so that its maximum moves, under Σ a_h W_h = b, by AWAY standard
    deviations in the direction in which the variance of T grows most."""
    share_H = np.clip((wrong_H + SMOOTH) / (cells.size_H + 2 * SMOOTH), 1e-9, 1 - 1e-9)
    left_H = np.where(cells.size_H > 1, (cells.size_H - cells.seen_H) / np.maximum(cells.size_H - 1, 1), 0.0)
    growth_H = a_H**2 * cells.size_H / cells.seen_H * (1 - 2 * share_H) * left_H
    room_H = cells.size_H**2 * share_H * (1 - share_H) / cells.seen_H * left_H
    if not (a_H**2 @ room_H) > 0:
        return np.zeros(len(a_H))
    across_H = growth_H - (a_H * room_H @ growth_H) / (a_H**2 @ room_H) * a_H
    length = float(np.sqrt(across_H**2 @ room_H))
    return AWAY * across_H / length if length > 1e-9 * float(np.sqrt(growth_H**2 @ room_H)) else np.zeros(len(a_H))


def likeliest(cells: Cells, a_H: np.ndarray, b: float, tilt_H: np.ndarray | float = 0.0) -> np.ndarray | None:
    """W_H float: the likeliest numbers of wrong labels with Σ a_h W_h = b, None where there are none.

    Each W_h solves A / x - B / (M - x) = λ a_h: A and B are the looks of either kind, x + (S - 1) / 2 is W, and M is N
    less what the looks have used up; λ is found by Brent's method.
    """
    low_H = cells.wrong_H.astype(float)
    high_H = (cells.size_H - (cells.seen_H - cells.wrong_H)).astype(float)
    least = float(np.where(a_H > 0, low_H, high_H) @ a_H)
    most = float(np.where(a_H > 0, high_H, low_H) @ a_H)
    slack = 1e-9 * (1 + abs(least) + abs(most))
    if not least - slack <= b <= most + slack:
        return None
    A_H, B_H = cells.wrong_H + SMOOTH, cells.seen_H - cells.wrong_H + SMOOTH
    M_H = cells.size_H - (cells.seen_H - 2) / 2
    shift_H = np.maximum(cells.wrong_H - 1, 0) / 2

    def at(place: float) -> np.ndarray:
        t_H = 1e-12 * np.sign(place) * np.expm1(abs(place)) * a_H - tilt_H
        u_H = t_H * M_H + A_H + B_H
        root_H = np.sqrt((t_H * M_H + B_H - A_H) ** 2 + 4 * A_H * B_H)
        safe_H = np.where(u_H > 0, -1.0, np.minimum(t_H, -1e-200))  # where u <= 0, t is negative
        x_H = np.where(u_H > 0, 2 * A_H * M_H / np.where(u_H > 0, u_H + root_H, 1.0), (u_H - root_H) / (2 * safe_H))
        return np.clip(x_H + shift_H, low_H, high_H)

    def excess(place: float) -> float:
        return float(a_H @ at(place)) - b

    if excess(-EDGE) <= 0:
        return at(-EDGE)
    return at(EDGE if excess(EDGE) >= 0 else float(brentq(excess, -EDGE, EDGE, xtol=1e-9)))


def tail(cells: Cells, a_H: np.ndarray, W_H: np.ndarray, *, lower: bool) -> float:
    """P(T <= the T seen) if lower, else P(T >= the T seen), where the cells hold W_H wrong labels."""
    weight_H = a_H * cells.size_H / cells.seen_H
    lattice = 2 ** max(11, int(8 * cells.seen_H.sum()).bit_length())
    room = lattice - 1 - cells.seen_H.sum() / 2
    unit = float(np.abs(weight_H) @ cells.seen_H) / room
    if unit == 0:
        return 1.0
    step_H = np.rint(weight_H / unit).astype(int)
    spectrum, seen = np.ones(lattice // 2 + 1, complex), 0
    for step, size, count, wrong, total in zip(step_H, cells.size_H, cells.seen_H, cells.wrong_H, W_H):
        if step == 0:
            continue
        chance = hypergeometric(int(size), float(total), int(count))
        places = np.zeros(lattice)
        places[: abs(step) * count + 1 : abs(step)] = chance if step > 0 else chance[::-1]
        spectrum *= np.fft.rfft(places)
        seen += abs(step) * (wrong if step > 0 else count - wrong)
    density = np.fft.irfft(spectrum, lattice)
    return float(np.clip(density[: seen + 1].sum() if lower else density[seen:].sum(), 0, 1))


def hypergeometric(size: int, wrong: float, seen: int) -> np.ndarray:
    """(seen + 1,) probabilities of 0 … seen wrong labels; between two whole `wrong` a mixture of theirs."""
    below = int(np.floor(wrong))
    share = wrong - below
    found = (1 - share) * _whole(size, below, seen)
    return found + share * _whole(size, below + 1, seen) if share > 0 else found


def _whole(size: int, wrong: int, seen: int) -> np.ndarray:
    s = np.arange(seen + 1)
    possible = (s <= wrong) & (seen - s <= size - wrong)
    ways = _log_choose(wrong, np.minimum(s, wrong)) - _log_choose(size, seen)
    ways = ways + _log_choose(size - wrong, np.clip(seen - s, 0, size - wrong))
    return np.where(possible, np.exp(np.where(possible, ways, 0.0)), 0.0)


def _log_choose(n: int, k: np.ndarray | int) -> np.ndarray:
    found: np.ndarray = gammaln(n + 1) - gammaln(np.asarray(k) + 1) - gammaln(n - np.asarray(k) + 1)
    return found
