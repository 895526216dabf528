"""The second phase of DeFT (docs/method.md C.3): a pretrained network is trained on the selection alone.

Every readable sample goes through the batches once an epoch, in random order, and the loss is the mean cross-entropy
of a batch's selected samples; so a step sees fewer of them where fewer were selected, as published. With `fixmatch` the
others take part without their labels (Sohn et al. 2020): what the network says of a weak view, where it is sure, is the
label of a strong view.

Legend: B of a batch, M readable training samples, K classes; U of a batch's samples are not selected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train import augment
from cleanctl.train.methods.method import Batch, Members, Method
from cleanctl.train.recipe import Recipe
from cleanctl.train.settings import MethodSettings

STRONG: Literal["randaugment"] = "randaugment"  # where the recipe has no policy of its own


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(MethodSettings):
    """The thresholds are FixMatch's own; what DeFT took is not published."""

    fixmatch: Annotated[bool, Field(description="rejected samples take part, without their labels")] = False
    threshold: Annotated[float, Field(ge=0, le=1, description="FixMatch: least probability of a pseudo-label")] = 0.95
    weight: Annotated[float, Field(ge=0, le=1000, description="FixMatch: of the loss of rejected samples")] = 1.0


class Finetune(Method):
    """Members are the selection, with the given labels, from the first epoch to the last."""

    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "mixup_beta": 0.0, "absorb": False, "relabel": False}
    Settings = FinetuneSettings
    settings: FinetuneSettings

    def batches(self, members: Members, ok_M: np.ndarray, *, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        """All readable samples in one random order, and again in another where the steps take more than there are."""
        readable = np.flatnonzero(ok_M)
        size = self.recipe.batch_size
        rounds = -(-steps * size // len(readable))
        order = np.concatenate([rng.permutation(readable) for _ in range(rounds)])
        return np.split(order[: steps * size], steps)

    def step(self, batch: Batch) -> Tensor:
        """Every image goes through the network, so that batch norms see all of them, as published."""
        selected_B = self.setup.selected_M[batch.position_B]
        image = batch.strong(self.view_recipe())
        at_B = self.compute.tensor(np.flatnonzero(selected_B))
        rest_B = self.compute.tensor(np.flatnonzero(~selected_B))
        if self.settings.fixmatch and len(rest_B):
            strong = augment.strong(batch.image_BCLL[rest_B], self._strong(), batch.rng)
            logit_BK, strong_UK = self.logits(torch.cat([image, strong])).split([len(image), len(strong)])
            other = self.settings.weight * fixmatch_loss(logit_BK[rest_B], strong_UK, threshold=self.settings.threshold)
        else:
            logit_BK = self.logits(image)
            other = logit_BK[:0].sum()  # of nothing
        loss = selected_loss(logit_BK, batch.label_B, at_B) + other
        self.update(loss)
        return loss.detach()

    def view_recipe(self) -> Recipe:
        """With FixMatch the first view is crop and flip alone, whatever the recipe's policy."""
        return replace(self.recipe, policy="none") if self.settings.fixmatch else self.recipe

    def _strong(self) -> Recipe:
        return replace(self.recipe, policy=STRONG) if self.recipe.policy == "none" else self.recipe


def selected_loss(logit_BK: Tensor, label_B: Tensor, at_S: Tensor) -> Tensor:
    """Mean cross-entropy of the selected samples of a batch; zero, with a gradient of zero, where there are none."""
    if not len(at_S):
        return logit_BK[:0].sum()
    return F.cross_entropy(logit_BK[at_S], label_B[at_S])


def fixmatch_loss(weak_UK: Tensor, strong_UK: Tensor, *, threshold: float) -> Tensor:
    """Mean over U of [max p ≥ threshold]·CE(strong, argmax p), p the softmax of the weak view without gradient."""
    confidence_U, label_U = F.softmax(weak_UK.detach(), dim=1).max(dim=1)
    loss_U = F.cross_entropy(strong_UK, label_U, reduction="none")
    return (loss_U * (confidence_U >= threshold)).mean()
