"""Small copies of the published datasets go through every verb, and one of them is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import commands
import pytest
from published_copy import copies

from cleanctl import api
from cleanctl.config import EmbedConfig, EvalConfig, SelectConfig, TrainConfig
from cleanctl.paths import runs_dir
from cleanctl.store import Store

EMBED_CHILD = Path(__file__).parents[1] / "embed" / "embed_child.py"
COPIES = copies()
FROM_FILES = [copy for copy in COPIES if copy.dataset not in ("cifar10", "cifar100", "mnist")]  # see test_pixel_journey


@pytest.mark.slow
@pytest.mark.parametrize("copy", FROM_FILES, ids=lambda copy: f"{copy.title}-{copy.build.__name__}")
def test_embed_select_train_and_eval_follow(copy, model_dir, tmp_path):
    copy.build(tmp_path / "data")
    store = tmp_path / "s.zarr"
    embed = EmbedConfig(
        source=tmp_path / "data", dataset=copy.dataset, variant=copy.variant, model=f"local-dir:{model_dir}",
        prompts="photo", loader="torch", workers=0, batch_size=16, device="cpu",
    )  # fmt: skip
    done = api.embed(embed, store=store)
    assert {split.split: (split.ok, split.failed) for split in done.splits} == {
        name: (len(rows), 0) for name, rows in copy.rows.items()
    }
    assert [split.embedded for split in api.embed(embed, store=store).splits] == [0] * len(copy.rows)
    api.select(SelectConfig(strategy="zeroshot.consistency", theta_consistency=0.01, name="some"), store=store)
    train = TrainConfig(
        recipe="cpu-small", selection="some", epochs=1, image_size=32, batch_size=8, device="cpu", loader="torch",
        workers=0, name="run",
    )  # fmt: skip
    trained = api.train(train, store=store)
    assert trained.epochs == 1
    assert trained.test_split == ("test" if "test" in copy.rows else "val")
    report = api.evaluate(EvalConfig(device="cpu"), store=store).to_json()
    tested = {run["split"]: run["accuracy"]["count"] for run in report["runs"]}
    assert tested.get("ilsvrc", 0) == len(copy.rows.get("ilsvrc", ()))
    assert tested[trained.test_split] == len(copy.rows[trained.test_split])
    known = any(len(row) == 3 for row in copy.rows["train"])
    assert (report["selection"] is not None) == known


@pytest.fixture
def clothing(tmp_path) -> Path:
    next(copy for copy in COPIES if copy.dataset == "clothing1m").build(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.slow
def test_embedding_killed_at_any_moment_and_resumed_is_equal_to_uninterrupted(clothing, model_dir, tmp_path, arrays):
    whole, killed = (str(tmp_path / f"{name}.zarr") for name in ("whole", "killed"))
    events = ["put:2", "write:4", "written:9", "change:30"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = commands.run(EMBED_CHILD, clothing, model_dir, "torch", whole, killed, ",".join(events), env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    died = [line for line in done.stdout.splitlines() if line.endswith(" -9")]
    assert len(died) >= 2, done.stdout
    assert arrays(tmp_path / "killed.zarr") == arrays(tmp_path / "whole.zarr")
    assert Store.open(whole).source["layout"] == "clothing1m"


def run_of(store: Path) -> Path:
    return runs_dir(store) / "run"


def epochs_of(store: Path) -> list[dict]:
    metrics = run_of(store) / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


@pytest.mark.slow
def test_training_killed_and_run_again_goes_on_where_it_was(clothing, model_dir, tmp_path):
    store = tmp_path / "s.zarr"
    embed = EmbedConfig(
        source=clothing, variant="balanced:28", seed=5, model=f"local-dir:{model_dir}", prompts="photo",
        loader="torch", workers=0, device="cpu",
    )  # fmt: skip
    api.embed(embed, store=store)
    line = [
        *("-m", "cleanctl", "train", "--store", store, "--selection", "all", "--name", "run"),
        *("--recipe", "cpu-small", "--epochs", "40", "--image-size", "32", "--batch-size", "4"),
        *("--device", "cpu", "--loader", "torch", "--workers", "0", "--json"),
    ]
    with commands.Command(*line) as first:
        while not epochs_of(store) and first.poll() is None:
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    before = epochs_of(store)
    assert 1 <= len(before) < 40
    done = commands.run(*line)
    assert done.returncode == 0, done.stderr[-3000:]
    after = epochs_of(store)
    assert [epoch["epoch"] for epoch in after] == list(range(1, 41))
    assert after[: len(before)] == before
    assert Store.open(store).split("train").num_rows == 28
