"""A training process for the tests that kill it: `train_child.py store recipe where cache`.

where: `never`; `epoch:step:SIGNAL`, sent to itself after that step; or `before-metrics`, killed between the state and
the metrics of the first epoch.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from blobs import loader_of

from cleanctl.config import TrainConfig
from cleanctl.errors import CleanctlError
from cleanctl.store import Store
from cleanctl.train import engine, rundir, train


def die_at(where: str) -> None:
    if where == "never":
        return
    if where == "before-metrics":
        original_metrics = rundir.RunDir.write_metrics

        def write_metrics(self: rundir.RunDir, history: list) -> None:
            if len(history) == 1 and self.state.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            original_metrics(self, history)

        rundir.RunDir.write_metrics = write_metrics
        return
    epoch, step, name = where.split(":")
    original = engine.Engine._step

    def step_then_die(self: engine.Engine, batch: object, state: engine.State) -> torch.Tensor:
        loss = original(self, batch, state)
        if (state.epoch, state.step) == (int(epoch), int(step)):
            os.kill(os.getpid(), signal.Signals[name])
        return loss

    engine.Engine._step = step_then_die


def run(store: str, recipe: str, where: str, cache: str) -> int:
    die_at(where)
    try:
        train(
            Store.open(Path(store)),
            TrainConfig(recipe=recipe, selection="clean", device="cpu", cache=cache),
            loader_factory=loader_of,
        )
    except CleanctlError as exc:
        sys.stderr.write(str(exc))
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
