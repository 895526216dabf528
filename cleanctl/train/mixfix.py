"""MixFix's rule for who takes part in the next epoch, and with which label (docs/method.md B.1). Pure arrays; no files.

Legend: M readable training samples. Every epoch starts again from the given labels, so corrections never pile up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

RelabelScope = Literal["all", "unselected"]


@dataclass(frozen=True, kw_only=True)
class Membership:
    """member_M: bool, takes part in the next epoch. label_M: int32, the label it takes part with.

    absorbed and relabelled count the samples that joined because the network agrees, and those whose label changed.
    """

    member_M: np.ndarray
    label_M: np.ndarray
    absorbed: int = 0
    relabelled: int = 0


def start(label_M: np.ndarray, selected_M: np.ndarray) -> Membership:
    """Epoch 0: the selection, with the given labels."""
    return Membership(member_M=selected_M.copy(), label_M=label_M.astype(np.int32))


def update(
    predicted_M: np.ndarray,
    confidence_M: np.ndarray,
    label_M: np.ndarray,
    selected_M: np.ndarray,
    *,
    theta_absorb: float,
    theta_relabel: float,
    absorb: bool = True,
    relabel: bool = True,
    relabel_scope: RelabelScope = "all",
) -> Membership:
    """The members after an epoch, from the network's view of every sample.

    predicted_M: int, argmax of the softmax. confidence_M: float32 in [0, 1], its maximum. label_M: int, the labels as
    given (never those of an earlier call). selected_M: bool, the selection; it always stays.

    With p the confidence and y the given label: y agreed on and p ≥ theta_absorb joins (Eq. 7's θ_r); y contradicted
    and p ≥ theta_relabel joins with the predicted label (θ_r′). `relabel_scope="all"` lets the second rule change
    selected samples too, as the released code does; "unselected" is the paper's text. `absorb` and `relabel` switch
    the rules off: a threshold of 1 does not, because a float32 softmax reaches 1.0 (docs/method.md F.8).
    """
    agrees_M = predicted_M == label_M
    absorbed_M = agrees_M & (confidence_M >= theta_absorb) & ~selected_M if absorb else np.zeros_like(selected_M)
    relabelled_M = ~agrees_M & (confidence_M >= theta_relabel) if relabel else np.zeros_like(selected_M)
    if relabel_scope == "unselected":
        relabelled_M = relabelled_M & ~selected_M
    return Membership(
        member_M=selected_M | absorbed_M | relabelled_M,
        label_M=np.where(relabelled_M, predicted_M, label_M).astype(np.int32),
        absorbed=int(absorbed_M.sum()),
        relabelled=int(relabelled_M.sum()),
    )
