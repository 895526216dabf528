"""The same store after any kill, stop or full disk, whatever the loader and however it packs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pytest

from cleanctl.api import embed
from cleanctl.config import EmbedConfig
from cleanctl.embed import splits
from cleanctl.errors import InterruptedRun
from cleanctl.files import local as files
from cleanctl.images.loaders import open_loader
from cleanctl.images.packed.beton import BetonFile
from cleanctl.images.packed.rows import read_rows, table_path
from cleanctl.paths import beton_path
from cleanctl.records import Status
from cleanctl.store import Store

HAS_FFCV = importlib.util.find_spec("ffcv") is not None
WITH_FFCV = [pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed"), pytest.mark.slow]
LOADERS = ["torch", pytest.param("ffcv", marks=WITH_FFCV)]
CHILD = Path(__file__).with_name("embed_child.py")


@pytest.fixture
def kill_and_compare(tmp_path, images, model_dir, arrays):
    def run(loader, events, ending=" -9"):
        (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
        whole, killed = (str(tmp_path / f"{name}.zarr") for name in ("whole", "killed"))
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        done = commands.run(CHILD, images, model_dir, loader, whole, killed, ",".join(events), env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        died = [line for line in done.stdout.splitlines() if line.endswith(ending)]
        assert len(died) >= len(events) // 2, done.stdout
        assert arrays(tmp_path / "killed.zarr") == arrays(tmp_path / "whole.zarr")

    return run


def test_killed_and_resumed_is_equal_to_uninterrupted(kill_and_compare):
    kill_and_compare("torch", ["put:2", "write:4", "written:9", "put:1", "write:12"])


@pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed")
def test_killed_while_packing_and_embedding_in_one_pass_and_resumed_is_equal(tmp_path, kill_and_compare):
    kill_and_compare("ffcv", ["change:60", "put:1", "put:2", "change:30"])
    assert not list(tmp_path.glob(".*.tmp*")), "what killed runs left is removed"


@pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed")
@pytest.mark.parametrize("stop_after", [None, 1, 3])
def test_one_pass_gives_the_store_and_the_file_of_two(
    tmp_path, images, model_dir, monkeypatch, recorder, stop_after, arrays
):
    """Stopped and resumed too: what was packed before the stop is kept, and not read again."""
    cats = images / "train" / "cat"
    (cats / "empty.jpg").write_bytes(b"")
    some = next(path for path in cats.iterdir() if path.stat().st_size)
    for number in range(100):  # more than all queues hold
        shutil.copy(some, cats / f"{number:03d}{some.suffix}")
    model = f"local-dir:{model_dir}"
    config = EmbedConfig(source=images, splits=("train",), model=model, loader="ffcv", device="cpu", batch_size=4)
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(
            splits, "open_loader", lambda request, *rest: open_loader(replace(request, first_row=None), *rest)
        )
        embed(config, store=two)
    monkeypatch.setattr("cleanctl.files.fingerprints._CHUNK", 4)
    read, read_file = [], files.read_file
    monkeypatch.setattr(files, "read_file", lambda path: read.append(path) or read_file(path))
    if stop_after is not None:
        with monkeypatch.context() as patch:
            patch.setattr(splits, "embed_rows", partial(embed_rows_and_stop, splits.embed_rows, stop_after))
            with pytest.raises(InterruptedRun):
                embed(config, store=one)
        kept = read_rows(table_path(beton_path(one, "train"))).status_N != Status.PENDING
        assert 4 * stop_after <= kept.sum() < len(kept)
    embed(config, store=one, progress=recorder)
    assert any("in the same pass" in note for note in recorder.notes)
    assert arrays(one) == arrays(two)
    packed = [BetonFile(beton_path(path, "train")) for path in (one, two)]
    assert len(packed[0]) == len(packed[1])
    assert all(bytes(packed[0][row].data) == bytes(packed[1][row].data) for row in range(len(packed[0])))
    if stop_after is not None:
        first = {f"{config.source}/{key}" for key in np.array(Store.open(one).split("train").keys())[kept]}
        assert all(read.count(path) == 1 for path in first if not path.endswith("empty.jpg"))


def embed_rows_and_stop(embed_rows, batches, *args, on_committed, **more):
    """`embed_rows`, sent a signal after so many batches."""
    left = iter(range(batches)[::-1])

    def settled(tried, reasons):
        on_committed(tried, reasons)
        if next(left, None) == 0:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    return embed_rows(*args, on_committed=settled, **more)


def test_a_full_disk_ends_a_run_with_what_to_do_and_the_next_goes_on(kill_and_compare):
    events = ["full:1", "full:12", "full:17", "full:30"]
    kill_and_compare("torch", events, ending=" 4")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # two runs for each of some two hundred changes
@pytest.mark.parametrize("loader", LOADERS)
def test_killed_before_every_change_of_a_file_and_resumed_is_equal_to_uninterrupted(
    tmp_path, images, model_dir, loader, arrays
):
    """Each time from a fresh store."""
    (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
    whole, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = commands.run(CHILD, images, model_dir, loader, whole, killed, "every", env=environment)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    resumed = sorted(tmp_path.glob("killed-*.zarr"))
    assert len(resumed) > 100
    wanted = arrays(whole)
    assert [path.name for path in resumed if arrays(path) != wanted] == []
