"""A person's verdicts on some labels → probabilities of joint that agree with them.

In: a table of `key` and `verdict` (right or wrong), the probabilities P(right) of all rows. Out: the same ranking with
other probabilities, σ(a + b logit P), a and b by penalised logistic regression on the verdicts. With no verdict a is 0
and b is 1. Which rows are looked at may depend on P; among rows of one P they have to be drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cleanctl.datasets.columns import read_columns
from cleanctl.errors import InputError

RIGHT, WRONG = ("right", "true", "1", "yes"), ("wrong", "false", "0", "no")
FEWEST = 20
SPREAD = (2.0, 0.5)  # prior deviation of a from 0 and of b from 1
CERTAIN = 1e-4  # P is held this far from 0 and 1
STEPS = 50


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


def require_enough(right_V: np.ndarray, file: Path) -> None:
    if len(right_V) < FEWEST:
        raise InputError(
            f"{file} holds {len(right_V)} verdicts on readable images.",
            so="So few say nothing of a rate.",
            do=f"Give {FEWEST} or more; 100 to 200 on labels drawn at random are advised.",
        )


def recalibrated(p_N: np.ndarray, row_V: np.ndarray, right_V: np.ndarray) -> np.ndarray:
    """(N,) float32 in (0, 1): the probabilities after the verdicts; rows keep their order."""
    logit_N = _logit(p_N)
    a, b = _regression(logit_N[row_V], right_V.astype(np.float64))
    return (1 / (1 + np.exp(-(a + b * logit_N)))).astype(np.float32)


def _logit(p_N: np.ndarray) -> np.ndarray:
    p_N = np.clip(p_N.astype(np.float64), CERTAIN, 1 - CERTAIN)
    return np.log(p_N / (1 - p_N))


def _regression(x_V: np.ndarray, y_V: np.ndarray) -> tuple[float, float]:
    """Newton's steps, halved until the penalised loss falls; b stays positive by its prior unless verdicts deny P."""
    design = np.column_stack([np.ones_like(x_V), x_V])
    usual, weight = np.array([0.0, 1.0]), np.diag(1 / np.array(SPREAD) ** 2)

    def loss(w: np.ndarray) -> float:
        z, away = design @ w, w - usual
        return float(np.logaddexp(0, z).sum() - y_V @ z + 0.5 * away @ weight @ away)

    w = usual.copy()
    for _ in range(STEPS):
        p_V = 1 / (1 + np.exp(-np.clip(design @ w, -40, 40)))
        gradient = design.T @ (p_V - y_V) + weight @ (w - usual)
        step = np.linalg.solve((design.T * (p_V * (1 - p_V))) @ design + weight, gradient)
        size = 1.0
        while loss(w - size * step) > loss(w) and size > 1e-6:
            size /= 2
        w = w - size * step
        if np.abs(step).max() < 1e-9:
            break
    return float(w[0]), float(max(w[1], 1e-3))
