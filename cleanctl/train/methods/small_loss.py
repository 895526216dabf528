"""Small-loss selection inside each batch (docs/method.md C.4): samples of large loss teach nothing in that step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train.methods.method import Batch
from cleanctl.train.methods.plain import PlainMethod
from cleanctl.train.settings import MethodSettings


@dataclass(frozen=True, kw_only=True)
class SmallLossSettings(MethodSettings):
    noise_ratio: Annotated[float, Field(ge=0, lt=1, description="R, the share of labels that are taken for wrong")]
    warmup: Annotated[int, Field(ge=1, le=100_000, description="epochs over which the share dropped rises to R")] = 1


class SmallLoss(PlainMethod):
    Settings = SmallLossSettings
    settings: SmallLossSettings

    def loss(self, logit_BK: Tensor, batch: Batch) -> Tensor:
        dropped = dropped_share(
            int(batch.epochs_done), noise_ratio=self.settings.noise_ratio, warmup=self.settings.warmup
        )
        return small_loss(logit_BK, batch.label_B, dropped=dropped)


def dropped_share(epoch: int, *, noise_ratio: float, warmup: int) -> float:
    """R_t = R·min(t/warmup, 1), epochs t counted from 0: the first one keeps everything."""
    return noise_ratio * min(epoch / warmup, 1.0)


def small_loss(logit_BK: Tensor, label_B: Tensor, *, dropped: float) -> Tensor:
    """Mean cross-entropy of the ⌊(1 − dropped)·B⌋ samples of smallest loss, at least one."""
    loss_B = F.cross_entropy(logit_BK, label_B, reduction="none")
    kept = max(math.floor((1 - dropped) * len(loss_B) + 1e-9), 1)
    return loss_B.topk(kept, largest=False).values.mean()
