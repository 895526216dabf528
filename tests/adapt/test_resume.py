"""`kill -9` in the middle of learning, and a stop by signal: the same command ends with the same numbers."""

from __future__ import annotations

import json
import os

import commands
import numpy as np
import pytest
from blobs import write_store

from cleanctl import api
from cleanctl.config import AdaptConfig

OPTIONS = {"tune": "class-vectors", "epochs": 6, "batch_size": 8, "learning_rate": 0.03}
ROWS = 240
CHILD = """
import os, signal, sys
from cleanctl.adapt import trainer
from cleanctl.cli import main
trainer.KEEP_SECONDS = 0.0
original = trainer.Trainer._step

def step_then_stop(self, state, *rest):
    original(self, state, *rest)
    if (state.epoch, state.step) == (2, 7):
        os.kill(os.getpid(), signal.Signals[stop])

stop = sys.argv.pop(1)
if stop != "never":
    trainer.Trainer._step = step_then_stop
main()
"""
COMMAND = ["adapt", "--tune", "class-vectors", "--epochs", "6", "--batch-size", "8", "--lr", "0.03", "--device", "cpu"]


def adapt(store, stop="never"):
    """Runs the command in a process that sends itself a signal in its third epoch."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return commands.run("-c", CHILD, stop, *COMMAND, "--store", store, "--json", env=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(the store and the result of a run that nothing stopped, its folder)"""
    store = write_store(tmp_path_factory.mktemp("whole") / "s.zarr", rows=ROWS)
    result = api.adapt(AdaptConfig(**OPTIONS, device="cpu"), store=store.path)
    return store, result, store.path.parent / "s.detectors/class-vectors"


@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGTERM", 130)])
def test_a_run_that_was_stopped_ends_with_the_numbers_of_one_that_was_not(tmp_path, whole, how, code):
    (alone, result, undisturbed), cut = whole, write_store(tmp_path / "s.zarr", rows=ROWS)
    folder = tmp_path / "s.detectors/class-vectors"
    stopped = adapt(cut.path, how)
    assert stopped.returncode == code, stopped.stderr
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert (folder / "state.pt").exists()
    assert not (folder / "result.json").exists()
    done = adapt(cut.path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == result.kept
    assert not (folder / "state.pt").exists()
    odds = [one.split("train").read_result("scores", "detector").arrays["log_odds"] for one in (alone, cut)]
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-3, atol=1e-3)
    lines = [[json.loads(line) for line in (one / "metrics.jsonl").open()] for one in (undisturbed, folder)]
    assert [line["epoch"] for line in lines[1]] == list(range(1, 7))
    for one, other in zip(*lines):
        assert one["kept"] == pytest.approx(other["kept"], abs=2e-3)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
