"""What baselines share that differ in their loss alone: members in random order, one augmented view, no mixup."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from cleanctl.train.methods.method import Batch, Method


class PlainMethod(Method):
    """Takes part: the selection, with its given labels; `--selection all` is what the papers compare with."""

    fixed: ClassVar[dict[str, Any]] = {"sampler": "shuffled", "mixup_beta": 0.0, "absorb": False, "relabel": False}

    def step(self, batch: Batch) -> Tensor:
        logit = self.logits(batch.strong(self.recipe))
        loss = self.loss(logit, batch)
        self.update(loss)
        return loss.detach()

    @abstractmethod
    def loss(self, logit_BK: Tensor, batch: Batch) -> Tensor:
        """The mean loss of the step's batch from float32 logits, a scalar."""
