"""What the prompts alone say of a label, for the scorer `joint` where labels may follow a network's errors.

Joint's own P(z | i) has a head that was fitted on the labels: where a network made the errors, it has learnt them. The
prompts have not seen a label. Their classes' shares are made those that joint finds in all rows, so that a prompt that
draws images of other classes does not speak against these:
    v(z | i) ∝ c_z softmax(L_i)[z]
    u_i = 1 / (1 + e^h),  h = max_{z ≠ y_i} b_z(i) - max(b_{y_i}(i), 0),  b_z(i) = logit v(z | i) - κ logit t_z
t_z is the mean of v(z | i) over the rows labelled z: how sure the prompts usually are of that class. So u is below one
half where they are nearly as sure of one other class as they usually are, and not where they are merely unsure.
c and t are of the sample, which every part has whole. Leaves nothing on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array_like, namespace, pick, put

from cleanctl.score.joint_arrays import double, row_max, softmax
from cleanctl.score.joint_channel import TINY, Channel, Kept

KAPPA = 0.4
LEARNT = (0.005, 0.02)  # shares of labels held for wrong: all may have been learnt, none has
STEPS, ROWS = 20, 5.0  # ROWS: at the mean of t, that a class's t is worth before any is seen
LEAST = 1e-6  # of v, whose log odds are taken


@dataclass(frozen=True, kw_only=True)
class ByPrompts:
    """kept: softmax(L) of the part's rows. factor_C: c. bound_C: κ logit t. alone: how far P rests on u, 0 to 1."""

    kept: Kept
    factor_C: Any
    bound_C: Any
    alone: float

    def of(self, rows: slice) -> Any:
        """v (B, C) float64 of some rows."""
        return _shared(double(self.kept.likelihood(rows)), self.factor_C)

    def allows(self, v_BC: Any, label_B: Any) -> Any:
        """u (B,) float64."""
        beyond_BC = _log_odds(v_BC) - self.bound_C
        own_B = pick(beyond_BC, label_B).clip(0.0)
        put(beyond_BC, label_B, -np.inf)
        return 1.0 / (1.0 + namespace(v_BC).exp(row_max(beyond_BC)[:, 0] - own_B))


def by_prompts(kept: Kept, logit_MC: Any, label_M: np.ndarray, share_C: Any, wrong: float) -> ByPrompts:
    """logit_MC: L of the sample. share_C: mean of joint's P(z | i). wrong: share of the labels that joint holds for
    wrong."""
    label, classes = as_array_like(label_M, logit_MC), logit_MC.shape[1]
    v_MC, factor_C = softmax(double(logit_MC)), share_C * 0.0 + 1.0
    for _ in range(STEPS):
        step_C = share_C / v_MC.sum(axis=0).clip(TINY)
        v_MC = _shared(v_MC, step_C)
        factor_C = factor_C * step_C
        factor_C *= classes / factor_C.sum()
    own_M, xp = pick(v_MC, label), namespace(v_MC)
    sure_C = xp.bincount(label, own_M, minlength=classes) + ROWS * own_M.sum() / len(own_M)
    sure_C /= xp.bincount(label, own_M * 0.0 + 1.0, minlength=classes) + ROWS
    return ByPrompts(kept=kept, factor_C=factor_C, bound_C=KAPPA * _log_odds(sure_C), alone=may_be_learnt(wrong))


def may_be_learnt(wrong: float) -> float:
    """How far a head that finds next to no wrong label may have learnt them all: 1 at LEARNT's first share or less, 0
    from its second on. docs/quality.md says what the numbers were chosen on."""
    low, high = LEARNT
    return float(np.clip((high - wrong) / (high - low), 0.0, 1.0))


def share_of_classes(logit_MC: Any, channel: Channel) -> Any:
    """(C,) float64: mean of P(z | i) over the sample. logit_MC: without the shares that the channel found."""
    q_MC = _shared(softmax(double(logit_MC)), channel.prior_Z)
    return q_MC.sum(axis=0) / len(q_MC)


def _shared(v_BC: Any, factor_C: Any) -> Any:
    v_BC *= factor_C
    v_BC /= v_BC.sum(axis=1)[:, None].clip(TINY)
    return v_BC


def _log_odds(p: Any) -> Any:
    p = p.clip(LEAST, 1 - LEAST)
    return namespace(p).log(p / (1 - p))
