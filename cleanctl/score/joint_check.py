"""Whether the label noise looks as the scorer `joint` assumes: decided by the true class, not by the image beyond it.

Of a row, joint holds the label for wrong, and z for its true class, with probability r(z | i), z ≠ y_i. What the label
then is should depend on z alone, as T says: on the mean of d_i(y) = ln q(y | i), q being joint's P(z | i), it should
have what T gives. Where a network errs, labels go where the image points, and have what q gives:
    α = Σ_i Σ_{z ≠ y_i} r(z | i) (d_i(y_i)              - Σ_{y ≠ z} T'[z, y] d_i(y))
    β = Σ_i Σ_{z ≠ y_i} r(z | i) (Σ_{y ≠ z} q_z(y | i) d_i(y) - Σ_{y ≠ z} T'[z, y] d_i(y))
with T' the errors that were found of class z, and q_z q without z; both sum to 1. α / β is the share of those labels
that follow their images, whatever the number of classes: T' takes up how alike two classes are. Where hardly a label is
held for wrong, all labels look right, which they do too where a network made them; so rows that follow, FEW of all, are
added to both. The sums are over the sample, which every part has whole. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array_like, namespace, numbers, pick, put

from cleanctl.score.joint_arrays import double, single, softmax
from cleanctl.score.joint_channel import TINY, Channel

FEWEST_OTHERS = 100
FOLLOWS = 0.33
FEW, LEAST = 0.01, 1e-6  # LEAST is added to every q, whose logarithm is taken
TRUST, MOST, PER_WRONG = (0.2, 0.7), 0.8, 4.0
TILE = 1 << 17  # entries that are worked on at once


@dataclass(frozen=True, kw_only=True)
class Check:
    """others: labels of all rows that are not the prompts' first choice. wrong: share of the sample that joint holds
    for wrong. follows: share of those that follow their images, FEW added. error: its standard error."""

    others: int
    wrong: float
    follows: float
    error: float
    num_classes: int

    @property
    def class_conditional(self) -> bool | None:
        """None where too few labels or classes tell. docs/quality.md says where the bound was set."""
        if self.num_classes < 3 or self.others < FEWEST_OTHERS:
            return None
        return self.follows < FOLLOWS


def examine(
    logit_MC: Any,
    label_M: np.ndarray,
    channel: Channel,
    others: int,
    each: Callable[[Callable[[slice], Any], Iterable[slice]], Iterable[Any]],
) -> Check:
    """logit_MC: of the sample's P(z | i); the shares of the classes are the channel's."""
    count, classes = len(logit_MC), logit_MC.shape[1]
    label = as_array_like(label_M, logit_MC)
    wrong_ZY = _errors(channel)
    wrong_YZ = single(wrong_ZY.T)

    def work(rows: slice) -> np.ndarray:
        return _sums(logit_MC[rows], label[rows], channel, wrong_YZ)

    step = max(1, TILE // classes)
    tiles = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    held, alpha, beta, *squares = sum(each(work, tiles), np.zeros(6))
    wrong, share, spread = held / count, 1.0, 0.0
    if beta > 0:
        share = alpha / beta
        spread = float(np.sqrt(max(squares[0] - 2 * share * squares[1] + share**2 * squares[2], 0.0))) / beta
    share = float(np.clip(share, 0.0, 1.0))
    return Check(
        others=others,
        wrong=float(wrong),
        follows=float((share * wrong + FEW) / (wrong + FEW)),
        error=float(spread * wrong / (wrong + FEW)),
        num_classes=classes,
    )


def _errors(channel: Channel) -> Any:
    """T' (C, C) float64: of each true class where its errors went; rows without any are 0."""
    count_ZY = channel.count + 0.0
    diagonal = numbers(count_ZY)
    count_ZY[diagonal, diagonal] = 0.0
    count_ZY /= count_ZY.sum(axis=1).clip(TINY)[:, None]
    return count_ZY


def _sums(logit_BC: Any, label_B: Any, channel: Channel, wrong_YZ: Any) -> np.ndarray:
    """(6,): Σ r, α, β, and of the rows' parts of them Σ α², Σ α β, Σ β²."""
    xp, classes = namespace(logit_BC), logit_BC.shape[1]
    q_BC = softmax(double(logit_BC)) * channel.prior_Z
    q_BC /= q_BC.sum(axis=1)[:, None]
    r_BC = q_BC * channel.rate.T[label_B]
    r_BC /= r_BC.sum(axis=1).clip(TINY)[:, None]
    put(r_BC, label_B, 0.0)
    q_BC = (q_BC + LEAST) / (1 + classes * LEAST)
    log_BC = xp.log(q_BC)
    by_class_BC = double(single(log_BC) @ wrong_YZ)
    own_B = pick(log_BC, label_B)
    log_BC *= q_BC
    by_image_BC = (log_BC.sum(axis=1)[:, None] - log_BC) / (1 - q_BC).clip(TINY)
    alpha_B = (r_BC * (own_B[:, None] - by_class_BC)).sum(axis=1)
    beta_B = (r_BC * (by_image_BC - by_class_BC)).sum(axis=1)
    parts = (r_BC.sum(), alpha_B.sum(), beta_B.sum(), alpha_B @ alpha_B, alpha_B @ beta_B, beta_B @ beta_B)
    return np.array([float(part) for part in parts])


def trust_in_labels(wrong: float) -> float:
    """How far to believe labels that look right or may as well follow a network's errors: w of cleanctl.score.joint.

    wrong: share of the labels that joint holds for wrong. Right labels leave it few. docs/quality.md says what the
    numbers were chosen on.
    """
    return float(np.clip(MOST - PER_WRONG * wrong, *TRUST))
