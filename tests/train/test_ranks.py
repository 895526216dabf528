"""Several processes that train one network: what they compute is what one process computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import RECIPE, MemoryLoader, draw, make_store, truth

from cleanctl.errors import UsageError
from cleanctl.runtime import torchrun_place
from cleanctl.train.pixels import StreamedPixels
from cleanctl.train.ranks import Ranks
from cleanctl.train.shared_pixels import SharedPixels, shared

CHILD = Path(__file__).with_name("rank_child.py")
# A network with batch norms, batches that do not divide by two, MixFix's members from the first epoch on.
TWO_EPOCHS = RECIPE.replace("epochs = 3", "epochs = 2").replace("batch_size = 16", "batch_size = 15")


def start(folder: Path, *arguments: str, ranks: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(CHILD.parent), *sys.path])}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *(torchrun if ranks > 1 else []), str(CHILD), str(folder / "s.zarr"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    make_store(path / "s.zarr")
    (path / "tiny.toml").write_text(TWO_EPOCHS)
    return path


def both(folder: Path, method: str, cache: str = "ram") -> tuple[Path, Path]:
    """The run folders of one process and of two."""
    for ranks in (1, 2):
        done = start(folder, str(folder / "tiny.toml"), method, f"{method}-{cache}-{ranks}", cache, ranks=ranks)
        assert done.returncode == 0, done.stderr[-3000:]
    alone, shared = (folder / "s.runs" / f"{method}-{cache}-{ranks}" for ranks in (1, 2))
    return alone, shared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "cache"),
    [("mixfix", "ram"), ("mixfix", "none"), ("elr", "ram"), ("co-training", "ram"), ("dividemix", "ram")],
)
def test_two_processes_give_the_numbers_of_one(folder: Path, method: str, cache: str) -> None:
    alone, shared = both(folder, method, cache)
    told = [json.loads((folder / f"{name}.json").read_text()) for name in (f"{alone.name}-0", f"{shared.name}-0")]
    other = json.loads((folder / f"{shared.name}-1.json").read_text())
    assert told[0]["members"] == told[1]["members"] == other["members"]
    assert told[1]["last_top1"] == other["last_top1"]
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (alone, shared)]
    for one, two in zip(*lines, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
        assert one["seen"] == two["seen"]
    weights = [torch.load(run / "last.pt", weights_only=True)["state_dict"] for run in (alone, shared)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        np.testing.assert_allclose(value.numpy(), weights[1][key].numpy(), rtol=2e-3, atol=2e-3, err_msg=key)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_a_message(folder: Path) -> None:
    done = start(folder, str(folder / "tiny.toml"), "mixfix", "dies", "ram", "die", ranks=2)
    assert done.returncode != 0
    assert "Another process of this torchrun has ended" in done.stderr or "exitcode  : 9" in done.stderr
    assert not (folder / "s.runs" / "dies" / "result.json").exists()


class Two(Ranks):
    """Rank `number` of two, whose other answers with the same tensor."""

    def __init__(self, number: int) -> None:
        super().__init__(number, 2)
        self.sent: list[torch.Tensor] = []

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.sent.append(tensor)
        return [tensor, tensor]


def test_each_process_reads_its_part_of_every_batch_and_an_idle_one_sends_nothing_of_its_own() -> None:
    pixel = draw(truth("train"), seed=1)
    every = np.ones(len(pixel), bool)
    position = [np.arange(10, 17), np.arange(3, 10), np.arange(1)]
    for number, parts in enumerate([([10, 11, 12, 13], [3, 4, 5, 6], [0]), ([14, 15, 16], [7, 8, 9], [])]):
        ranks = Two(number)
        loader = MemoryLoader(pixel, frozenset({4, 15}))
        pixels = shared(StreamedPixels(loader, np.arange(len(pixel)), every, "cpu"), ranks)
        assert isinstance(pixels, SharedPixels)
        found = list(pixels.batches(position))
        assert len(found) == 3
        for (ok, image), part in zip(zip(ranks.sent[::2], ranks.sent[1::2]), parts):
            readable = [row for row in part if row not in (4, 15)]
            assert ok[: len(part)].tolist() == [row in readable for row in part]
            assert np.array_equal(image[: len(readable)].numpy(), pixel[readable])
            assert not ok[len(part) :].any()


def test_one_process_is_alone_unless_torchrun_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torchrun_place() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert torchrun_place() == (0, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert torchrun_place() == (3, 4)


def test_seeds_are_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from cleanctl import api
    from cleanctl.config import TrainConfig

    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--seeds was given under torchrun"):
        api.train_seeds(TrainConfig(device="cpu"), 2, store=folder / "s.zarr")
