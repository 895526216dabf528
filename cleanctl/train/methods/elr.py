"""ELR, early-learning regularisation (Liu et al. 2020; docs/method.md C.4): a running target a sample.

The target remembers what the network said of a sample before it learnt the wrong labels by heart, and the penalty
keeps it there. Legend: M readable training samples, B of a batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train.methods.method import Batch, Setup
from cleanctl.train.methods.plain import PlainMethod
from cleanctl.train.settings import MethodSettings

CLAMP = 1e-4


@dataclass(frozen=True, kw_only=True)
class ElrSettings(MethodSettings):
    momentum: Annotated[float, Field(ge=0, lt=1, description="share of the old target that stays")] = 0.3
    weight: Annotated[float, Field(ge=0, le=1000, description="λ, of the penalty")] = 5.0


class EarlyLearning(PlainMethod):
    """Keeps a float32 (M, K) tensor of targets on the device, 4·M·K bytes; part of the state."""

    Settings = ElrSettings
    settings: ElrSettings

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.target_MK = torch.zeros(len(setup.label_M), setup.num_classes, device=self.compute.device)

    def loss(self, logit_BK: Tensor, batch: Batch) -> Tensor:
        at_B = self.compute.tensor(batch.position_B)
        target_BK = moved_target(self.target_MK[at_B], logit_BK, momentum=self.settings.momentum)
        self.target_MK[at_B] = target_BK
        return early_learning_loss(logit_BK, batch.label_B, target_BK, weight=self.settings.weight)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "target": self.target_MK}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.target_MK = state["target"].to(self.compute.device)


def moved_target(target_BK: Tensor, logit_BK: Tensor, *, momentum: float) -> Tensor:
    """m·t + (1−m)·p/Σp with p the softmax, clamped to [1e-4, 1−1e-4]; no gradient."""
    prob_BK = F.softmax(logit_BK.detach(), dim=1).clamp(CLAMP, 1 - CLAMP)
    return momentum * target_BK + (1 - momentum) * prob_BK / prob_BK.sum(dim=1, keepdim=True)


def early_learning_loss(logit_BK: Tensor, label_B: Tensor, target_BK: Tensor, *, weight: float) -> Tensor:
    """Cross-entropy + λ·mean ln(1 − ⟨t, p⟩), p clamped as above."""
    prob_BK = F.softmax(logit_BK, dim=1).clamp(CLAMP, 1 - CLAMP)
    penalty = (1 - (target_BK * prob_BK).sum(dim=1)).log().mean()
    return F.cross_entropy(logit_BK, label_B) + weight * penalty
