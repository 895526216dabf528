"""Promises about `--devices`: the store of one process, errors and stop signals passed on."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cleanctl.api import embed
from cleanctl.errors import StoreError, UsageError


def test_devices_are_processes_that_fill_one_store(config, tmp_path, recorder, arrays, quick_spawn):
    whole, shared = tmp_path / "whole.zarr", tmp_path / "shared.zarr"
    one = embed(config, store=whole)
    many = embed(replace(config, devices=("cpu", "cpu")), store=shared, progress=recorder)
    assert many.complete
    counts = [(split.split, split.images, split.embedded) for split in many.splits]
    assert counts == [(split.split, split.images, split.embedded) for split in one.splits]
    assert arrays(shared) == arrays(whole)
    assert any(title == "embedding train" for title, _, _ in recorder.tracked)


def test_an_error_of_a_devices_process_is_this_runs_error(config, other_model_dir, tmp_path, quick_spawn):
    embed(config, store=tmp_path / "s.zarr")
    other = replace(config, model=f"local-dir:{other_model_dir}", devices=("cpu", "cpu"))
    with pytest.raises(StoreError, match="was made with"):
        embed(other, store=tmp_path / "s.zarr")


def test_a_stop_signal_reaches_the_processes_of_all_devices(config, tmp_path):
    child = Path(__file__).with_name("devices_child.py")
    model = config.model.removeprefix("local-dir:")
    command = [sys.executable, str(child), str(config.source), model, str(tmp_path / "s.zarr")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert "2 processes" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "interrupted 130"


def test_a_process_killed_while_it_sends_is_this_runs_error_and_the_run_ends(tmp_path):
    child = Path(__file__).with_name("kill_child.py")
    command = [sys.executable, str(child), str(tmp_path), "4", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = done.stdout.splitlines()
    assert [line[line.index("died") :].partition(".")[0] for line in told] == ["died (signal 9)"] * 4


def test_one_processor_is_this_process(config, tmp_path, recorder, monkeypatch):
    monkeypatch.setattr("multiprocessing.get_context", None)
    summary = embed(replace(config, devices=("cpu",)), store=tmp_path / "s.zarr", progress=recorder)
    assert (summary.complete, summary.shard, summary.device) == (True, None, "cpu")


@pytest.mark.parametrize("devices", [("0",), ("cpu", "7")])
def test_a_device_that_is_not_there_is_refused_before_a_process_starts(config, tmp_path, devices, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0 if devices == ("0",) else 2)
    monkeypatch.setattr("multiprocessing.get_context", None)
    with pytest.raises(UsageError, match=f"--devices names {devices[-1]}"):
        embed(replace(config, devices=devices), store=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
