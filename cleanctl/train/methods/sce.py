"""SCE, symmetric cross-entropy (Wang et al. 2019; docs/method.md C.4): α·H(label, p) + β·H(p, label)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train.methods.method import Batch
from cleanctl.train.methods.plain import PlainMethod
from cleanctl.train.mixup import one_hot
from cleanctl.train.settings import MethodSettings

LEAST_PROBABILITY, LEAST_TARGET = 1e-7, 1e-4


@dataclass(frozen=True, kw_only=True)
class SceSettings(MethodSettings):
    alpha: Annotated[float, Field(ge=0, le=1000, description="weight of the cross-entropy")] = 1.0
    beta: Annotated[float, Field(ge=0, le=1000, description="weight of the reverse cross-entropy")] = 1.0


class SymmetricCrossEntropy(PlainMethod):
    Settings = SceSettings
    settings: SceSettings

    def loss(self, logit_BK: Tensor, batch: Batch) -> Tensor:
        return symmetric_cross_entropy(logit_BK, batch.label_B, alpha=self.settings.alpha, beta=self.settings.beta)


def symmetric_cross_entropy(logit_BK: Tensor, label_B: Tensor, *, alpha: float, beta: float) -> Tensor:
    """α·mean(−ln p_y) + β·mean(−Σ_k p_k·ln t_k), with p clamped to [1e-7, 1] and the one-hot t to [1e-4, 1]."""
    prob_BK = F.softmax(logit_BK, dim=1).clamp(LEAST_PROBABILITY, 1.0)
    target_BK = one_hot(label_B, logit_BK.shape[1]).to(prob_BK).clamp(LEAST_TARGET, 1.0)
    reverse = -(prob_BK * target_BK.log()).sum(dim=1).mean()
    return alpha * F.cross_entropy(logit_BK, label_B) + beta * reverse
