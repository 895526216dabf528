"""The training loop: steps of an epoch, prediction of a set, and the state that lets both stop at any step.

Legend: M readable training samples, B of a batch, K classes, L load size. Random choices of a step come from
(seed, epoch, step) alone, never from what ran before it: a resumed run draws what an uninterrupted one draws, and no
generator has to be saved. On a CPU the numbers are then the same to the last bit, for one number of threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cleanctl.errors import InputError
from cleanctl.progress import Task
from cleanctl.runtime import StopFlag, torch_dtype
from cleanctl.train import augment, mixfix
from cleanctl.train.mixup import draw_lambda, mix, soft_cross_entropy
from cleanctl.train.pixels import Pixels, Stopped
from cleanctl.train.recipe import Recipe, learning_rate
from cleanctl.train.sampler import epoch_batches

PREDICT_BATCH = 500
KEEP_SECONDS = 300


@dataclass
class State:
    """How far a run is: `step` steps of `epoch` (from 0) are done. Counts belong to that epoch."""

    membership: mixfix.Membership
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """device "cpu" or "cuda"; precision "fp32", "bf16" or "fp16" (autocast, weights stay float32)."""

    device: str
    precision: str

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch_dtype(self.precision))


class Trainer:
    """A network in training. `pixels` give the images by position 0…M-1; `label_M` are the labels as given."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        machine: Machine,
        *,
        pixels: Pixels,
        num_classes: int,
        seed: int,
        steps: int,
    ) -> None:
        self.network = network.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.machine = machine
        self.pixels = pixels
        self.num_classes = num_classes
        self.seed = seed
        self.steps = steps
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(machine.device, enabled=machine.precision == "fp16")

    def train_epoch(self, state: State, task: Task, stop: StopFlag, keep: Callable[[], None]) -> None:
        """The steps of `state.epoch` that are left; raises Stopped after the step in which a stop was asked for.

        `keep` saves the state; it is called when that was last done KEEP_SECONDS ago, so that a kill in an epoch of
        hours costs minutes.
        """
        self.network.train()
        began = time.perf_counter() - state.seconds
        kept_at = time.perf_counter()
        loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=self.machine.device)
        try:
            for position, pixel in self.pixels.batches(self._batches_left(state)):
                if len(position):
                    # Summed on the device, in order: reading each loss would make a GPU wait.
                    loss_sum += self._step(pixel, self._labels(state, position), state.epoch, state.step)
                state.step += 1
                state.seen += len(position)
                state.seconds = time.perf_counter() - began
                task.advance(len(position))
                if time.perf_counter() - kept_at > KEEP_SECONDS:
                    state.loss_sum = float(loss_sum)
                    keep()
                    kept_at = time.perf_counter()
                if stop:
                    raise Stopped
        finally:
            state.loss_sum = float(loss_sum)

    def _labels(self, state: State, position: np.ndarray) -> Tensor:
        return torch.from_numpy(state.membership.label_M[position].astype(np.int64)).to(self.machine.device)

    def _batches_left(self, state: State) -> list[np.ndarray]:
        membership = state.membership
        member_n = np.flatnonzero(membership.member_M & self.pixels.ok_M)
        if len(member_n) == 0:
            raise InputError(
                "No readable image takes part in training.", do="Make a selection that keeps some: cleanctl select"
            )
        batches = epoch_batches(
            member_n,
            membership.label_M[member_n],
            sampler=self.recipe.sampler,
            steps=self.steps,
            batch_size=self.recipe.batch_size,
            rng=np.random.default_rng([self.seed, state.epoch]),
        )
        return list(batches)[state.step :]

    def _step(self, pixel_BLLC: Tensor, label_B: Tensor, epoch: int, step: int) -> Tensor:
        """One update; gives the summed loss of the batch, float64 on the device."""
        rng = np.random.default_rng([self.seed, epoch, step])
        torch.manual_seed(int(rng.integers(2**62)))  # dropout and the like
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, epoch, step, self.steps)
        image = augment.strong(pixel_BLLC.permute(0, 3, 1, 2), self.recipe, rng)
        target = F.one_hot(label_B, self.num_classes).float()
        lam = draw_lambda(self.recipe.mixup_beta, rng)
        partner = torch.from_numpy(rng.permutation(len(label_B))).to(label_B.device)
        image, target = mix(image, target, lam, partner)
        with self.machine.autocast():
            logit = self.network(image)
        loss = soft_cross_entropy(logit, target)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().double() * len(label_B)

    def predict(self, pixels: Pixels, count: int, stop: StopFlag) -> tuple[np.ndarray, np.ndarray]:
        """Of positions 0…count-1: predicted class int64 and its softmax probability float32; −1 for both where unread.

        docs/method.md B.1: the network in evaluation mode, images without augmentation, softmax in float32.
        """
        predicted = np.full(count, -1, np.int64)
        confidence = np.full(count, -1, np.float32)  # below every threshold
        for position, logit in self._logits(pixels, count, stop):
            top = F.softmax(logit, dim=1).max(dim=1)
            predicted[position] = top.indices.cpu().numpy()
            confidence[position] = top.values.cpu().numpy()
        return predicted, confidence

    def _logits(self, pixels: Pixels, count: int, stop: StopFlag) -> Iterator[tuple[np.ndarray, Tensor]]:
        self.network.eval()
        batches = [np.arange(at, min(at + PREDICT_BATCH, count)) for at in range(0, count, PREDICT_BATCH)]
        with torch.inference_mode():
            for position, pixel in pixels.batches(batches):
                if stop:
                    raise Stopped
                if len(position):
                    image = augment.plain(pixel.permute(0, 3, 1, 2), self.recipe)
                    with self.machine.autocast():
                        logit = self.network(image)
                    yield position, logit.float()


def save(trainer: Trainer, state: State) -> dict[str, Any]:
    """The run's state as tensors, numbers and text: loads with weights_only."""
    return {
        "network": trainer.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "epoch": state.epoch,
        "step": state.step,
        "loss_sum": state.loss_sum,
        "seen": state.seen,
        "seconds": state.seconds,
        "member": torch.from_numpy(state.membership.member_M),
        "label": torch.from_numpy(state.membership.label_M),
        "absorbed": state.membership.absorbed,
        "relabelled": state.membership.relabelled,
        "history": json.dumps(state.history),
    }


def restore(trainer: Trainer, saved: dict[str, Any]) -> State:
    """The other direction of `save`: fills the trainer and gives the state."""
    trainer.network.load_state_dict(saved["network"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    trainer.scaler.load_state_dict(saved["scaler"])
    membership = mixfix.Membership(
        member_M=saved["member"].cpu().numpy(),
        label_M=saved["label"].cpu().numpy(),
        absorbed=saved["absorbed"],
        relabelled=saved["relabelled"],
    )
    return State(
        membership=membership,
        epoch=saved["epoch"],
        step=saved["step"],
        loss_sum=saved["loss_sum"],
        seen=saved["seen"],
        seconds=saved["seconds"],
        history=json.loads(saved["history"]),
    )
