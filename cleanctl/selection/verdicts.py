"""A person's verdicts on some labels → probabilities of joint that agree with them.

In: a table of `key` and `verdict` (right or wrong), or the verdicts in the store on labels that `review sample` drew;
the probabilities P(right) of all rows. Out: the same ranking with
other probabilities, σ(a + b logit P), a and b by penalised logistic regression on the verdicts. With no verdict a is 0
and b is 1. Which rows are looked at may depend on P; among rows of one P they have to be drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.datasets.columns import read_columns
from cleanctl.errors import InputError
from cleanctl.store import Split
from cleanctl.store.standing import KEEP, Standing

RIGHT, WRONG = ("right", "true", "1", "yes"), ("wrong", "false", "0", "no")
FEWEST = 20
SPREAD = (2.0, 0.5)  # prior deviation of a from 0 and of b from 1
CERTAIN = 1e-4  # P is held this far from 0 and 1
STEPS = 50
INTERVAL, NORMAL = 0.95, 1.96
TINY = 1e-9


def read_verdicts(file: Path, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(row (V,) int64, right (V,) bool) of a table's verdicts. Raises UsageError, InputError."""
    columns = read_columns(file, "--verdicts", table=True)
    key_V = columns.text(columns.require("key", "--verdicts (a column key)"))
    said_V = [one.strip().lower() for one in columns.text(columns.require("verdict", "--verdicts (a column verdict)"))]
    place = {key: number for number, key in enumerate(key_V)}
    if len(place) < len(key_V):
        raise InputError(f"{file} names a key twice.", do="Give one verdict for each key.")
    unknown = next((number for number, said in enumerate(said_V) if said not in RIGHT + WRONG), None)
    if unknown is not None:
        raise InputError(f"{columns.where(unknown)} has the verdict {said_V[unknown]!r}.", do="Give right or wrong.")
    row_V = np.full(len(key_V), -1, np.int64)
    for row, key in enumerate(keys):
        if key in place:
            row_V[place[key]] = row
    if (row_V < 0).any():
        lost = key_V[int(np.argmax(row_V < 0))]
        raise InputError(f"{file} has a verdict on {lost!r}, which is no key of the split.", do="Check --split.")
    return row_V, np.array([said in RIGHT for said in said_V], bool)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Labels that people looked at. row_V: int64, of the split. right_V: bool. weight_V: float64, how many labels each
    stands for, mean 1."""

    row_V: np.ndarray
    right_V: np.ndarray
    weight_V: np.ndarray


def drawn_looks(split: Split, found: Standing, ok_N: np.ndarray) -> Looks:
    """Of the verdicts in the store, those on readable labels that `review sample` drew, each weighted by one over its
    chance of being drawn: others were looked at because of what the rules say, which is no chance at all."""
    left_N, drawn_N = np.ones(len(ok_N)), np.zeros(len(ok_N), bool)
    for name in split.samples.attributes(damaged=False) if len(found) else ():
        sample = split.samples.read(name)
        left_N *= 1 - sample.arrays["chance"].astype(np.float64)
        drawn_N |= sample.place > 0
    use_V = (drawn_N & ok_N)[found.row_V]
    row_V = found.row_V[use_V]
    weight_V = 1 / np.maximum(1 - left_N[row_V], 1e-9)
    mean = weight_V.mean() if len(weight_V) else 1.0
    return Looks(row_V=row_V, right_V=found.code_V[use_V] == KEEP, weight_V=weight_V / mean)


def told_looks(looks: Looks, found: Standing) -> str:
    """Whether joint is recalibrated by the verdicts in the store, and if not, why; "" where there are none."""
    count, drawn = len(found), len(looks.row_V)
    if not count:
        return ""
    if drawn >= FEWEST:
        return f"joint is recalibrated with {drawn:,} verdicts on labels that review sample drew."
    return (
        f"joint is not recalibrated with the {count:,} verdicts in the store: {drawn:,} of them are on labels that "
        f"review sample drew, and {FEWEST} are needed; the others were not looked at by chance."
    )


def require_enough(right_V: np.ndarray, file: Path) -> None:
    if len(right_V) < FEWEST:
        raise InputError(
            f"{file} holds {len(right_V)} verdicts on readable images.",
            so="So few say nothing of a rate.",
            do=f"Give {FEWEST} or more; 100 to 200 on labels drawn at random are advised.",
        )


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """σ(a + b logit P). spread: covariance of (a, b), 2 × 2. verdicts: on which it rests."""

    a: float
    b: float
    spread: np.ndarray
    verdicts: int

    def of(self, p_N: np.ndarray) -> np.ndarray:
        """(N,) float32 in (0, 1): the probabilities after the verdicts; rows keep their order."""
        return (1 / (1 + np.exp(-(self.a + self.b * _logit(p_N))))).astype(np.float32)

    def interval(self, after_M: np.ndarray) -> tuple[float, float]:
        """Where the share of right labels among these rows lies, at INTERVAL. after_M: of the rows after the verdicts;
        1 or 0 where people know.

        By the normal approximation of a and b: its low end on the scale of log odds, where it is the longer one; its
        high end the higher of both scales', so that a share of 1 can lie within.
        """
        p_M = after_M.astype(np.float64)
        share, change_M = float(p_M.mean()), p_M * (1 - p_M)
        logit_M = (_logit(p_M) - self.a) / self.b
        slope = np.array([change_M.mean(), (change_M * logit_M).mean()])
        deviation = NORMAL * float(slope @ self.spread @ slope) ** 0.5
        inner = min(max(share, TINY), 1 - TINY)
        odds, reach = np.log(inner / (1 - inner)), deviation / (inner * (1 - inner))
        low, high = (float(1 / (1 + np.exp(-np.clip(odds + way * reach, -40, 40)))) for way in (-1, 1))
        return min(low, share), min(max(high, share + deviation), 1.0)


def recalibrated(
    p_N: np.ndarray, row_V: np.ndarray, right_V: np.ndarray, weight_V: np.ndarray | None = None
) -> Recalibration:
    """Fitted to the verdicts on rows of p_N. weight_V: mean 1."""
    logit_V = _logit(p_N[row_V])
    weight_V = np.ones(len(row_V)) if weight_V is None else weight_V
    a, b = _regression(logit_V, right_V.astype(np.float64), weight_V)
    p_V, design, prior = 1 / (1 + np.exp(-(a + b * logit_V))), _design(logit_V), np.diag(1 / np.array(SPREAD) ** 2)
    inverse = np.linalg.inv((design.T * (weight_V * p_V * (1 - p_V))) @ design + prior)
    spread = inverse @ ((design.T * (weight_V**2 * p_V * (1 - p_V))) @ design + prior) @ inverse
    return Recalibration(a=a, b=b, spread=spread, verdicts=len(row_V))


def _logit(p_N: np.ndarray) -> np.ndarray:
    p_N = np.clip(p_N.astype(np.float64), CERTAIN, 1 - CERTAIN)
    return np.log(p_N / (1 - p_N))


def _design(x_V: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x_V), x_V])


def _regression(x_V: np.ndarray, y_V: np.ndarray, weight_V: np.ndarray) -> tuple[float, float]:
    """Newton's steps, halved until the penalised loss falls; b stays positive by its prior unless verdicts deny P."""
    design = _design(x_V)
    usual, prior = np.array([0.0, 1.0]), np.diag(1 / np.array(SPREAD) ** 2)

    def loss(w: np.ndarray) -> float:
        z, away = design @ w, w - usual
        return float(weight_V @ (np.logaddexp(0, z) - y_V * z) + 0.5 * away @ prior @ away)

    w = usual.copy()
    for _ in range(STEPS):
        p_V = 1 / (1 + np.exp(-np.clip(design @ w, -40, 40)))
        gradient = design.T @ (weight_V * (p_V - y_V)) + prior @ (w - usual)
        step = np.linalg.solve((design.T * (weight_V * p_V * (1 - p_V))) @ design + prior, gradient)
        size = 1.0
        while loss(w - size * step) > loss(w) and size > 1e-6:
            size /= 2
        w = w - size * step
        if np.abs(step).max() < 1e-9:
            break
    return float(w[0]), float(max(w[1], 1e-3))
