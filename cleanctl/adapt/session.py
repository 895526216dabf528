"""One call's share of a run: epoch after epoch until the end or a stop, then the decisions and what is left on disk.

Every epoch ends in one order, so that a kill at any point repeats work and never results: state.pt, then metrics.jsonl;
after the last epoch detector.safetensors, the score in the store, result.json, and only then state.pt goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cleanctl.adapt.detector import Detector, Judgement, judge, save_detector
from cleanctl.adapt.losses import ClassText
from cleanctl.adapt.model import TextModel, encoder_of
from cleanctl.adapt.trainer import Diverged, State, Stopped, Trainer
from cleanctl.clip.tune.learnt_file import tokenizer_fingerprint
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, InterruptedRun
from cleanctl.progress import Progress, Task
from cleanctl.results import AdaptResult
from cleanctl.runtime import StopFlag
from cleanctl.store import Store
from cleanctl.train.rundir import RunDir, read_tensors, reporting_damage, write_json, write_tensors


class Session:
    """A run as one call sees it; `learn` once."""

    def __init__(self, trainer: Trainer, run: RunDir, progress: Progress, stop: StopFlag) -> None:
        self._trainer, self._features, self._preset = trainer, trainer.features, trainer.preset
        self._ranks = trainer.features.ranks
        self._run, self._progress, self._stop = run, progress, stop
        self._state = State()
        # Of the released code alone: what it judges while it still learns.
        published = self._preset.decisions == "last-epoch"
        self._judgement = Judgement(self._features.num_rows, agree=self._preset.agree) if published else None
        self._label_M = torch.from_numpy(trainer.labels.label_M).to(trainer.device)

    @property
    def parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(one.numel() for one in self._trainer.parameters.values())

    @property
    def seconds(self) -> float:
        """Of all epochs, those of earlier calls too."""
        return round(sum(line["seconds"] for line in self._state.history), 1)

    def learn(self) -> Judgement:
        """All epochs that are left, and the decision for each row. Raises Stopped, InputError where a loss is none."""
        if self._ranks.from_first(self._run.state.exists):
            self._restore()
            self._ranks.wait()  # until each has read it
        self._write_metrics()
        total, done = self._features.num_rows * self._preset.epochs, self._done()
        with self._progress.track("Adapting", total=total, unit="images", done=done) as task:
            while self._state.epoch < self._preset.epochs:
                self._describe(task)
                last = self._state.epoch == self._preset.epochs - 1
                judges = self._judge if last and self._judgement is not None else None
                try:
                    self._trainer.epoch(self._state, task, self._stop, self._keep, judges)
                except Diverged as exc:
                    raise self._diverged(exc) from exc
                line = self._trainer.line(self._state)
                self._state = State(epoch=self._state.epoch + 1, history=[*self._state.history, line])
                self._keep()
                self._write_metrics()
        if self._judgement is not None:
            return self._judgement
        label_M = self._trainer.labels.label_M
        return judge(self.detector(), self._until_stopped(self._features.plain()), label_M, device=self._trainer.device)

    def _until_stopped(self, batches: Iterable[tuple[np.ndarray, Tensor]]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The last pass learns nothing; a call that goes on makes it again."""
        for batch in batches:
            if any(self._ranks.any(bool(self._stop))):
                raise Stopped
            yield batch

    def detector(self) -> Detector:
        """What is learnt so far."""
        trainer = self._trainer
        text: ClassText = trainer.text  # type: ignore[assignment]
        with torch.no_grad():
            every_C = torch.arange(trainer.labels.num_classes, device=trainer.device)
            positive_CD, negative_CD = text.positive().float(), text.negative(every_C).float()
        return Detector(positive_CD=positive_CD, negative_CD=negative_CD, scale=trainer.scale, agree=self._preset.agree)

    def save(
        self,
        path: Path,
        model: TextModel | None,
        store: Store,
        about: Mapping[str, Any],
        tune: TuneSettings | None = None,
    ) -> None:
        """detector.safetensors. model: where a tokenizer took part. tune: how the image tower was tuned, if it was."""
        if not self._ranks.first:
            return
        save_detector(
            path,
            self.detector(),
            self._trainer.parameters,
            encoder=encoder_of(store),
            tokenizer="" if model is None else tokenizer_fingerprint(model.tokenizer, store.classes),
            classes=store.classes,
            about=about,
            tune=tune,
        )

    def finish(self, result: AdaptResult) -> AdaptResult:
        if self._ranks.first:
            write_json(self._run.result, asdict(result))
            self._run.state.unlink(missing_ok=True)
        return result

    # ---- inside

    def _judge(self, position_B: np.ndarray, image_BD: Tensor) -> None:
        assert self._judgement is not None
        with torch.no_grad():
            label_B = self._label_M[torch.from_numpy(position_B).to(self._trainer.device)]
            self._judgement.put(position_B, image_BD.detach(), label_B, self.detector())

    def _done(self) -> int:
        step = min(self._state.step * self._preset.batch_size, self._features.num_rows)
        return self._state.epoch * self._features.num_rows + step

    def _describe(self, task: Task) -> None:
        text = f"epoch {self._state.epoch + 1}/{self._preset.epochs}"
        if self._state.history:
            last = self._state.history[-1]
            text += f", loss {last['loss']:.3f}, {last['kept']:.1%} judged clean"
            text += "" if last["f1"] is None else f", F1 {last['f1']:.3f}"
        task.describe(text)

    def _keep(self) -> None:
        if not self._ranks.first:
            return
        saved = self._trainer.save(self._state)
        if self._judgement is not None:
            saved["judgement"] = self._judgement.save()
        write_tensors(self._run.state, saved)

    def _restore(self) -> None:
        saved = read_tensors(self._run.state, self._trainer.device)
        with reporting_damage(self._run.state):
            self._state = self._trainer.restore(saved)
            if self._judgement is not None:
                self._judgement.restore(saved["judgement"])
        state = self._state
        where = f"in epoch {state.epoch + 1}, after {state.step} of its steps"
        self._progress.note(f"Going on {where if state.epoch < self._preset.epochs else 'with the decisions'}.")

    def _write_metrics(self) -> None:
        if self._ranks.first:
            self._run.write_metrics(self._state.history)

    def interrupted(self) -> InterruptedRun:
        self._keep()
        state, preset = self._state, self._preset
        where = f"in epoch {state.epoch + 1} of {preset.epochs}, after {state.step} of its {self._trainer.steps} steps"
        if state.epoch == preset.epochs:
            where = f"after the last of {preset.epochs} epochs, while the rows are judged"
        return InterruptedRun(
            f"Stopped {where}.",
            so=f"The state is saved in {self._run.path}.",
            do="The same command goes on from there.",
        )

    def _diverged(self, at: Diverged) -> InputError:
        rate = self._preset.rate(at.epoch)
        found = {"epoch": at.epoch + 1, "step": at.step + 1, "learning_rate": rate}
        if self._ranks.first:
            write_json(self._run.diverged, found)
        return InputError(
            f"By step {at.step + 1} of epoch {at.epoch + 1} the loss is no number any more, at a learning rate of "
            f"{rate:g}.",
            so="Nothing can be learnt from there; no score was written.",
            do=f"Start over with a lower rate: --lr {self._preset.learning_rate / 10:g} --no-resume",
        )
