"""A training method of another package, in one file: two networks that teach each other, and a target a sample.

Network 0 learns the batch's even places, network 1 the odd ones. Each sample's target is a
running mean of what the other network said of it (as in ELR), which a resumed run must find again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cleanctl.train import augment
from cleanctl.train.methods.method import Batch, Members, Method, Setup, View


class Pair(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.each = nn.ModuleList([first, second])

    def forward(self, x: Tensor) -> Tensor:
        return self.each[0](x) + self.each[1](x)


class Toy(Method):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.target_MK = F.one_hot(torch.from_numpy(setup.label_M).long(), setup.num_classes).float()
        self.second = self.members()

    @classmethod
    def build(cls, recipe, num_classes: int, *, weights: str | None = None) -> nn.Module:
        one = super().build(recipe, num_classes, weights=weights)
        return Pair(one, super().build(recipe, num_classes, weights=weights))

    def batches(self, members: Members, ok_M: np.ndarray, *, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        halves = [super(Toy, self).batches(one, ok_M, steps=steps, rng=rng) for one in (members, self.second)]
        return [np.stack([a[: min(len(a), len(b))], b[: min(len(a), len(b))]], axis=1).ravel() for a, b in zip(*halves)]

    def step(self, batch: Batch) -> Tensor:
        image = augment.strong(batch.image_BCLL, self.recipe, batch.rng)
        first_B = torch.from_numpy(batch.slot_B % 2 == 0)
        loss = torch.zeros(())
        for network, other, mine_B in zip(self.network.each, reversed(self.network.each), (first_B, ~first_B)):
            if mine_B.sum() > 1:
                position = batch.position_B[mine_B.numpy()]
                with torch.no_grad():
                    said = F.softmax(other(image[mine_B]), dim=1)
                self.target_MK[position] = 0.9 * self.target_MK[position] + 0.1 * said
                loss = loss + F.cross_entropy(network(image[mine_B]), self.target_MK[position])
        self.update(loss)
        return loss.detach()

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        found = []
        for network in self.network.each:
            predicted_M, confidence_M = view.predictions(network)
            joins_M = (predicted_M == self.setup.label_M) & (confidence_M > 0.5)
            found.append(Members(member_M=self.setup.selected_M | joins_M, label_M=members.label_M))
        self.second = found[0]
        return found[1]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "target": self.target_MK, "second": torch.from_numpy(self.second.member_M)}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.target_MK = state["target"]
        self.second = Members(member_M=state["second"].numpy(), label_M=self.second.label_M)
