"""The engine: the steps of an epoch, by whatever method, views of a set, and the state that lets both stop at any step.

Legend: M readable training samples, B of a batch, L load size. Random choices of a step come from (seed, epoch, step)
alone, never from what ran before it: a resumed run draws what an uninterrupted one draws, and no generator has to be
saved. On a CPU the numbers are then the same to the last bit, for one number of threads.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cleanctl.errors import InputError, StoreError
from cleanctl.progress import Task
from cleanctl.runtime import StopFlag
from cleanctl.train import augment
from cleanctl.train.methods.method import Batch, Members, Method, View
from cleanctl.train.pixels import Pixels, Stopped
from cleanctl.train.recipe import learning_rate
from cleanctl.train.shared_pixels import shared
from cleanctl.train.transfer import TOGETHER, send_each

PREDICT_BATCH = 500
KEEP_SECONDS = 300
VIEW_STEPS, VIEW_VALUES = 8, 2**25  # whose training views a GPU makes at once: steps, and numbers in them
CHECK_STEPS = 64  # losses that stay on the device before they are read: reading makes a GPU wait
# Tags that keep the streams of an epoch and of its steps apart: NumPy takes [seed, 1] and [seed, 1, 0] for one seed.
ORDER, STEP, CROPS = 1, 2, 3
# Positions of a step, their labels on the device, which could be read, and those images.
Read = tuple[np.ndarray, Tensor, tuple[np.ndarray, Tensor]]


@dataclass
class State:
    """How far a run is: `step` steps of `epoch` (from 0) are done. Counts belong to that epoch."""

    members: Members
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    dynamics: dict[str, Any] = field(default_factory=dict)


class Diverged(Exception):
    """The mean loss of a step is NaN or infinite, or, where it is finite, a weight after that step.

    epoch and step count from 0; position_B are those of the step's batch.
    """

    def __init__(self, epoch: int, step: int, loss: float, position_B: np.ndarray) -> None:
        super().__init__(epoch, step, loss)
        self.epoch, self.step, self.loss, self.position_B = epoch, step, loss, position_B


class Engine:
    """A method in training. `pixels` give the images by position 0…M-1."""

    def __init__(self, method: Method, *, pixels: Pixels, seed: int, steps: int) -> None:
        self.method, self.recipe, self.device = method, method.recipe, method.compute.device
        self.ranks = method.compute.ranks
        self.pixels = shared(pixels, self.ranks)
        self.seed = seed
        self.steps = steps
        self.view_steps = VIEW_STEPS if self.device == "cuda" else 1
        self._losses = torch.zeros(CHECK_STEPS, dtype=torch.float64, device=self.device)
        self._unchecked: list[tuple[int, np.ndarray]] = []  # step and positions of those losses

    def train_epoch(self, state: State, task: Task, stop: StopFlag, keep: Callable[[], None]) -> None:
        """The steps of `state.epoch` that are left; raises Stopped after the step in which a stop was asked for.

        `keep` saves the state; it is called when that was last done KEEP_SECONDS ago, so that a kill in an epoch of
        hours costs minutes. Raises Diverged, at the latest CHECK_STEPS steps on and always before `keep` and Stopped.
        """
        self.method.network.train()
        began = time.perf_counter() - state.seconds
        kept_at = time.perf_counter()
        loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=self.device)
        batches = self._batches(state)
        ready = self._ready(self._read(batches, state), state)
        for batch, torch_seed in ready:
            count = len(batch.position_B)
            if count > 1:  # one image alone has no variance for batch normalisation
                torch.manual_seed(torch_seed)  # dropout and the like
                loss = self._step(batch, state).double()
                loss_sum += loss * count  # on the device, in order
                self._losses[len(self._unchecked)] = loss
                self._unchecked.append((state.step, batch.position_B))
            state.step += 1
            state.seen += count
            state.seconds = time.perf_counter() - began
            task.advance(count)
            due, stopping = self.ranks.any(time.perf_counter() - kept_at > KEEP_SECONDS, bool(stop))
            if due or stopping or state.step == self.steps or len(self._unchecked) == CHECK_STEPS:
                self._check(state, weights=due or stopping or state.step == self.steps)
                state.loss_sum = float(loss_sum)
            if due:
                keep()
                kept_at = time.perf_counter()
            if stopping:
                ready.close()
                raise Stopped

    def view(self, opened: Callable[[], Pixels], count: int, stop: StopFlag) -> View:
        """Positions 0…count-1 of the set that `opened` gives, which is called only where a method looks at it.

        The network is put into evaluation mode. Raises Stopped where a stop was asked for.
        """

        def images() -> Iterator[tuple[np.ndarray, Tensor]]:
            self.method.network.eval()
            batches = [np.arange(at, min(at + PREDICT_BATCH, count)) for at in range(0, count, PREDICT_BATCH)]
            with closing(shared(opened(), self.ranks).batches(batches)) as read:
                for position, (ok_B, pixel) in zip(batches, read):
                    if any(self.ranks.any(bool(stop))):
                        raise Stopped
                    if len(pixel):
                        yield position[ok_B], augment.plain(pixel.permute(0, 3, 1, 2), self.recipe)

        return View(count, images)

    # ---- a step

    def _batches(self, state: State) -> list[np.ndarray]:
        if np.count_nonzero(state.members.member_M & self.pixels.ok_M) < 2:
            raise InputError(
                "Fewer than two readable images take part in training.",
                do="Make a selection that keeps more: cleanctl select",
            )
        rng = np.random.default_rng([self.seed, state.epoch, 0, ORDER])
        return self.method.batches(state.members, self.pixels.ok_M, steps=self.steps, rng=rng)

    def _read(self, batches: list[np.ndarray], state: State) -> Generator[Read, None, None]:
        """The steps that are left; random crops go by place in the epoch, counted from its start."""
        seed = int(np.random.default_rng([self.seed, state.epoch, 0, CROPS]).integers(2**62))
        done = sum(map(len, batches[: state.step]))
        left = batches[state.step :]
        with closing(self.pixels.batches(left, seed=seed, done=done)) as read:  # a thread may be reading ahead
            yield from zip(left, self._labels(left, state), read)

    def _labels(self, batches: list[np.ndarray], state: State) -> Iterator[Tensor]:
        for start in range(0, len(batches), TOGETHER):
            some = batches[start : start + TOGETHER]
            yield from send_each([state.members.label_M[one].astype(np.int64) for one in some], self.device)

    def _ready(self, read: Generator[Read, None, None], state: State) -> Generator[tuple[Batch, int], None, None]:
        """The batches of the steps that are left, and a seed for torch. Training views are made for several steps at
        once where launching their operations would take longer than small images do; each step's draws are its own."""
        values = 3 * self.recipe.image_size**2 * self.method.images_per_step
        together = max(1, min(self.view_steps, VIEW_VALUES // values))
        at = state.step
        with closing(read):
            while some := list(islice(read, together)):
                rngs = [np.random.default_rng([self.seed, state.epoch, at + one, STEP]) for one in range(len(some))]
                seeds = [int(rng.integers(2**62)) for rng in rngs]
                views = self._views([one[2][1] for one in some], rngs)
                for step, (one, rng, view, seed) in enumerate(zip(some, rngs, views, seeds), start=at):
                    yield self._batch(one, rng, view, epochs_done=state.epoch + step / self.steps), seed
                at += len(some)

    def _views(self, pixels: list[Tensor], rngs: list[np.random.Generator]) -> Sequence[Tensor | None]:
        """Of a single step none: the batch makes its own."""
        counts = list(map(len, pixels))
        if len(pixels) == 1 or sum(counts) < augment.LEAST_TOGETHER:
            return [None] * len(pixels)
        image_BCLL = torch.cat(pixels).permute(0, 3, 1, 2)
        recipe, generators = self.method.view_recipe(), augment.Generators(rngs, counts)
        return augment.strong(image_BCLL, recipe, generators).split(counts)

    def _batch(self, read: Read, rng: np.random.Generator, view: Tensor | None, *, epochs_done: float) -> Batch:
        wanted, label_B, (ok_B, pixel_BLLC) = read
        slot_B = np.flatnonzero(ok_B)
        return Batch(
            image_BCLL=pixel_BLLC.permute(0, 3, 1, 2),
            position_B=wanted[ok_B],
            slot_B=slot_B,
            label_B=label_B if ok_B.all() else label_B[self.method.compute.tensor(slot_B)],
            rng=rng,
            epochs_done=epochs_done,
            view_BCSS=view,
        )

    def _step(self, batch: Batch, state: State) -> Tensor:
        rate = learning_rate(self.recipe, state.epoch, state.step, self.steps)
        for optimizer in self.method.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        return self.method.step(batch)

    # ---- numbers that are none

    def _check(self, state: State, *, weights: bool) -> None:
        """Raises Diverged for the first loss since the last check that is not finite, or else for the weights."""
        steps, self._unchecked = self._unchecked, []
        for (step, position), loss in zip(steps, self._losses.tolist()):
            if not math.isfinite(loss):
                raise Diverged(state.epoch, step, loss, position)
        if weights and steps and not self._weights_are_finite():
            raise Diverged(state.epoch, step, loss, position)

    def _weights_are_finite(self) -> bool:
        values = [value for value in self.method.network.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.isfinite().all() for value in values]).all())


