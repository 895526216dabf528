"""Co-training (docs/method.md B.6): two networks, each on the members and labels that the other's predictions give.

MixFix's rules, thresholds and mixed batches; only who asks whom differs. The paper gives the result and no procedure:
this is our reading. Legend: M readable training samples, B of a network's share of a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cleanctl.train.methods import mixfix
from cleanctl.train.methods.cross_entropy import mixed
from cleanctl.train.methods.method import Batch, Members, Setup, View
from cleanctl.train.methods.pair import PairMethod, full_batches, shares
from cleanctl.train.mixup import soft_cross_entropy


class CoTraining(PairMethod):
    """The engine's members are network 0's, and so are the log's counts; network 1's are kept here."""

    options = mixfix.MixFix.options

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._keep_second(self.members())

    @property
    def images_per_step(self) -> int:
        return 2 * self.recipe.batch_size

    def _keep_second(self, members: Members) -> None:
        self.second = members
        self._second_label_M = self.compute.tensor(members.label_M.astype(np.int64))

    def batches(self, members: Members, ok_M: np.ndarray, *, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Network 0's share, then network 1's, each of a full batch."""
        drawn = []
        for one in (members, self.second):
            member_n = np.flatnonzero(one.member_M & ok_M)
            drawn.append(
                full_batches(
                    member_n,
                    one.label_M[member_n],
                    sampler=self.recipe.sampler,
                    steps=steps,
                    batch_size=self.recipe.batch_size,
                    rng=rng,
                )
            )
        return list(np.concatenate(drawn, axis=1))

    def step(self, batch: Batch) -> Tensor:
        image = batch.strong(self.recipe)
        size = self.recipe.batch_size
        losses = []
        for which, share in enumerate(shares(batch.slot_B, (size, size))):
            at = share[share >= 0]
            if len(at) < 2:  # one image alone has no variance for batch normalisation
                continue
            if which == 0:
                label = self.part(batch.label_B, at)
            else:
                label = self._second_label_M[self.compute.tensor(batch.position_B[at])]
            view, target = mixed(self, self.part(image, at), label, batch.rng)
            losses.append(soft_cross_entropy(self.logits_of(which, view), target))
        return self.update_both(losses)

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        if not mixfix.looks(self.recipe, done):
            return members
        forwards = [lambda image, which=which: self.logits_of(which, image) for which in (0, 1)]
        by_first, by_second = (
            mixfix.by_recipe(self.setup, predicted_M, confidence_M)
            for predicted_M, confidence_M in view.predictions_of_each(forwards)
        )
        self._keep_second(by_first)
        return by_second

    def state(self) -> dict[str, Any]:
        second = {
            "member": torch.from_numpy(self.second.member_M),
            "label": torch.from_numpy(self.second.label_M),
            "absorbed": self.second.absorbed,
            "relabelled": self.second.relabelled,
        }
        return {**super().state(), "second": second}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        second = state["second"]
        self._keep_second(
            Members(
                member_M=second["member"].cpu().numpy(),
                label_M=second["label"].cpu().numpy(),
                absorbed=second["absorbed"],
                relabelled=second["relabelled"],
            )
        )
