"""One call's share of a run: open images and network, then epoch after epoch until the end or a stop.

Every epoch ends in one order, so that a kill at any point repeats work and never results: best.pt, then state.pt, then
metrics.jsonl; after the last epoch last.pt, result.json, and only then state.pt goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cleanctl.config import TrainConfig
from cleanctl.errors import InterruptedRun, UsageError
from cleanctl.progress import Progress, Task
from cleanctl.records import ImageLoader, PixelSpec
from cleanctl.results import TrainResult
from cleanctl.runtime import StopFlag, seed_everything
from cleanctl.store import Store
from cleanctl.train import mixfix
from cleanctl.train.loop import Machine, State, Trainer, restore, save
from cleanctl.train.networks import build_network
from cleanctl.train.pixels import Pixels, StreamedPixels, open_pixels
from cleanctl.train.pool import TrainingPool
from cleanctl.train.recipe import Recipe, learning_rate
from cleanctl.train.rundir import RunDir, read_tensors, write_json, write_tensors

LoaderFactory = Callable[[str, PixelSpec], ImageLoader]
TEST_SPLITS = ("test", "val", "validation")


class Session:
    """A run as one call sees it; `run_all` once."""

    def __init__(
        self,
        store: Store,
        config: TrainConfig,
        pool: TrainingPool,
        recipe: Recipe,
        machine: Machine,
        run: RunDir,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        self.store, self.config, self.pool, self.recipe = store, config, pool, recipe
        self.machine, self.run, self.progress, self.stop = machine, run, progress, stop
        self.state = State(membership=mixfix.start(pool.label_M, pool.selected_M))
        self.trainer: Trainer | None = None
        self.test_split = next((name for name in TEST_SPLITS if name in store.split_names()), None)
        self.test: tuple[Pixels, np.ndarray] | None = None

    # ---- opening

    def run_all(self, loader_factory: LoaderFactory) -> TrainResult:
        spec = PixelSpec(size=self.recipe.load_size, resize_mode=self.recipe.resize)
        loaders = [loader_factory(self.config.split, spec)]
        try:
            pixels = self._open(loaders[0], self.pool.row_M, "Training images", self.config.cache)
            if self.test_split is not None:
                loaders.append(loader_factory(self.test_split, spec))
                self._open_test(loaders[1])
            else:
                self.progress.note("The store has no test split: no accuracy is measured, and no best.pt is kept.")
            self.trainer = self._trainer(pixels)
            if self.run.state.exists():
                self.state = restore(self.trainer, read_tensors(self.run.state, self.machine.device))
                self.progress.note(f"Going on in epoch {self.state.epoch + 1}, after {self.state.step} of its steps.")
            self.run.write_metrics(self.state.history)
            self._epochs(self.trainer)
            if isinstance(pixels, StreamedPixels) and pixels.unreadable:
                self.progress.warn(f"{len(pixels.unreadable):,} images could not be read any more; left out.")
            return self._finish(self.trainer)
        finally:
            for loader in loaders:
                loader.close()

    def _open(self, loader: ImageLoader, row: np.ndarray, title: str, cache: str) -> Pixels:
        return open_pixels(
            loader,
            row,
            side=self.recipe.load_size,
            device=self.machine.device,
            cache=cache,
            title=title,
            progress=self.progress,
            stop=self.stop,
        )

    def _open_test(self, loader: ImageLoader) -> None:
        assert self.test_split is not None
        split = self.store.split(self.test_split)
        row = split.ok_rows()
        truth_N = split.truth_N()
        label = split.label_N()[row]
        truth = label if truth_N is None else np.where(truth_N[row] >= 0, truth_N[row], label)
        self.test = (self._open(loader, row, "Test images", self.config.cache), truth)

    def _trainer(self, pixels: Pixels) -> Trainer:
        seed_everything(self.config.seed)
        recipe, count = self.recipe, len(self.pool.row_M)
        torch.backends.cudnn.benchmark = True
        network = build_network(recipe.network, len(self.store.classes), weights=starting_weights(recipe, self.config))
        return Trainer(
            network,
            recipe,
            self.machine,
            pixels=pixels,
            num_classes=len(self.store.classes),
            seed=self.config.seed,
            steps=max(count // recipe.batch_size, 1),
        )

    # ---- epochs

    def _epochs(self, trainer: Trainer) -> None:
        per_epoch = trainer.steps * self.recipe.batch_size
        done = sum(line["seen"] for line in self.state.history) + self.state.seen
        with self.progress.track("Training", total=self.recipe.epochs * per_epoch, unit="images", done=done) as task:
            while self.state.epoch < self.recipe.epochs:
                self._describe_epoch(task)
                trainer.train_epoch(self.state, task, self.stop, self._keep)
                self._end_epoch(trainer)
                self._describe_epoch(task)

    def _describe_epoch(self, task: Task) -> None:
        text = f"epoch {min(self.state.epoch + 1, self.recipe.epochs)}/{self.recipe.epochs}"
        if self.state.history:
            last = self.state.history[-1]
            text += f", loss {last['loss']:.3f}, {last['members']:,} members"
            text += "" if last["test_top1"] is None else f", {self.test_split} {last['test_top1']:.1%}"
        task.describe(text)

    def _end_epoch(self, trainer: Trainer) -> None:
        """docs/method.md B.2, step 4: test, keep the best, log, then the members of the next epoch."""
        state, began = self.state, time.perf_counter()
        top1 = self._test(trainer)
        earlier = [line["test_top1"] for line in state.history]
        if top1 is not None and top1 > max(earlier, default=-1.0):
            self._write_network(trainer, best=True, epoch=state.epoch + 1, top1=top1)
        line = self._line(trainer, top1)
        following = self._next_members(trainer)
        line["seconds"] = round(state.seconds + time.perf_counter() - began, 3)
        self.state = State(membership=following, epoch=state.epoch + 1, history=[*state.history, line])
        self._keep()
        self.run.write_metrics(self.state.history)

    def _test(self, trainer: Trainer) -> float | None:
        if self.test is None:
            return None
        pixels, truth = self.test
        predicted, _ = trainer.predict(pixels, len(truth), self.stop)
        readable = predicted >= 0
        return float((predicted[readable] == truth[readable]).mean())

    def _line(self, trainer: Trainer, top1: float | None) -> dict[str, Any]:
        state, membership = self.state, self.state.membership
        return {
            "epoch": state.epoch + 1,
            "loss": state.loss_sum / max(state.seen, 1),
            "lr": learning_rate(self.recipe, state.epoch, trainer.steps - 1, trainer.steps),
            "members": int(membership.member_M.sum()),
            "absorbed": membership.absorbed,
            "relabelled": membership.relabelled,
            "label_accuracy": self._label_accuracy(membership),
            "test_top1": top1,
            "seen": state.seen,
            "images_per_second": round(state.seen / max(state.seconds, 1e-9), 1),
        }

    def _label_accuracy(self, membership: mixfix.Membership) -> float | None:
        truth_M = self.pool.truth_M
        if truth_M is None:
            return None
        known_M = membership.member_M & (truth_M >= 0)
        return float((membership.label_M[known_M] == truth_M[known_M]).mean()) if known_M.any() else None

    def _next_members(self, trainer: Trainer) -> mixfix.Membership:
        recipe, pool = self.recipe, self.pool
        epoch = self.state.epoch + 1
        if epoch == recipe.epochs or epoch < recipe.first_update or not (recipe.absorb or recipe.relabel):
            return self.state.membership
        predicted_M, confidence_M = trainer.predict(trainer.pixels, len(pool.row_M), self.stop)
        return mixfix.update(
            predicted_M,
            confidence_M,
            pool.label_M,
            pool.selected_M,
            theta_absorb=recipe.theta_absorb,
            theta_relabel=recipe.theta_relabel,
            absorb=recipe.absorb,
            relabel=recipe.relabel,
            relabel_scope=recipe.relabel_scope,
        )

    # ---- what is left on disk

    def _keep(self) -> None:
        assert self.trainer is not None
        write_tensors(self.run.state, save(self.trainer, self.state))

    def _write_network(self, trainer: Trainer, *, best: bool, epoch: int, top1: float | None) -> None:
        meta = {
            "network": self.recipe.network,
            "classes": list(self.store.classes),
            "epoch": epoch,
            "test_top1": top1,
            "chosen_on_test": best,
        }
        path = self.run.best if best else self.run.last
        write_tensors(path, {"state_dict": trainer.network.state_dict(), "meta": meta})

    def _finish(self, trainer: Trainer) -> TrainResult:
        history = self.state.history
        last = history[-1]
        tested = [line for line in history if line["test_top1"] is not None]
        best = max(tested, key=lambda line: line["test_top1"], default=None)
        self._write_network(trainer, best=False, epoch=last["epoch"], top1=last["test_top1"])
        result = TrainResult(
            name=self.run.path.name,
            folder=str(self.run.path),
            method=self.config.method,
            selection=self.pool.selection,
            recipe=self.recipe.name,
            network=self.recipe.network,
            device=self.machine.device,
            epochs=len(history),
            test_split=self.test_split,
            last_top1=last["test_top1"],
            best_top1=best["test_top1"] if best else None,
            best_epoch=best["epoch"] if best else None,
            selected=int(self.pool.selected_M.sum()),
            members=last["members"],
            absorbed=last["absorbed"],
            relabelled=last["relabelled"],
            label_accuracy=last["label_accuracy"],
            images_per_second=round(float(np.median([line["images_per_second"] for line in history])), 1),
            seconds=round(sum(line["seconds"] for line in history), 1),
        )
        write_json(self.run.result, asdict(result))
        self.run.state.unlink(missing_ok=True)
        return result

    def interrupted(self) -> InterruptedRun:
        if self.trainer is None:
            return InterruptedRun("Stopped before the first step.", do="The same command starts again.")
        self._keep()
        state, epochs = self.state, self.recipe.epochs
        return InterruptedRun(
            f"Stopped in epoch {state.epoch + 1} of {epochs}, after {state.step} of its {self.trainer.steps} steps.",
            so=f"The state is saved in {self.run.path}; {epochs - state.epoch - 1} more epochs remain.",
            do="The same command goes on from there.",
        )


def starting_weights(recipe: Recipe, config: TrainConfig) -> str | None:
    """A file, "download" or None; a recipe that starts from published weights needs the user's word on them."""
    if config.network_weights == "none":
        return None
    if config.network_weights is None and recipe.weights == "imagenet":
        raise UsageError(
            f"Recipe {recipe.name} starts from ImageNet weights of {recipe.network}.",
            so="Nothing is downloaded without being asked for.",
            do="Give --network-weights FILE, --network-weights download, or --network-weights none.",
        )
    return config.network_weights
