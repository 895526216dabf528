"""DivideMix (Li et al. 2020) with the selection as its fixed division (docs/method.md B.6: CLIPCleaner + DivideMix).

The selected samples are the labelled set, the rest the unlabelled one, for both networks and for the whole run. Each
step moves both networks, each on a draw of its own: the unlabelled get what both networks guess of two views, the
labelled keep their labels (refinement weight 1), and MixMatch mixes the two. The first epochs warm up on given labels.

Legend: B of a network's share of a step, K classes. A network's share of a step, in this order: labelled, first and
second view; unlabelled, first and second view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from cleanctl.train.methods.method import Batch, Members, Setup, View
from cleanctl.train.methods.pair import PairMethod, both, full_batches, shares
from cleanctl.train.mixup import draw_lambda, mix, one_hot, soft_cross_entropy
from cleanctl.train.settings import MethodSettings


@dataclass(frozen=True, kw_only=True)
class DivideMixSettings(MethodSettings):
    """The recipe's mixup β is that of MixMatch (published: 4 on CIFAR, 0.5 on Clothing1M)."""

    temperature: Annotated[float, Field(gt=0, le=10, description="T, sharpens guesses and refined labels")] = 0.5
    lambda_u: Annotated[
        float, Field(ge=0, le=10_000, description="weight of the unlabelled loss at the end of its ramp")
    ] = 25.0
    rampup: Annotated[
        float, Field(ge=0, le=100_000, description="epochs after the warm-up in which that weight rises from 0")
    ] = 16.0
    warmup: Annotated[int, Field(ge=0, le=100_000, description="epochs of cross-entropy on given labels first")] = 1
    warmup_on: Annotated[Literal["all", "selected"], Field(description="whose given labels these epochs learn")] = "all"
    entropy_weight: Annotated[
        float, Field(ge=0, le=1000, description="weight of the warm-up's negative-entropy penalty")
    ] = 1.0
    refinement_weight: Annotated[
        float, Field(ge=0, le=1, description="share of the given label in a selected sample's target")
    ] = 1.0
    prior_weight: Annotated[
        float, Field(ge=0, le=1000, description="weight of the penalty that keeps mean predictions uniform")
    ] = 1.0


