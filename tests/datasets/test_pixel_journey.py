"""Images inside CIFAR's pickles and MNIST's idx files go through every verb as files do."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest

from cleanctl import api
from cleanctl.config import EmbedConfig, EvalConfig, SelectConfig, TrainConfig
from cleanctl.images import loaders
from cleanctl.images.nvjpeg_loader import NvjpegLoader
from cleanctl.paths import runs_dir
from cleanctl.store import Store

CHILD = Path(__file__).parents[1] / "embed" / "embed_child.py"
HAS_FFCV = importlib.util.find_spec("ffcv") is not None


@pytest.fixture
def config(tiny_model, build, tmp_path) -> EmbedConfig:
    build("cifar10", tmp_path / "data")
    model = f"local-dir:{tiny_model}"
    return EmbedConfig(
        source=tmp_path / "data", model=model, device="cpu", loader="torch", prompts="photo", workers=1, batch_size=8
    )


def test_every_loader_embeds_rows_of_a_pickle_and_a_second_run_none(config, kind, tmp_path, monkeypatch):
    if kind == "nvjpeg on cpu":
        kind = "nvjpeg"
        monkeypatch.setattr(loaders, "open_nvjpeg", partial(NvjpegLoader, device="cpu"))
    config = replace(config, loader=kind)
    done = api.embed(config, store=tmp_path / "s.zarr")
    assert {split.split: (split.ok, split.embedded) for split in done.splits} == {"test": (8, 8), "train": (40, 40)}
    image_ND = np.concatenate([image for _, image in Store.open(tmp_path / "s.zarr").split("train").blocks()])
    api.embed(replace(config, loader="torch", workers=0), store=tmp_path / "plain.zarr")
    plain_ND = np.concatenate([image for _, image in Store.open(tmp_path / "plain.zarr").split("train").blocks()])
    assert np.abs(image_ND.astype(np.float32) - plain_ND).max() < 2e-3  # float16; batches may round otherwise
    assert [split.embedded for split in api.embed(config, store=tmp_path / "s.zarr").splits] == [0, 0]


def test_one_changed_image_is_embedded_alone(config, tmp_path):
    api.embed(config, store=tmp_path / "s.zarr")
    path = tmp_path / "data/cifar-10-batches-py/data_batch_4"
    data = bytearray(path.read_bytes())
    payload = pickle.loads(bytes(data), encoding="bytes")[b"data"].tobytes()
    data[data.find(payload) + 3072 * 5] ^= 0xFF  # a pixel of the sixth image
    path.write_bytes(data)
    os.utime(path, ns=(0, 5 * 10**9))
    done = {split.split: split for split in api.embed(config, store=tmp_path / "s.zarr").splits}
    assert (done["train"].embedded, done["test"].embedded) == (1, 0)


@pytest.mark.slow
def test_shards_give_the_store_of_one_process(config, tmp_path, arrays):
    config = replace(config, workers=0)
    api.embed(config, store=tmp_path / "whole.zarr")
    for number in range(3):
        api.embed(replace(config, shard=f"{number}/3"), store=tmp_path / "parts.zarr")
    assert arrays(tmp_path / "parts.zarr") == arrays(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_embed_select_train_and_eval_follow(config, build, name, tmp_path):
    build(name, tmp_path / name)
    store = tmp_path / "s.zarr"
    api.embed(replace(config, source=tmp_path / name, noise="symmetric:0.3", workers=0), store=store)
    api.select(SelectConfig(strategy="zeroshot.consistency", theta_consistency=0.1, name="some"), store=store)
    train = TrainConfig(
        recipe="cpu-small", selection="some", epochs=1, image_size=32, batch_size=8, device="cpu", loader="torch",
        workers=0, name="run",
    )  # fmt: skip
    done = api.train(train, store=store)
    assert (done.epochs, done.test_split) == (1, "test")
    assert api.evaluate(EvalConfig(), store=store) is not None


def kill_and_compare(config, tmp_path, arrays, loader: str, events: list[str]) -> None:
    whole, killed = (str(tmp_path / f"{name}.zarr") for name in ("whole", "killed"))
    model = config.model.removeprefix("local-dir:")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = commands.run(CHILD, config.source, model, loader, whole, killed, ",".join(events), env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    died = [line for line in done.stdout.splitlines() if line.endswith(" -9")]
    assert len(died) >= len(events) // 2, done.stdout
    assert arrays(tmp_path / "killed.zarr") == arrays(tmp_path / "whole.zarr")


@pytest.mark.slow
@pytest.mark.parametrize(
    "loader",
    ["torch", pytest.param("ffcv", marks=pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed"))],
)
def test_killed_at_any_moment_and_resumed_is_equal_to_uninterrupted(config, tmp_path, arrays, loader):
    kill_and_compare(config, tmp_path, arrays, loader, ["put:2", "write:4", "written:9", "put:1", "change:30"])


@pytest.mark.slow
def test_two_processes_of_the_command_line_give_the_same_store(config, tmp_path, arrays):
    words = ["--model", config.model, "--prompts", "photo", "--device", "cpu", "--loader", "torch", "--workers", "0"]
    line = [sys.executable, "-m", "cleanctl", "embed", str(config.source), *words, "--json", "--store"]
    for name in ("a", "b"):
        done = subprocess.run([*line, str(tmp_path / f"{name}.zarr")], capture_output=True, text=True, check=True)
        assert [split["embedded"] for split in json.loads(done.stdout)["splits"]] == [8, 40]
    assert arrays(tmp_path / "a.zarr") == arrays(tmp_path / "b.zarr")


@pytest.mark.slow
def test_training_that_reads_the_pickles_in_every_epoch_is_killed_and_goes_on(config, tmp_path):
    store = tmp_path / "s.zarr"
    api.embed(replace(config, workers=0), store=store)
    metrics = runs_dir(store) / "run/metrics.jsonl"
    line = [
        *("-m", "cleanctl", "train", "--store", store, "--selection", "all", "--name", "run"),
        *("--recipe", "cpu-small", "--epochs", "30", "--image-size", "32", "--batch-size", "8", "--cache", "none"),
        *("--device", "cpu", "--loader", "torch", "--workers", "0", "--json"),
    ]

    def epochs() -> list[dict]:
        return [json.loads(one) for one in metrics.read_text().splitlines()] if metrics.exists() else []

    with commands.Command(*line) as first:
        while not epochs() and first.poll() is None:
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    before = epochs()
    assert 1 <= len(before) < 30
    done = commands.run(*line)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [epoch["epoch"] for epoch in epochs()] == list(range(1, 31))
    assert epochs()[: len(before)] == before
