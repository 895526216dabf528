"""Readers never write, see whole versions only, and disturb no writer, however often it is killed inside a swap."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from rows import DIM, embedding_of, everything, fill, manifest_of, names, new_store

from cleanctl.errors import StoreError
from cleanctl.store import Store
from cleanctl.store.files import discard, finish_swap, fresh_path, swap_in

WRITER = """
    import itertools, os, sys
    sys.path.insert(0, {folder!r})
    import numpy as np
    import rows as t
    from cleanctl.store import Store, schema
    schema.BLOCK_ROWS, schema.CHUNK_ROWS = 64, 16
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            store = Store.open({path!r})
            for version in itertools.count(int(line)):
                keys = t.names(100 + version % 3)
                t.fill(store, keys)
                columns = {{"keep": np.ones(len(keys), bool), "votes": np.full(len(keys), version)}}
                store.split("train").write_result("selections", "s", columns, {{"v": version}})
                os.write(1, b".\\n")
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def check_one_version(path: Path) -> int:
    """Reads a split and its selection; gives the number of rows. Raises whatever a reader meets."""
    split = Store.open(path).split("train")
    keys = split.keys()
    time.sleep(0.002)  # a swap may come in between
    assert keys == names(len(keys))
    assert split.label_N().tolist() == manifest_of(keys).label_N.tolist()
    status_N = split.status_N()
    assert len(status_N) == len(keys)
    if split.complete:
        (image_ND,) = [np.concatenate([block for _, block in split.blocks()])]
        assert image_ND.tobytes() == embedding_of(keys).tobytes()
    if "s" in split.selections.attributes():
        result = split.selections.read("s")
        assert len(result.keep) == len(keys)
        if not result.stale:
            assert (result.votes == result.attributes["v"]).all()
    return len(keys)


@pytest.mark.parametrize(("kills", "reads"), [(3, 15), pytest.param(10, 60, marks=pytest.mark.slow)])
def test_a_reader_in_a_loop_beside_a_writer_that_is_killed_and_restarted(tmp_path, kills, reads):
    path = tmp_path / "s.zarr"
    fill(new_store(path), names(100))
    code = textwrap.dedent(WRITER.format(folder=str(Path(__file__).parent), path=str(path)))
    rng, seen = np.random.default_rng(), set()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as zygote:
        for start in range(kills):
            print(start, file=zygote.stdin, flush=True)
            pid = int(zygote.stdout.readline())
            least, here = rng.integers(reads // 3, reads), []
            while len(here) < least or len(set(here)) == 1:  # until the writer has changed something
                os.kill(pid, 0)  # it lives
                here.append(check_one_version(path))
            seen.update(here)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while (line := zygote.stdout.readline().strip()) == ".":
                pass
            assert int(line) == -signal.SIGKILL, zygote.stderr.read()
            before = everything(path)
            seen.add(check_one_version(path))
            assert everything(path) == before, "a reader wrote"
        zygote.stdin.close()
    assert len(seen) > 1, "the writer changed nothing"
    fill(Store.open(path), names(120))
    assert sorted(entry.name for entry in path.iterdir()) == ["train", "zarr.json"], "leftovers are removed"


def test_between_the_two_renames_readers_see_the_old_version_and_the_next_writer_goes_on(tmp_path):
    store = new_store(tmp_path / "s.zarr")
    fill(store, names(50))
    split = store.split("train")
    split.write_result("selections", "s", {"keep": np.ones(50, bool)}, {"theta": 1})
    for folder in (split.path / "selections" / "s", split.path):
        folder.rename(folder.with_name(f".{folder.name}.old"))
    before = everything(store.path)
    again = Store.open(store.path).split("train")
    assert Store.open(store.path).split_names() == ("train",)
    assert again.keys() == names(50)
    assert again.selections.read("s").attributes["theta"] == 1
    assert list(again.results("selections")) == ["s"]
    assert everything(store.path) == before
    fill(store, names(50))
    Store.open(store.path).split("train").write_result("selections", "s", {"keep": np.zeros(50, bool)}, {})
    assert not Store.open(store.path).split("train").selections.read("s").keep.any()
    assert not list(store.path.rglob("*.old"))


def test_a_reader_keeps_the_version_that_it_opened_until_it_lets_go(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys)
    old = store.split("train")
    fill(store, names(150))
    fill(store, names(30))
    assert old.keys() == keys
    assert next(iter(old.blocks()))[1].shape == (64, DIM)
    assert np.concatenate([block for _, block in old.blocks()]).tobytes() == embedding_of(keys).tobytes()
    del old
    fill(store, names(30))
    assert sorted(entry.name for entry in store.path.iterdir()) == ["train", "zarr.json"]


def test_a_swap_never_leaves_a_place_empty(tmp_path):
    final = tmp_path / "a"
    for number in range(3):
        fresh_path(final).mkdir()
        (fresh_path(final) / "n").write_text(str(number))
        swap_in(final)
        assert (final / "n").read_text() == str(number)
    final.rename(tmp_path / ".a.old")
    finish_swap(final)
    assert (final / "n").read_text() == "2"
    discard(final)
    assert list(tmp_path.iterdir()) == []


def test_results_are_read_though_nobody_keeps_the_split(tmp_path):
    store = new_store(tmp_path / "s.zarr")
    fill(store, names(50))
    store.split("train").write_result("selections", "s", {"keep": np.ones(50, bool)}, {"theta": 1})
    selections = Store.open(store.path).split("train").selections
    assert selections.read("s").attributes["theta"] == 1
    assert list(Store.open(store.path).split("train").selections.attributes()) == ["s"]


def test_zarr_itself_opens_a_store_without_a_warning(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys)
    split = store.split("train")
    split.write_result("scores", "z", {"p_label": np.ones(100, np.float32)}, {})
    split.write_result("selections", "s", {"keep": np.ones(100, bool)}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(str(store.path), mode="r")
        assert "train/selections/s/keep" in dict(group.members(max_depth=None))
        assert zarr.open(str(store.path), mode="r")["train/scores/z/p_label"][...].sum() == 100
    assert not list(store.path.rglob("*.lock"))


@pytest.mark.parametrize(
    "name", ["text", "..", ".", "", "a/b", "a\\b", ".x", "\x1b[31mred", "a\nb", "n" * 101, "zarr.json"]
)
def test_a_split_never_leaves_the_store(tmp_path, name):
    store = new_store(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="A split cannot be named"):
        fill(store, [], manifest=manifest_of(["a"], split=name))
    with pytest.raises(StoreError, match="A split cannot be named"):
        store.split(name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) in ([".s.zarr.lock", "s.zarr"], ["s.zarr"])
    assert [entry.name for entry in store.path.iterdir()] == ["zarr.json"]


@pytest.mark.parametrize("place", ["file", "file/x", "file/x/y", "n" * 300, "link", "link/x", "", "a\0b"])
def test_a_place_where_no_store_can_be_is_told(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    path = tmp_path / place if place else Path()
    for attempt in (Store.open, Store.exists, new_store):
        with pytest.raises(StoreError, match=r"The store .* Choose another place"):
            attempt(path)
    assert (tmp_path / "file").read_text() == "x"