class DivideMix(PairMethod):
    Settings = DivideMixSettings
    settings: DivideMixSettings

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.done = 0  # epochs
        self.unlabelled = not setup.selected_M.all()

    @property
    def images_per_step(self) -> int:
        return sum(self._sizes())

    def _sizes(self) -> tuple[int, ...]:
        """Of the parts of a step's planned batch, both networks' one after another."""
        size = self.recipe.batch_size
        if self.done < self.settings.warmup:
            return (size,) * 2
        return (size,) * (8 if self.unlabelled else 4)

    def batches(self, members: Members, ok_M: np.ndarray, *, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        labelled_M = self.setup.selected_M
        if self.done < self.settings.warmup:
            taught_M = np.ones_like(labelled_M) if self.settings.warmup_on == "all" else labelled_M
            plan = [self._draw(taught_M & ok_M, "shuffled", steps, rng) for _ in self.network.each]
            return list(np.concatenate(plan, axis=1))
        self.unlabelled, plan = bool((~labelled_M & ok_M).any()), []
        for _ in self.network.each:
            plan += [self._draw(labelled_M & ok_M, self.recipe.sampler, steps, rng)] * 2
            if self.unlabelled:
                plan += [self._draw(~labelled_M & ok_M, "shuffled", steps, rng)] * 2
        return list(np.concatenate(plan, axis=1))

    def _draw(self, member_M: np.ndarray, sampler: str, steps: int, rng: np.random.Generator) -> np.ndarray:
        member_n = np.flatnonzero(member_M)
        label_n = self.setup.label_M[member_n]
        return full_batches(member_n, label_n, sampler=sampler, steps=steps, batch_size=self.recipe.batch_size, rng=rng)

    # ---- a step

    def step(self, batch: Batch) -> Tensor:
        image = batch.strong(self.recipe)
        parts = shares(batch.slot_B, self._sizes())
        per_network = len(parts) // 2
        losses = []
        for which in (0, 1):
            own = parts[which * per_network : (which + 1) * per_network]
            if self.done < self.settings.warmup:
                loss = self._warmup_loss(which, image, batch, own[0][own[0] >= 0])
            else:
                loss = self._mixmatch_loss(which, image, batch, own)
            losses += [] if loss is None else [loss]
        return self.update_both(losses)

    def _warmup_loss(self, which: int, image: Tensor, batch: Batch, at: np.ndarray) -> Tensor | None:
        if len(at) < 2:  # one image alone has no variance for batch normalisation
            return None
        logit = self.logits_of(which, self.part(image, at))
        return warmup_loss(logit, self.part(batch.label_B, at), entropy_weight=self.settings.entropy_weight)

    def _mixmatch_loss(self, which: int, image: Tensor, batch: Batch, own: list[np.ndarray]) -> Tensor | None:
        labelled = both(own[0], own[1])
        if not len(labelled[0]):
            return None
        views = [self.part(image, at) for at in labelled]
        target = self._refined(which, views, self.part(batch.label_B, labelled[0]))
        targets, count = [target, target], 2 * len(target)
        if len(own) == 4 and len((unlabelled := both(own[2], own[3]))[0]) > 1:
            guessed = [self.part(image, at) for at in unlabelled]
            target = self._guess(which, guessed)
            views, targets = views + guessed, [*targets, target, target]
        return self._mixed_loss(which, torch.cat(views), torch.cat(targets), count, batch)

    def _mixed_loss(self, which: int, image: Tensor, target: Tensor, count: int, batch: Batch) -> Tensor:
        """count: labelled views at the front of `image`. Without an unlabelled loss only they go through the network,
        mixed with any view, as in the code for Clothing1M."""
        settings = self.settings
        lam = draw_lambda(self.recipe.mixup_beta, batch.rng)
        partner = self.compute.tensor(batch.rng.permutation(len(image)))
        image, target = mix(image, target, lam, partner)
        weight = unlabelled_weight(
            batch.epochs_done - settings.warmup, lambda_u=settings.lambda_u, rampup=settings.rampup
        )
        if settings.lambda_u == 0:
            image, target = image[:count], target[:count]
        logit = self.logits_of(which, image)
        loss = soft_cross_entropy(logit[:count], target[:count])
        if weight and len(logit) > count:
            loss = loss + weight * unlabelled_loss(logit[count:], target[count:])
        return loss + settings.prior_weight * prior_penalty(logit)

    @torch.no_grad()
    def _refined(self, which: int, views: list[Tensor], label_B: Tensor) -> Tensor:
        """Co-refinement: w·label + (1 − w)·what the network itself says of both views, sharpened."""
        target = one_hot(label_B, self.setup.num_classes)
        weight = self.settings.refinement_weight
        if weight == 1:  # a one-hot label stays itself when it is sharpened
            return target
        said = torch.stack([F.softmax(self.logits_of(which, view), dim=1) for view in views]).mean(dim=0)
        return sharpen(weight * target + (1 - weight) * said, self.settings.temperature)

    @torch.no_grad()
    def _guess(self, which: int, views: list[Tensor]) -> Tensor:
        """Co-guessing: the mean of what both networks say of both views, sharpened; the other one in evaluation."""
        other = self.network.each[1 - which]
        other.eval()
        said = [F.softmax(self.logits_of(one, view), dim=1) for one in (which, 1 - which) for view in views]
        other.train()
        return sharpen(torch.stack(said).mean(dim=0), self.settings.temperature)

    # ---- between epochs

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        self.done = done
        return members

    def state(self) -> dict[str, Any]:
        return {**super().state(), "done": self.done}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.done = state["done"]


def sharpen(prob_BK: Tensor, temperature: float) -> Tensor:
    """p^(1/T), normalised."""
    powered = prob_BK ** (1 / temperature)
    return powered / powered.sum(dim=1, keepdim=True)


def unlabelled_weight(epochs: float, *, lambda_u: float, rampup: float) -> float:
    """λ_u·min(epochs/rampup, 1), epochs since the warm-up ended."""
    return lambda_u * (min(max(epochs / rampup, 0.0), 1.0) if rampup else 1.0)


def unlabelled_loss(logit_BK: Tensor, target_BK: Tensor) -> Tensor:
    """Mean over samples and classes of (softmax − target)²."""
    return (F.softmax(logit_BK, dim=1) - target_BK).square().mean()


def prior_penalty(logit_BK: Tensor) -> Tensor:
    """Σ_k π_k·ln(π_k / mean softmax_k) with the uniform prior π: KL from the batch's mean prediction."""
    num_classes = logit_BK.shape[1]
    mean_K = F.softmax(logit_BK, dim=1).mean(dim=0)
    return -(mean_K.clamp_min(1e-12) * num_classes).log().mean()


def warmup_loss(logit_BK: Tensor, label_B: Tensor, *, entropy_weight: float) -> Tensor:
    """Cross-entropy + weight·mean Σ_k p·ln p, which keeps the network from being sure."""
    log_BK = F.log_softmax(logit_BK, dim=1)
    negative_entropy = (log_BK.exp() * log_BK).sum(dim=1).mean()
    return F.cross_entropy(logit_BK, label_B) + entropy_weight * negative_entropy
