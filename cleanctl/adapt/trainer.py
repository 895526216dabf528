"""The steps of an epoch: batches of embeddings → SGD on what the detector learns, and sums of what was seen.

State is small and whole after every step: parameters, momenta, epoch, step, sums. Everything drawn comes from (seed,
epoch, row), so a run that goes on from a saved state computes what an uninterrupted one does. Nothing on disk.

Dimensions: M readable rows, B of a batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cleanctl.adapt.draws import complementary_labels
from cleanctl.adapt.features import Features
from cleanctl.adapt.losses import ClassText, StepLosses, step_losses
from cleanctl.adapt.preset import Preset
from cleanctl.progress import Task
from cleanctl.runtime import StopFlag

CHECK_STEPS = 50  # between looks at whether the losses are numbers
KEEP_SECONDS = 60.0
SUMS = (
    "seen", "dual", "similarity", "kept", "relabelled", "kept_known", "hits", "right",
    "batch_precision", "batch_recall", "batch_f1",
)  # fmt: skip
UNKNOWN, WRONG, RIGHT = -1, 0, 1


class Stopped(Exception):
    """SIGINT or SIGTERM; the state is that after the last step."""


class Diverged(Exception):
    """A loss or a parameter that is no number, found after step `step` of epoch `epoch` (from 0)."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(epoch, step)
        self.epoch, self.step = epoch, step


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Of the M readable rows. row_M: places in the split. truth_M: 1 right, 0 wrong, −1 unknown; None: all unknown."""

    row_M: np.ndarray
    label_M: np.ndarray
    truth_M: np.ndarray | None
    num_classes: int


@dataclass
class State:
    """Epochs and steps done; sums of the running epoch in SUMS' order; a line of each epoch that ended."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sum_S: Tensor = field(default_factory=lambda: torch.zeros(len(SUMS), dtype=torch.float64))
    history: list[dict[str, Any]] = field(default_factory=list)


Judge = Callable[[np.ndarray, Tensor], None]  # sees positions and embeddings of a batch before its step