def save(engine: Engine, state: State) -> dict[str, Any]:
    """The run's state as tensors, numbers and text: loads with weights_only."""
    return {
        "method": engine.method.state(),
        "epoch": state.epoch,
        "step": state.step,
        "loss_sum": state.loss_sum,
        "seen": state.seen,
        "seconds": state.seconds,
        "member": torch.from_numpy(state.members.member_M),
        "label": torch.from_numpy(state.members.label_M),
        "absorbed": state.members.absorbed,
        "relabelled": state.members.relabelled,
        "history": json.dumps(state.history),
        "dynamics": state.dynamics,
    }


def restore(engine: Engine, saved: dict[str, Any]) -> State:
    """The other direction of `save`: fills the method and gives the state. StoreError for another version's state."""
    if "method" not in saved:
        raise StoreError(
            "The run was stopped by an earlier version of cleanctl, whose state this one cannot read.",
            do="Start the run over with --no-resume, or give this one its own --name.",
        )
    engine.method.load_state(saved["method"])
    members = Members(
        member_M=saved["member"].cpu().numpy(),
        label_M=saved["label"].cpu().numpy(),
        absorbed=saved["absorbed"],
        relabelled=saved["relabelled"],
    )
    numbers = {key: saved[key] for key in ("epoch", "step", "loss_sum", "seen", "seconds")}
    sums = saved.get("dynamics", {})
    dynamics = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in sums.items()}
    return State(members=members, history=json.loads(saved["history"]), dynamics=dynamics, **numbers)
