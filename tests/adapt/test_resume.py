"""`kill -9` in the middle of learning, and a stop by signal: the same command ends with the same numbers."""

from __future__ import annotations

import json
import os
import signal
import time

import commands
import numpy as np
import pytest
from blobs import write_store

from cleanctl import api
from cleanctl.config import AdaptConfig

OPTIONS = {"tune": "class-vectors", "epochs": 6, "batch_size": 8, "learning_rate": 0.03}
CHILD = """
import sys, time
from cleanctl.adapt import session, trainer
from cleanctl.cli import main
trainer.KEEP_SECONDS = 0.0
steps = trainer.Trainer._step
trainer.Trainer._step = lambda *args: (time.sleep(0.004), steps(*args))[1]
sys.argv = ["cleanctl", *sys.argv[1:]]
main()
"""
COMMAND = ["adapt", "--tune", "class-vectors", "--epochs", "6", "--batch-size", "8", "--lr", "0.03", "--device", "cpu"]


def start(store):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return commands.Command("-c", CHILD, *COMMAND, "--store", store, "--json", env=environment)


def wait_for_state(process, folder):
    """Until it is in an epoch after the first."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        metrics = folder / "metrics.jsonl"
        if (folder / "state.pt").exists() and metrics.exists() and metrics.read_text().count("\n") >= 2:
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_numbers_of_one_that_was_not(tmp_path, how):
    whole, cut = (write_store(tmp_path / name / "s.zarr") for name in ("whole", "cut"))
    folder = tmp_path / "cut/s.detectors/class-vectors"
    process = start(cut.path)
    wait_for_state(process, folder)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), told
    assert not (folder / "result.json").exists()
    done = start(cut.path)
    out, told = done.communicate(timeout=120)
    assert done.returncode == 0, told
    result = api.adapt(AdaptConfig(**OPTIONS, device="cpu"), store=whole.path)
    assert json.loads(out)["kept"] == result.kept
    assert not (folder / "state.pt").exists()
    odds = [one.split("train").read_result("scores", "detector").arrays["log_odds"] for one in (whole, cut)]
    np.testing.assert_allclose(odds[0], odds[1], rtol=1e-3, atol=1e-3)
    files = [tmp_path / name / "s.detectors/class-vectors/metrics.jsonl" for name in ("whole", "cut")]
    lines = [[json.loads(line) for line in file.open()] for file in files]
    assert [line["epoch"] for line in lines[1]] == list(range(1, 7))
    for one, other in zip(*lines):
        assert one["kept"] == pytest.approx(other["kept"], abs=2e-3)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