class Trainer:
    """text: a ClassText module whose parameters are trained beside those of `features`."""

    def __init__(
        self,
        text: nn.Module,
        features: Features,
        labels: Labels,
        preset: Preset,
        *,
        scale: float,
        seed: int,
        device: str,
    ) -> None:
        self.text, self.features, self.labels, self.preset = text, features, labels, preset
        self.scale, self.seed, self.device = scale, seed, device
        self.steps = math.ceil(features.num_rows / preset.batch_size)
        self.parameters = {**dict(text.named_parameters()), **features.trained()}
        self._optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=preset.learning_rate,
            momentum=preset.momentum,
            weight_decay=preset.weight_decay,
        )

    def epoch(
        self, state: State, task: Task, stop: StopFlag, keep: Callable[[], None], judge: Judge | None = None
    ) -> None:
        """The steps of `state.epoch` that are left. `keep` saves the state, every KEEP_SECONDS.

        Raises Stopped after the step in which a stop was asked for; Diverged at the latest CHECK_STEPS steps late, and
        before any `keep` or Stopped.
        """
        began, kept_at = time.perf_counter() - state.seconds, time.perf_counter()
        for group in self._optimizer.param_groups:
            group["lr"] = self.preset.rate(state.epoch)
        ranks = self.features.ranks
        for position_B, image_BD in self.features.batches(state.epoch, self.preset.batch_size, state.step):
            if len(position_B):
                if judge is not None:
                    judge(position_B, image_BD)
                self._step(state, position_B, image_BD)
            state.step += 1
            state.seconds = time.perf_counter() - began
            task.advance(len(position_B))
            due, stopping = ranks.any(time.perf_counter() - kept_at > KEEP_SECONDS, bool(stop))
            if due or stopping or state.step % CHECK_STEPS == 0 or state.step == self.steps:
                self._check(state)
            if due:
                keep()
                kept_at = time.perf_counter()
            if stopping:
                raise Stopped

    def _step(self, state: State, position_B: np.ndarray, image_BD: Tensor) -> None:
        label_B, classes = self.labels.label_M[position_B], self.labels.num_classes
        row_B = self.labels.row_M[position_B]
        other_B = complementary_labels(self.seed, state.epoch, row_B, label_B, num_classes=classes)
        text: ClassText = self.text  # type: ignore[assignment]
        losses = step_losses(
            image_BD,
            text,
            torch.from_numpy(label_B).to(self.device),
            torch.from_numpy(other_B).to(self.device),
            scale=self.scale,
            phase=self.preset.phase(state.epoch),
        )
        self._optimizer.zero_grad()
        losses.total.backward()
        self.features.add_gradients()
        self._optimizer.step()
        state.sum_S += self._sums(losses, position_B, state.epoch)

    def _sums(self, losses: StepLosses, position_B: np.ndarray, epoch: int) -> Tensor:
        """What a batch adds to the epoch's sums; the batch's precision, recall and F1 where truth is known."""
        count = len(position_B)
        clean_B = losses.clean_B.cpu().numpy()
        given_B = self.labels.label_M[position_B]
        renamed = 0
        if self.preset.phase(epoch).pseudo:
            renamed = int((~clean_B & (losses.predicted_B.cpu().numpy() != given_B)).sum())
        hits = right = kept = 0
        if self.labels.truth_M is not None:
            truth_B = self.labels.truth_M[position_B]
            known_B = truth_B != UNKNOWN
            hits = int((clean_B & (truth_B == RIGHT)).sum())
            right, kept = int((truth_B == RIGHT).sum()), int((clean_B & known_B).sum())
        rates = (hits / max(kept, 1), hits / max(right, 1), 2 * hits / max(kept + right, 1))
        dual, similarity = float(losses.dual.detach()), float(losses.similarity.detach())
        return torch.tensor(
            [count, dual * count, similarity * count, int(clean_B.sum()), renamed, kept, hits, right, *rates],
            dtype=torch.float64,
        )

    def _check(self, state: State) -> None:
        finite = bool(state.sum_S.isfinite().all())
        if not finite or not all(bool(one.isfinite().all()) for one in self.parameters.values()):
            raise Diverged(state.epoch, state.step - 1)

    def line(self, state: State) -> dict[str, Any]:
        """The epoch's line of metrics, as JSON values.

        batch_precision, batch_recall, batch_f1: means of the batches' own, as published, over ⌊M / B⌋ + 1; precision,
        recall, f1: of the whole epoch's decisions. None where no truth is known.
        """
        total = dict(zip(SUMS, state.sum_S.tolist()))
        seen = max(total["seen"], 1)
        line = {
            "epoch": state.epoch + 1,
            "lr": self.preset.rate(state.epoch),
            "loss": (total["dual"] + total["similarity"]) / seen,
            "loss_dual": total["dual"] / seen,
            "loss_similarity": total["similarity"] / seen,
            "kept": total["kept"] / seen,
            "relabelled": total["relabelled"] / seen,
            "seen": int(total["seen"]),
        }
        known = self.labels.truth_M is not None and bool((self.labels.truth_M != UNKNOWN).any())
        parts = self.features.num_rows // self.preset.batch_size + 1
        kept = total["kept_known"]
        rates = {
            "batch_precision": total["batch_precision"] / parts,
            "batch_recall": total["batch_recall"] / parts,
            "batch_f1": total["batch_f1"] / parts,
            "precision": total["hits"] / kept if kept else None,
            "recall": total["hits"] / total["right"] if total["right"] else None,
            "f1": 2 * total["hits"] / (kept + total["right"]) if kept + total["right"] else None,
        }
        return line | (rates if known else dict.fromkeys(rates)) | {"seconds": round(state.seconds, 3)}

    # ---- kept between calls

    def save(self, state: State) -> dict[str, Any]:
        """Tensors, numbers and text: loads with weights_only."""
        return {
            "parameters": {name: value.detach().clone() for name, value in self.parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "epoch": state.epoch,
            "step": state.step,
            "seconds": state.seconds,
            "sums": state.sum_S,
            "history": json.dumps(state.history),
        }

    def restore(self, saved: dict[str, Any]) -> State:
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(saved["parameters"][name])
        self._optimizer.load_state_dict(saved["optimizer"])
        numbers = {key: saved[key] for key in ("epoch", "step", "seconds")}
        return State(sum_S=saved["sums"].cpu(), history=json.loads(saved["history"]), **numbers)
