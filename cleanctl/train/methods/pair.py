"""Two networks of one shape as one module, for methods in which each learns from what the other says.

Legend: M readable training samples, B of a network's share of a step, K classes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cleanctl.errors import InputError
from cleanctl.train.methods.method import Method
from cleanctl.train.recipe import Recipe
from cleanctl.train.sampler import epoch_batches


class Pair(nn.Module):
    """Logits are summed, which is how the pair is tested (docs/method.md B.6)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.each = nn.ModuleList([first, second])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.each[0](x) + self.each[1](x)
        return out


class PairMethod(Method):
    """`network` is a Pair; one optimiser moves both, whose parameters have nothing in common."""

    options: ClassVar[frozenset[str]] = frozenset(("mixup_beta",))
    network: Pair

    @classmethod
    def build(cls, recipe: Recipe, num_classes: int, *, weights: str | None = None) -> nn.Module:
        first = super().build(recipe, num_classes, weights=weights)
        return Pair(first, super().build(recipe, num_classes, weights=weights))

    def logits_of(self, which: int, image: Tensor) -> Tensor:
        """(B, 3, S, S) normalised → (B, K) float32 logits of network 0 or 1."""
        with self.compute.autocast():
            logit: Tensor = self.network.each[which](image)
        return logit.float()

    def update_both(self, losses: list[Tensor]) -> Tensor:
        """One update by each network's own loss; their mean, detached. No losses where too few images could be read."""
        if not losses:
            return torch.zeros((), device=self.compute.device)
        loss = torch.stack(losses)
        self.update(loss.sum())
        return loss.detach().mean()

    def part(self, tensor_B: Tensor, at: np.ndarray) -> Tensor:
        """tensor_B[at] along the batch, without a copy where `at` is a range."""
        if len(at) and at[-1] - at[0] == len(at) - 1 and (np.diff(at) == 1).all():
            return tensor_B[int(at[0]) : int(at[-1]) + 1]
        return torch.index_select(tensor_B, 0, self.compute.tensor(at))


def full_batches(
    member_n: np.ndarray,
    label_n: np.ndarray,
    *,
    sampler: str,
    steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """int64 (steps, batch_size) of the values in `member_n`, pass after pass (sampler.py), none of them partial.

    A batch may end one pass and begin the next: the networks' shares of a step then always have one size. InputError
    without members.
    """
    if not len(member_n):
        raise InputError(
            "No readable image takes part in the training of one of the two networks.",
            do="Make a selection that keeps more: cleanctl select",
        )
    wanted, found, drawn = steps * batch_size, 0, []
    while found < wanted:  # again where partial batches at the ends of passes leave some missing
        for batch in epoch_batches(member_n, label_n, sampler=sampler, steps=steps, batch_size=batch_size, rng=rng):
            drawn.append(batch)
            found += len(batch)
    return np.concatenate(drawn)[:wanted].reshape(steps, batch_size)


def shares(slot_B: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """For each part of a step's planned batch, `sizes` long one after another: where its images lie in the batch.

    slot_B: their places in the plan, rising. A part has −1 where an image could not be read.
    """
    place = np.full(sum(sizes), -1)
    place[slot_B] = np.arange(len(slot_B))
    return np.split(place, np.cumsum(sizes)[:-1])


def both(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two views' places in a batch, for the samples of which both could be read."""
    there = (first >= 0) & (second >= 0)
    return first[there], second[there]
