"""Looks at a stratified sample → limits of a sum over all rows, by inverting a test; G samples of one plan at once.

Legend: H cells, each drawn from by simple random sampling without replacement.
    size_H     rows N_h                     wrong_GH   of those seen, with a wrong label: S_h
    seen_H     looked at: n_h, 1 or more    W_GH       wrong labels among all N_h: unknown

The hypothesis is Σ a_h W_h = b. The statistic is T = Σ a_h N_h S_h / n_h, its weights rounded to a lattice, so that its
distribution under given W_h is a convolution of hypergeometric distributions and is computed, not approximated. The
hypothesis leaves H - 1 numbers open. They are set to what the looks make most likely under it (`likeliest`), with
SMOOTH looks of each kind added, shared among the cells as the looks are, so that cells in which nothing was found count
as uncertain. With one cell nothing is open, and the limits are the exact ones of the hypergeometric distribution (among
many rows: Clopper and Pearson's). No model of the noise and no score has a part in this; scores say only which cell a
row is in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

SMOOTH = 0.5
STEPS, LAMBDA_STEPS = 15, 50

Hypothesis = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # value_G → (a_GH, b_G)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """int64; 1 <= seen_H <= size_H, 0 <= wrong_GH <= seen_H."""

    size_H: np.ndarray
    seen_H: np.ndarray
    wrong_GH: np.ndarray


def furthest(cells: Cells, hypothesis: Hypothesis, start_G: np.ndarray, end: float, level: float) -> np.ndarray:
    """(G,) the value between start and end from which on the looks reject the hypothesis.

    hypothesis: Σ a_h W_h = b holds where the quantity has this value, Σ a_h W_h > b where it is larger.
    level: of the one-sided test. start_G: the estimates. end: 0 or 1; returned where it is not rejected either.
    """
    end_G = np.full(len(start_G), end)
    if not len(cells.size_H):
        return end_G
    inside_G, outside_G = start_G.astype(float), end_G
    held_G = p_value(cells, *hypothesis(end_G), upper=end > 0) > level
    for _ in range(STEPS):
        middle_G = (inside_G + outside_G) / 2
        in_G = p_value(cells, *hypothesis(middle_G), upper=end > 0) > level
        inside_G, outside_G = np.where(in_G, middle_G, inside_G), np.where(in_G, outside_G, middle_G)
    return np.where(held_G, end, outside_G)


def p_value(cells: Cells, a_GH: np.ndarray, b_G: np.ndarray, *, upper: bool) -> np.ndarray:
    """(G,) probability of a T as low as that seen, if upper, or as high; 0 where no W can give b."""
    low_GH = cells.wrong_GH.astype(float)
    high_GH = cells.size_H - (cells.seen_H - low_GH)
    least_G = np.where(a_GH > 0, a_GH * low_GH, a_GH * high_GH).sum(axis=1)
    most_G = np.where(a_GH > 0, a_GH * high_GH, a_GH * low_GH).sum(axis=1)
    slack_G = 1e-9 * (1 + np.abs(least_G) + np.abs(most_G))
    possible_G = (least_G - slack_G <= b_G) & (b_G <= most_G + slack_G)
    found_G = tail(cells, a_GH, likeliest(cells, a_GH, b_G), lower=upper)
    return np.where(possible_G, found_G, 0.0)


def likeliest(cells: Cells, a_GH: np.ndarray, b_G: np.ndarray) -> np.ndarray:
    """W_GH float: the likeliest numbers of wrong labels with Σ a_h W_h = b.

    Each W_h solves A / x - B / (M - x) = λ a_h: A and B are the looks of either kind, x + (S - 1) / 2 is W, and M is N
    less what the looks have used up; λ is found by bisection on a scale that is 1e-12 (e^|x| - 1) with the sign of x.
    """
    wrong_GH, right_GH = cells.wrong_GH, cells.seen_H - cells.wrong_GH
    added_GH = (
        SMOOTH * cells.seen_H * (a_GH != 0) / np.maximum((cells.seen_H * (a_GH != 0)).sum(axis=1, keepdims=True), 1)
    )
    A_GH, B_GH = wrong_GH + added_GH, right_GH + added_GH
    M_H = cells.size_H - (cells.seen_H - 2) / 2
    shift_GH = np.maximum(wrong_GH - 1, 0) / 2

    def at(place_G: np.ndarray) -> np.ndarray:
        t_GH = (1e-12 * np.sign(place_G) * np.expm1(np.abs(place_G)))[:, None] * a_GH
        u_GH = t_GH * M_H + A_GH + B_GH
        root_GH = np.sqrt((t_GH * M_H + B_GH - A_GH) ** 2 + 4 * A_GH * B_GH)
        near_GH = 2 * A_GH * M_H / np.where(u_GH > 0, u_GH + root_GH, 1.0)
        far_GH = (u_GH - root_GH) / (2 * np.where(u_GH > 0, -1.0, np.minimum(t_GH, -1e-200)))  # t is negative there
        return np.clip(np.where(u_GH > 0, near_GH, far_GH) + shift_GH, wrong_GH, cells.size_H - right_GH)

    low_G, high_G = np.full(len(b_G), -60.0), np.full(len(b_G), 60.0)
    for _ in range(LAMBDA_STEPS):
        middle_G = (low_G + high_G) / 2
        above_G = (a_GH * at(middle_G)).sum(axis=1) > b_G
        low_G, high_G = np.where(above_G, middle_G, low_G), np.where(above_G, high_G, middle_G)
    return at((low_G + high_G) / 2)


def tail(cells: Cells, a_GH: np.ndarray, W_GH: np.ndarray, *, lower: bool) -> np.ndarray:
    """(G,) P(T <= the T seen) if lower, else P(T >= the T seen), where the cells hold W_h wrong labels."""
    lattice = 2 ** max(9, int(4 * cells.seen_H.sum()).bit_length())
    weight_GH = a_GH * cells.size_H / cells.seen_H
    range_G = np.abs(weight_GH) @ cells.seen_H
    room = lattice - 1 - cells.seen_H.sum() / 2
    step_GH = np.rint(weight_GH * room / np.where(range_G > 0, range_G, 1.0)[:, None]).astype(int)
    spectrum_GF = np.ones((len(W_GH), lattice // 2 + 1), complex)
    for h, (size, count) in enumerate(zip(cells.size_H.tolist(), cells.seen_H.tolist())):
        step_G1 = step_GH[:, h : h + 1]
        chance_GS = hypergeometric(size, W_GH[:, h], count)
        chance_GS = np.where(step_G1 >= 0, chance_GS, chance_GS[:, ::-1])
        places_GL = np.zeros((len(W_GH), lattice))
        np.put_along_axis(places_GL, np.abs(step_G1) * np.arange(count + 1), chance_GS, axis=1)
        places_GL[step_GH[:, h] == 0, 0] = 1.0
        spectrum_GF *= np.fft.rfft(places_GL, axis=1)
    density_GL = np.fft.irfft(spectrum_GF, lattice, axis=1)
    told_GH = np.where(step_GH >= 0, cells.wrong_GH, cells.seen_H - cells.wrong_GH)
    seen_G = (np.abs(step_GH) * told_GH).sum(axis=1)
    up_GL = np.cumsum(density_GL, axis=1)
    reached_G = up_GL[np.arange(len(seen_G)), seen_G]
    before_G = np.where(seen_G > 0, up_GL[np.arange(len(seen_G)), np.maximum(seen_G - 1, 0)], 0.0)
    return np.clip(reached_G if lower else 1 - before_G, 0, 1)


def hypergeometric(size: int, wrong_G: np.ndarray, seen: int) -> np.ndarray:
    """(G, seen + 1) probabilities of 0 … seen wrong labels; between two whole `wrong` a mixture of theirs."""
    below_G = np.floor(wrong_G)
    share_G1 = (wrong_G - below_G)[:, None]
    above_G = np.minimum(below_G + 1, size)
    found: np.ndarray = (1 - share_G1) * _whole(size, below_G, seen) + share_G1 * _whole(size, above_G, seen)
    return found


def _whole(size: int, wrong_G: np.ndarray, seen: int) -> np.ndarray:
    s, wrong_G1 = np.arange(seen + 1)[None], wrong_G[:, None]
    possible_GS = (s <= wrong_G1) & (seen - s <= size - wrong_G1)
    ways_GS = _log_choose(wrong_G1, np.minimum(s, wrong_G1)) - _log_choose(size, seen)
    ways_GS = ways_GS + _log_choose(size - wrong_G1, np.clip(seen - s, 0, size - wrong_G1))
    return np.where(possible_GS, np.exp(np.where(possible_GS, ways_GS, 0.0)), 0.0)


def _log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
    found: np.ndarray = gammaln(np.asarray(n) + 1) - gammaln(np.asarray(k) + 1) - gammaln(np.asarray(n) - k + 1)
    return found
