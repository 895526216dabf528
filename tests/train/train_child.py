"""Training processes for the tests that kill them.

Reads one request a line, `store recipe where cache` as JSON, trains in a forked process, and answers with that
process's exit code and what it said. Forking saves each of them the seconds that importing torch takes.

where: `never`; `epoch:step:SIGNAL`, sent to itself after that step; or `before-metrics`, killed between the state and
the metrics of the first epoch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import torch
import torch._dynamo  # the optimizer imports it on its first step
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


def serve() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as said:
            if (child := os.fork()) == 0:
                os.dup2(said.fileno(), 2)
                code = 1
                try:
                    code = run(*json.loads(line))
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            sys.stdout.write(json.dumps([status, said.read()]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    serve()
