"""What a training method is to the engine, which calls it and knows nothing else of it.

A method holds its network, the optimisers, and what it keeps of each sample; the engine holds images, the order of
steps, learning rates, tests, checkpoints and the log. The engine calls

    build                 the network before training
    members               who takes part in the first epoch, with which labels
    batches               which samples each step of an epoch sees
    step                  one update on one batch
    end_epoch             who takes part in the next epoch, from a view of every training image; not after the last
    predict               logits of images without augmentation
    state, load_state     what a stopped run needs to go on

Two networks are one module that holds both, and whose forward adds their logits. A step that takes labelled and
unlabelled samples, or two views of a sample, puts both in its batches and tells them apart by `Batch.slot_B`. What
is kept of each sample (a running target, the second network's members) is the method's own and part of its state.

Legend: M readable training samples, B of a batch, K classes, L load size, S image size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cleanctl.runtime import torch_dtype
from cleanctl.train import augment
from cleanctl.train.networks import build_network
from cleanctl.train.ranks import Ranks
from cleanctl.train.recipe import Recipe
from cleanctl.train.sampler import epoch_batches
from cleanctl.train.settings import MethodSettings
from cleanctl.train.transfer import Gathered, send

UNREAD, NOT_A_NUMBER = -1, -2  # in place of a predicted class


@dataclass(frozen=True, kw_only=True)
class Compute:
    """device "cpu" or "cuda"; precision "fp32", "bf16" or "fp16" (autocast, weights stay float32); the processes that
    share the work."""

    device: str
    precision: str = "fp32"
    ranks: Ranks = field(default_factory=Ranks)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch_dtype(self.precision))

    def tensor(self, array: np.ndarray) -> Tensor:
        """The array on the device; a GPU's work does not wait for the copy."""
        return send({"array": array}, self.device)["array"]


@dataclass(frozen=True, kw_only=True)
class Members:
    """member_M: bool, takes part in the next epoch. label_M: int32, the label it takes part with.

    absorbed and relabelled count the samples that joined because the network agrees, and those whose label changed.
    """

    member_M: np.ndarray
    label_M: np.ndarray
    absorbed: int = 0
    relabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a method starts from. label_M: int, as given, or as a person corrected it. selected_M: bool. weights: see
    `networks.build_network`. fixed_M: bool, labels that a person confirmed or gave, None without any.

    settings: the method's own, see settings.py; its defaults fill the rest.
    """

    recipe: Recipe
    num_classes: int
    compute: Compute
    label_M: np.ndarray
    selected_M: np.ndarray
    weights: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    fixed_M: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The images of a step that could be read, on the device.

    image_BCLL: uint8, as the loader gave them; `strong` gives their training view. position_B: int64 in 0…M-1.
    slot_B: int64, their places in the step's planned batch. label_B: int64 on the device, the members' labels.
    rng: of this step alone; torch's generator is seeded from it too. epochs_done: with the share of this epoch, so 2.5
    in the middle of the third.
    """

    image_BCLL: Tensor
    position_B: np.ndarray
    slot_B: np.ndarray
    label_B: Tensor
    rng: np.random.Generator
    epochs_done: float = 0.0
    view_BCSS: Tensor | None = None

    def strong(self, recipe: Recipe) -> Tensor:
        """The training view, float32 (B, 3, S, S) normalised; to be asked for before anything else is drawn.

        view_BCSS where the engine has made it ahead, by what the method's `view_recipe` says."""
        return augment.strong(self.image_BCLL, recipe, self.rng) if self.view_BCSS is None else self.view_BCSS


