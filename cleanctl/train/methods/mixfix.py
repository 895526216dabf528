"""MixFix: after every epoch, samples that the network is sure of join or change their label (docs/method.md B.1).

Legend: M readable training samples. Every epoch starts again from the given labels, so corrections never pile up.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from cleanctl.train.methods.cross_entropy import CrossEntropy
from cleanctl.train.methods.method import Members, Setup, View
from cleanctl.train.recipe import Recipe

RelabelScope = Literal["all", "unselected"]


class MixFix(CrossEntropy):
    """Class-balanced, mixed batches of the members, which `update` finds anew after each epoch."""

    options = frozenset(("mixup_beta", "theta_absorb", "theta_relabel", "absorb", "relabel", "relabel_scope"))
    fixed: ClassVar[dict[str, Any]] = {}

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        if not looks(self.recipe, done):
            return members
        return by_recipe(self.setup, *view.predictions(self.predict))


def looks(recipe: Recipe, done: int) -> bool:
    """Whether the members change after `done` epochs."""
    return done >= recipe.first_update and (recipe.absorb or recipe.relabel)


def by_recipe(setup: Setup, predicted_M: np.ndarray, confidence_M: np.ndarray) -> Members:
    """`update` with what the recipe says. No network corrects a label that a person confirmed or gave."""
    recipe = setup.recipe
    if setup.fixed_M is not None:
        predicted_M = np.where(setup.fixed_M, setup.label_M, predicted_M)
    return update(
        predicted_M,
        confidence_M,
        setup.label_M,
        setup.selected_M,
        theta_absorb=recipe.theta_absorb,
        theta_relabel=recipe.theta_relabel,
        absorb=recipe.absorb,
        relabel=recipe.relabel,
        relabel_scope=recipe.relabel_scope,
    )


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
) -> Members:
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
    return Members(
        member_M=selected_M | absorbed_M | relabelled_M,
        label_M=np.where(relabelled_M, predicted_M, label_M).astype(np.int32),
        absorbed=int(absorbed_M.sum()),
        relabelled=int(relabelled_M.sum()),
    )
