"""One call's share of a run: open images and network, then epoch after epoch until the end or a stop.

Every epoch ends in one order, so that a kill at any point repeats work and never results: best.pt, then state.pt, then
metrics.jsonl; after the last epoch last.pt, result.json, and only then state.pt goes.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, InterruptedRun, UsageError
from cleanctl.progress import Progress, Task
from cleanctl.registry import METHODS
from cleanctl.results import TrainResult
from cleanctl.runtime import StopFlag, seed_everything
from cleanctl.store import Store
from cleanctl.train.clip_network import MODELS_WEIGHTS, is_clip
from cleanctl.train.dynamics import after_epoch, require_from_the_start, write_dynamics
from cleanctl.train.engine import Diverged, Engine, State, restore, save
from cleanctl.train.events import EventLog
from cleanctl.train.methods.method import UNREAD, Compute, Members, Method, Setup
from cleanctl.train.metrics import member_counts
from cleanctl.train.pool import TrainingPool
from cleanctl.train.recipe import Recipe, learning_rate
from cleanctl.train.rundir import RunDir, read_tensors, reporting_damage, write_json, write_tensors
from cleanctl.train.sets import LoaderFactory, Sets, TestSet

# Of the last epoch's line, what the result repeats.
COUNTED = (
    *("members", "absorbed", "relabelled", "dropped", "label_accuracy"),
    *("members_right", "absorbed_right", "relabelled_right", "dropped_right"),
)


class Session:
    """A run as one call sees it; `run_all` once."""

    def __init__(
        self,
        store: Store,
        config: TrainConfig,
        pool: TrainingPool,
        recipe: Recipe,
        compute: Compute,
        run: RunDir,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        self.store, self.config, self.pool, self.recipe = store, config, pool, recipe
        self.compute, self.run, self.progress, self.stop = compute, run, progress, stop
        self.ranks = compute.ranks
        self.engine: Engine | None = None
        self.events: EventLog | None = None
        self.tests: dict[str, TestSet] = {}

    # ---- opening

    def run_all(self, loader_factory: LoaderFactory) -> TrainResult:
        method = self._method()
        self.state = State(members=method.members())
        self.sets = Sets(
            self.store,
            self.pool,
            self.recipe,
            self.config,
            self.compute.device,
            loader_factory,
            self.progress,
            self.stop,
        )
        try:
            training = self.ranks.first_first(self.sets.training)
            self._require_one_view(training.ok_M)
            engine = Engine(method, pixels=training, seed=self.config.seed, steps=self._steps())
            self.tests = self.ranks.first_first(self.sets.tests)
            self._note_tests()
            if self.run.state.exists():
                with reporting_damage(self.run.state):
                    self.state = restore(engine, read_tensors(self.run.state, self.compute.device))
                self.progress.note(f"Going on in epoch {self.state.epoch + 1}, after {self.state.step} of its steps.")
            if self.config.record_dynamics:
                require_from_the_start(self.state.dynamics, self.state.epoch)
            self.engine = engine
            self.ranks.wait()  # until each has read the state
            self._write_metrics()
            if self.config.tensorboard and self.ranks.first:
                self.events = EventLog(self.run.events, self.state.history)
            self._epochs(engine)
            if unreadable := self.ranks.union(self.sets.unreadable()):
                self.progress.warn(f"{len(unreadable):,} images could not be read any more; left out.")
            return self._finish(engine)
        finally:
            self.sets.close()
            if self.events is not None:
                self.events.close()

    def _method(self) -> Method:
        seed_everything(self.config.seed)
        torch.backends.cudnn.benchmark = True
        kind: type[Method] = METHODS.load(self.config.method)
        return kind(
            Setup(
                recipe=self.recipe,
                num_classes=len(self.store.classes),
                compute=self.compute,
                label_M=self.pool.label_M,
                selected_M=self.pool.selected_M,
                fixed_M=self.pool.fixed_M,
                weights=starting_weights(self.recipe, self.config),
                settings=self.recipe.settings.get(self.config.method, {}),
            )
        )

    def _require_one_view(self, ok_M: np.ndarray) -> None:
        """Processes that share a run must plan the same batches."""
        first_M = self.ranks.from_first(lambda: ok_M)
        if self.ranks.any(not np.array_equal(ok_M, first_M)) != [False]:
            raise InputError(
                "The processes of this torchrun do not read the same images.",
                do="Look at the files that some of them cannot read, or train with one process.",
            )

    def _steps(self) -> int:
        """Of an epoch: from the whole set, not from the selection (docs/method.md B.2.2)."""
        return self.recipe.steps_per_epoch or max(len(self.pool.row_M) // self.recipe.batch_size, 1)

    def _note_tests(self) -> None:
        splits = self.sets.splits
        if splits.test is None:
            self.progress.note("The store has no test split: no accuracy is measured, and no best.pt is kept.")
        elif splits.chosen_on != splits.test:
            self.progress.note(f"The best epoch is chosen on {splits.chosen_on}; {splits.test} is reported.")

    # ---- epochs

    def _epochs(self, engine: Engine) -> None:
        per_epoch = engine.steps * engine.method.images_per_step
        done = sum(line["seen"] for line in self.state.history) + self.state.seen
        with self.progress.track("Training", total=self.recipe.epochs * per_epoch, unit="images", done=done) as task:
            while self.state.epoch < self.recipe.epochs:
                self._describe_epoch(task)
                try:
                    engine.train_epoch(self.state, task, self.stop, self._keep)
                except Diverged as exc:
                    raise self._report_diverged(exc, engine) from exc
                self._end_epoch(engine)
                self._describe_epoch(task)

    def _describe_epoch(self, task: Task) -> None:
        text = f"epoch {min(self.state.epoch + 1, self.recipe.epochs)}/{self.recipe.epochs}"
        if self.state.history:
            last = self.state.history[-1]
            text += f", loss {last['loss']:.3f}, {last['members']:,} members"
            text += "" if last["test_top1"] is None else f", {self.sets.splits.test} {last['test_top1']:.1%}"
        task.describe(text)

    def _end_epoch(self, engine: Engine) -> None:
        """docs/method.md B.2.4: test, keep the best, log, then the members of the next epoch."""
        state, began = self.state, time.perf_counter()
        top1 = {name: self._test(engine, test) for name, test in self.tests.items()}
        line = self._line(engine, top1)
        chosen = line["chosen_top1"]
        if chosen is not None and chosen > max((past["chosen_top1"] for past in state.history), default=-1.0):
            self._write_network(engine, best=True, line=line)
        following = self._next_members(engine)
        line["seconds"] = round(state.seconds + time.perf_counter() - began, 3)
        self.state = State(
            members=following, epoch=state.epoch + 1, history=[*state.history, line], dynamics=self._dynamics(engine)
        )
        self._keep()
        self._write_metrics()
        if self.events is not None:
            self.events.write(line)

    def _test(self, engine: Engine, test: TestSet) -> float:
        """Top-1 over the images that could be read; a prediction that is not a number is wrong."""
        view = engine.view(lambda: test.pixels, len(test.label_T), self.stop)
        predicted, _ = view.predictions(engine.method.predict)
        readable = predicted != UNREAD
        return float((predicted[readable] == test.label_T[readable]).mean()) if readable.any() else 0.0

    def _line(self, engine: Engine, top1: dict[str, float]) -> dict[str, Any]:
        state, members, splits = self.state, self.state.members, self.sets.splits
        return {
            "epoch": state.epoch + 1,
            "loss": state.loss_sum / max(state.seen, 1),
            "lr": learning_rate(self.recipe, state.epoch, engine.steps - 1, engine.steps),
            **member_counts(members, self.pool),
            "test_top1": top1.get(splits.test or ""),
            "chosen_top1": top1.get(splits.chosen_on or ""),
            "seen": state.seen,
            "images_per_second": round(state.seen / max(state.seconds, 1e-9), 1),
        }

    def _next_members(self, engine: Engine) -> Members:
        done = self.state.epoch + 1
        if done == self.recipe.epochs:
            return self.state.members
        view = engine.view(self.sets.plain, len(self.pool.row_M), self.stop)
        return engine.method.end_epoch(view, self.state.members, done)

    def _dynamics(self, engine: Engine) -> dict[str, Any]:
        """With this epoch, of which the steps are done; empty where they are not recorded."""
        if not self.config.record_dynamics:
            return {}
        view = engine.view(self.sets.plain, len(self.pool.row_M), self.stop)
        return after_epoch(self.state.dynamics, view, engine.method.predict, self.pool.as_given_M)

    # ---- what is left on disk, by the first rank

    def _write_dynamics(self) -> None:
        about = {"run": self.run.path.name, "method": self.config.method, "selection": self.pool.selection}
        write_dynamics(
            self.store,
            self.config.split,
            self.state.dynamics,
            about,
            row_M=self.pool.row_M,
            label_M=self.pool.as_given_M,
            device=self.compute.device,
        )
        self.progress.note("The score dynamics is stored: cleanctl select --strategy dynamics.margin")

    def _write_metrics(self) -> None:
        if self.ranks.first:
            self.run.write_metrics(self.state.history)

    def _keep(self) -> None:
        assert self.engine is not None
        if self.ranks.first:
            write_tensors(self.run.state, save(self.engine, self.state))

    def _write_network(self, engine: Engine, *, best: bool, line: dict[str, Any]) -> None:
        meta = {
            "network": self.recipe.network,
            "classes": list(self.store.classes),
            "epoch": line["epoch"],
            "test_top1": line["test_top1"],
            "chosen_on": self.sets.splits.chosen_on if best else None,
        }
        path = self.run.best if best else self.run.last
        if self.ranks.first:
            write_tensors(path, {"state_dict": engine.method.network.state_dict(), "meta": meta})

    def _finish(self, engine: Engine) -> TrainResult:
        history = self.state.history
        last = history[-1]
        tested = [line for line in history if line["chosen_top1"] is not None]
        best = max(tested, key=lambda line: line["chosen_top1"], default=None)
        self._write_network(engine, best=False, line=last)
        result = TrainResult(
            name=self.run.path.name,
            folder=str(self.run.path),
            method=self.config.method,
            selection=self.pool.selection,
            recipe=self.recipe.name,
            network=self.recipe.network,
            device=self.compute.device,
            epochs=len(history),
            test_split=self.sets.splits.test,
            chosen_on=self.sets.splits.chosen_on,
            last_top1=last["test_top1"],
            best_top1=best["test_top1"] if best else None,
            best_epoch=best["epoch"] if best else None,
            selected=int(self.pool.selected_M.sum()),
            **{field: last[field] for field in COUNTED},
            images_per_second=round(float(np.median([line["images_per_second"] for line in history])), 1),
            seconds=round(sum(line["seconds"] for line in history), 1),
            seed=self.config.seed,
        )
        if self.ranks.first:
            if self.config.record_dynamics:
                self._write_dynamics()
            write_json(self.run.result, asdict(result))
            self.run.state.unlink(missing_ok=True)
        return result

    def interrupted(self) -> InterruptedRun:
        if self.engine is None:
            return InterruptedRun("Stopped before the first step.", do="The same command starts again.")
        self._keep()
        state, epochs = self.state, self.recipe.epochs
        return InterruptedRun(
            f"Stopped in epoch {state.epoch + 1} of {epochs}, after {state.step} of its {self.engine.steps} steps.",
            so=f"The state is saved in {self.run.path}; {epochs - state.epoch - 1} more epochs remain.",
            do="The same command goes on from there.",
        )

    def _report_diverged(self, at: Diverged, engine: Engine) -> InputError:
        """What a person needs to find the reason; all keys of the batch go to a file of the run."""
        rate = learning_rate(self.recipe, at.epoch, at.step, engine.steps)
        all_keys = self.store.split(self.config.split).keys()
        keys = [all_keys[row] for row in self.pool.row_M[at.position_B]]
        found = {"epoch": at.epoch + 1, "step": at.step + 1, "learning_rate": rate, "loss": str(at.loss), "keys": keys}
        if self.ranks.first:
            write_json(self.run.diverged, found)
        what = "is" if not math.isfinite(at.loss) else "leaves weights that are not finite; it is"
        more = f" and {len(keys) - 3} more, see {self.run.diverged}" if len(keys) > 3 else ""
        return InputError(
            f"The loss of step {at.step + 1} of epoch {at.epoch + 1} {what} {at.loss:g}, "
            f"at a learning rate of {rate:g}, on the images {', '.join(keys[:3])}{more}.",
            so="Training cannot go on from there; no broken network was saved.",
            do=f"Start over with a lower rate, e.g. --lr {self.recipe.learning_rate / 10:g} --no-resume"
            + (", or with --precision fp32." if self.compute.precision != "fp32" else ", and look at these images."),
        )


def starting_weights(recipe: Recipe, config: TrainConfig) -> str | None:
    """A file, "download" or None; a recipe that starts from published weights needs the user's word on them."""
    if config.network_weights == "none":
        return None
    if config.network_weights is None and is_clip(recipe.network):
        return MODELS_WEIGHTS
    if config.network_weights is None and recipe.weights == "imagenet":
        raise UsageError(
            f"Recipe {recipe.name} starts from ImageNet weights of {recipe.network}.",
            so="Nothing is downloaded without being asked for.",
            do="Give --network-weights FILE, --network-weights download, or --network-weights none.",
        )
    return config.network_weights
