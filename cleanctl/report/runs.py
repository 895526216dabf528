"""Training runs beside a store, as the report shows them: outcome and history. Reads their JSON files, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.paths import runs_dir
from cleanctl.train.rundir import RunDir, read_json

SHOWN = 8  # runs in one chart: as many as there are dashes


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """state: "finished", "stopped", "diverged". history: a dict an epoch as in metrics.jsonl, oldest first.

    test_split, last_top1, best_top1, best_epoch, seed: of the result, None where the run has none. Shares in [0, 1].
    """

    name: str
    method: str
    selection: str
    network: str
    recipe: str
    state: str
    epochs: int
    history: tuple[dict[str, Any], ...]
    test_split: str | None
    last_top1: float | None
    best_top1: float | None
    best_epoch: int | None
    chosen_on: str | None
    seed: int | None

    @property
    def baseline(self) -> bool:
        """Trained on every label."""
        return self.selection == "all"

    def series(self, name: str) -> np.ndarray:
        """(epochs,) float: a number of the history, NaN where it is not known."""
        return np.array([np.nan if line.get(name) is None else float(line[name]) for line in self.history])


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of a split, the most accurate first. damaged: names of those that cannot be read."""

    runs: tuple[RunRecord, ...]
    damaged: tuple[str, ...] = ()


def read_runs(store: Path, split: str, wanted: Sequence[str] = ()) -> Runs:
    """wanted: names; all of the split without. StoreError for a name that is not there or cannot be read."""
    folders = sorted(path.parent for path in runs_dir(store).glob("*/config.json"))
    names = [folder.name for folder in folders]
    if missing := [name for name in wanted if name not in names]:
        raise StoreError(
            f"There is no run {missing[0]!r} beside {store}; there are: {', '.join(names) or 'none'}.",
            do="Name one of these with --run.",
        )
    found, damaged = [], []
    for folder in folders:
        if wanted and folder.name not in wanted:
            continue
        try:
            record, of = _read(folder)
        except (StoreError, KeyError, TypeError, ValueError):
            if wanted:
                raise
            damaged.append(folder.name)
            continue
        if wanted or of == split:
            found.append(record)
    found.sort(key=lambda run: -1.0 if run.last_top1 is None else run.last_top1, reverse=True)
    return Runs(runs=tuple(found), damaged=tuple(damaged))


def _read(folder: Path) -> tuple[RunRecord, str]:
    run = RunDir(folder)
    config = read_json(run.config)
    result = read_json(run.result) if run.result.exists() else {}
    record = RunRecord(
        name=folder.name,
        method=str(config["method"]),
        selection=str(config["selection"]["name"]),
        network=str(config["recipe"]["network"]),
        recipe=str(config["recipe"].get("name", "")),
        state="finished" if result else "diverged" if run.diverged.exists() else "stopped",
        epochs=int(config["recipe"]["epochs"]),
        history=_history(run),
        test_split=result.get("test_split"),
        last_top1=result.get("last_top1"),
        best_top1=result.get("best_top1"),
        best_epoch=result.get("best_epoch"),
        chosen_on=result.get("chosen_on"),
        seed=result.get("seed"),
    )
    return record, str(config["split"])


def _history(run: RunDir) -> tuple[dict[str, Any], ...]:
    """Whole lines; a run that has not ended its first epoch has none."""
    try:
        lines = [json.loads(line) for line in run.metrics.read_text("utf-8").splitlines() if line]
    except OSError:
        return ()
    return tuple(line for line in lines if isinstance(line, dict) and "epoch" in line)
