"""The same numbers on a GPU as on a CPU: a training step, embeddings, two processes that share one card.

Each test runs on a CPU as well, against the very reference that the GPU is held to, so that on a card nothing but the
card is new.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cleanctl import api
from cleanctl.config import EmbedConfig
from cleanctl.progress import SILENT
from cleanctl.registry import METHODS
from cleanctl.runtime import StopFlag
from cleanctl.store import Store

ROOT = Path(__file__).resolve().parents[1]
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def trained(method, device, precision):
    """Losses of two steps of a small network, and what they changed of its weights."""
    from cleanctl.train.engine import Engine, State
    from cleanctl.train.methods.method import Compute, Setup
    from cleanctl.train.pixels import HeldPixels
    from cleanctl.train.recipe import load_recipe

    recipe = replace(load_recipe("cifar10"), network="preact-resnet18-w8", batch_size=16, learning_rate=0.01)
    rng = np.random.default_rng(0)
    pixel = torch.from_numpy(rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)).to(device)
    label, every = rng.integers(0, 10, 32).astype(np.int32), np.ones(32, bool)
    torch.manual_seed(0)
    setup = Setup(
        recipe=recipe,
        num_classes=10,
        compute=Compute(device=device, precision=precision),
        label_M=label,
        selected_M=every,
    )
    engine = Engine(METHODS.load(method)(setup), pixels=HeldPixels(pixel, every, device), seed=0, steps=2)
    losses, step = [], engine._step
    engine._step = lambda *arguments: losses.append(step(*arguments)) or losses[-1]
    weights = list(engine.method.network.parameters())
    before = [weight.detach().cpu().clone() for weight in weights]
    with SILENT.track("test", total=None, unit="images") as task:
        engine.train_epoch(State(members=engine.method.members()), task, StopFlag(), lambda: None)
    change = torch.cat([(weight.detach().cpu() - was).flatten() for weight, was in zip(weights, before)])
    return torch.stack(losses).float().cpu(), change


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("method", ["cross-entropy", "mixfix"])
def test_steps_in_bf16_are_those_of_float32_on_a_cpu(method, device):
    expected, expected_change = trained(method, "cpu", "fp32")
    losses, change = trained(method, device, "bf16")
    assert torch.allclose(losses, expected, rtol=0.05), (losses, expected)
    assert torch.cosine_similarity(change, expected_change, dim=0) > 0.95
    assert 0.9 < change.norm() / expected_change.norm() < 1.1


@pytest.fixture
def config(images, model_dir):
    return EmbedConfig(
        source=images, model=f"local-dir:{model_dir}", loader="torch", device="cpu", batch_size=4, workers=0
    )


def embeddings(store):
    """key → row."""
    split = Store.open(store).split("train")
    return dict(zip(split.keys(), split.embeddings(slice(None)).astype(np.float32), strict=True))


def least_cosine(found, expected):
    assert found.keys() == expected.keys()
    cosine = (found[key] @ row / np.linalg.norm(found[key]) / np.linalg.norm(row) for key, row in expected.items())
    return min(map(float, cosine))


@pytest.mark.parametrize(
    ("device", "precision", "loader", "least"),
    [
        ("cpu", "fp32", "torch", 0.9999),
        pytest.param("cuda", "fp32", "torch", 0.9999, marks=pytest.mark.gpu),
        pytest.param("cuda", "fp16", "torch", 0.999, marks=pytest.mark.gpu),
        pytest.param("cuda", "fp16", "nvjpeg", 0.998, marks=pytest.mark.gpu),
    ],
)
def test_embeddings_of_a_device_are_those_of_a_cpu(config, tmp_path, device, precision, loader, least):
    """In batches of its own size, the device's pixels left on it where it made them."""
    if loader == "nvjpeg":
        pytest.importorskip("torchcodec")
    api.embed(replace(config, precision="fp32"), store=tmp_path / "expected.zarr")
    asked = replace(config, device=device, precision=precision, loader=loader, batch_size=None)
    api.embed(asked, store=tmp_path / "found.zarr")
    expected = embeddings(tmp_path / "expected.zarr")
    assert least_cosine(embeddings(tmp_path / "found.zarr"), expected) >= least
    keys = list(expected)
    assert least_cosine({key: expected[other] for key, other in zip(keys, keys[1:] + keys[:1])}, expected) < least


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
def test_two_processes_share_one_card_and_fill_one_store(config, tmp_path, device):
    api.embed(replace(config, precision="fp32"), store=tmp_path / "expected.zarr")
    line = [sys.executable, "-m", "cleanctl", "embed", str(config.source), "--model", config.model]
    line += ["--loader", "torch", "--workers", "0", "--device", device, "--precision", "fp32"]
    line += ["--store", str(tmp_path / "shared.zarr")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    shards = [subprocess.Popen([*line, "--shard", f"{one}/2"], env=environment) for one in range(2)]
    assert [shard.wait() for shard in shards] == [0, 0]
    assert subprocess.run([*line, "--finish"], env=environment, check=False).returncode == 0
    found, expected = embeddings(tmp_path / "shared.zarr"), embeddings(tmp_path / "expected.zarr")
    assert least_cosine(found, expected) >= 0.9999