@dataclass(frozen=True)
class View:
    """Every image of a set without augmentation: `images()` gives positions in 0…count-1 and normalised images."""

    count: int
    images: Callable[[], Iterator[tuple[np.ndarray, Tensor]]]

    def predictions(self, forward: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted class int64 and its softmax probability float32, by position (docs/method.md B.1).

        `forward` gives logits.
        An image that could not be read is UNREAD, one with a NaN among its logits NOT_A_NUMBER; both with −1 for the
        probability, which is below every threshold.
        """
        ((predicted_M, confidence_M),) = self.predictions_of_each([forward])
        return predicted_M, confidence_M

    def predictions_of_each(
        self, forwards: Sequence[Callable[[Tensor], Tensor]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`predictions` of several networks from one reading of the images."""
        found = [(np.full(self.count, UNREAD, np.int64), np.full(self.count, -1, np.float32)) for _ in forwards]
        gathered = [Gathered(*arrays) for arrays in found]
        with torch.inference_mode():
            for position, image in self.images():
                for forward, one in zip(forwards, gathered):
                    top = F.softmax(forward(image), dim=1).max(dim=1)
                    number = ~top.values.isnan()
                    one.put(
                        position,
                        torch.where(number, top.indices, NOT_A_NUMBER),
                        torch.where(number, top.values, -1.0),
                    )
            for one in gathered:
                one.close()
        return found

    def losses(self, forward: Callable[[Tensor], Tensor], label_M: np.ndarray) -> np.ndarray:
        """Cross-entropy float32 (M,) with the labels given; NaN for an image that could not be read."""
        loss_M = np.full(self.count, np.nan, np.float32)
        gathered = Gathered(loss_M)
        with torch.inference_mode():
            for position, image in self.images():
                logit = forward(image)
                label = send({"label": label_M[position].astype(np.int64)}, logit.device)["label"]
                gathered.put(position, F.cross_entropy(logit, label, reduction="none"))
            gathered.close()
        return loss_M


def optimizer_of(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over every parameter of `network`; on a GPU one kernel updates them all."""
    weights = list(network.parameters())
    common: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    fused = True if all(one.is_cuda for one in weights) else None
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(weights, betas=recipe.betas, fused=fused, **common)
    return torch.optim.SGD(weights, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused, **common)


class Method(ABC):
    """One run's method. `options`: fields of TrainConfig that it obeys and others do not. `fixed`: fields of the recipe
    that it sets, whatever the recipe says. `Settings`: the record of its own numbers, with their defaults and ranges.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    fixed: ClassVar[dict[str, Any]] = {}
    Settings: ClassVar[type[MethodSettings]] = MethodSettings

    def __init__(self, setup: Setup) -> None:
        self.setup, self.recipe, self.compute = setup, setup.recipe, setup.compute
        self.settings: Any = self.Settings(**setup.settings)
        network = self.build(setup.recipe, setup.num_classes, weights=setup.weights)
        network = network.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = self.compute.ranks.share(network)
        self.optimizers = self.make_optimizers()
        self.scaler = torch.amp.GradScaler(self.compute.device, enabled=self.compute.precision == "fp16")

    @property
    def images_per_step(self) -> int:
        """Of a full step, for the progress bar."""
        return self.recipe.batch_size

    def view_recipe(self) -> Recipe:
        """Of the view that every step asks its batch for: `batch.strong(self.view_recipe())`."""
        return self.recipe

    @classmethod
    def build(cls, recipe: Recipe, num_classes: int, *, weights: str | None = None) -> nn.Module:
        """(B, 3, S, S) normalised → (B, K) logits. A finished run is opened with it, and its weights filled in."""
        return build_network(recipe.network, num_classes, weights=weights, image_size=recipe.image_size)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Their learning rates are set by the engine before each step."""
        return [optimizer_of(self.recipe, self.network)]

    def members(self) -> Members:
        """The selection, with the given labels."""
        return Members(member_M=self.setup.selected_M.copy(), label_M=self.setup.label_M.astype(np.int32))

    def batches(self, members: Members, ok_M: np.ndarray, *, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Positions for each of `steps` steps, drawn by the recipe's sampler. ok_M: bool, can be read."""
        member_n = np.flatnonzero(members.member_M & ok_M)
        return list(
            epoch_batches(
                member_n,
                members.label_M[member_n],
                sampler=self.recipe.sampler,
                steps=steps,
                batch_size=self.recipe.batch_size,
                rng=rng,
            )
        )

    @abstractmethod
    def step(self, batch: Batch) -> Tensor:
        """One update; returns the mean loss of the batch, detached. Must not make a GPU wait."""

    def logits(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) normalised → (B, K) float32 logits, in the run's precision."""
        with self.compute.autocast():
            logit: Tensor = self.network(image)
        return logit.float()

    def update(self, loss: Tensor) -> None:
        """The usual end of a step: backward and one step of each optimiser, with loss scaling in fp16."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.compute.ranks.add_gradients(self.network)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()

    def end_epoch(self, view: View, members: Members, done: int) -> Members:
        """The members of the next epoch; the network is in evaluation mode. done: number of epochs that are over."""
        return members

    def predict(self, image: Tensor) -> Tensor:
        """`logits` of images without augmentation, in evaluation mode."""
        return self.logits(image)

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and text only: it is read back with weights_only."""
        return {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
