"""What `--engine ray` decides before a cluster starts: options, seats, parts, locks."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import pytest

from cleanctl.api import embed
from cleanctl.config import AdaptConfig
from cleanctl.distributed.ray_cluster import choose_seat
from cleanctl.distributed.ray_embed import part_length
from cleanctl.errors import MissingPackageError, StoreError, UsageError
from cleanctl.records import BlockPart, Shard
from cleanctl.store import Store, locks

GPU_NODE = {"CPU": 16.0, "GPU": 4.0}
CPU_NODE = {"CPU": 10.0}


def test_an_option_that_the_engine_would_ignore_is_refused(config):
    for more in ({"shard": "0/2"}, {"devices": ("cpu", "cpu")}, {"finish": True}):
        with pytest.raises(UsageError, match="--engine ray were given together"):
            replace(config, engine="ray", **more)
    for more in ({"ray_address": "head:6379"}, {"ray_cores": 2}):
        with pytest.raises(UsageError, match="was given with --engine local"):
            replace(config, **more)
    with pytest.raises(UsageError, match="--engine ray was given without --apply"):
        AdaptConfig(engine="ray")
    with pytest.raises(UsageError, match="--ray-address was given with --engine local"):
        AdaptConfig(apply="prompts", ray_address="auto")
    for wrong in ("ray://head:10001", "head", "head:", ":6379"):
        with pytest.raises(UsageError, match="--ray-address is"):
            replace(config, engine="ray", ray_address=wrong)


def test_without_ray_the_error_names_the_extra_and_no_store_is_made(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"--engine ray.*\[ray\]") as caught:
        embed(replace(config, engine="ray"), store=tmp_path / "s.zarr")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("nodes", "device", "cores", "shown", "count"),
    [
        ([CPU_NODE, CPU_NODE], "auto", None, "4 cores", 4),
        ([{"CPU": 2.0}], "auto", None, "2 cores", 1),
        ([{"CPU": 2.0}], "cpu", 1, "1 core", 2),
        ([GPU_NODE, CPU_NODE], "auto", None, "a GPU and 4 cores", 4),
        ([GPU_NODE, {"CPU": 4.0, "GPU": 4.0}], "cuda", None, "a GPU and 1 core", 8),
        ([GPU_NODE, CPU_NODE], "cpu", 8, "8 cores", 3),
        ([{"GPU": 2.0}, GPU_NODE], "auto", None, "a GPU and 0 cores", 6),
    ],
)
def test_an_actor_has_a_gpu_with_its_share_of_the_cores_or_a_set_of_cores(nodes, device, cores, shown, count):
    seat = choose_seat(nodes, device, cores)
    assert (str(seat), seat.count(nodes)) == (shown, count)


def test_a_seat_that_no_node_has_is_refused():
    with pytest.raises(UsageError, match="no node of the Ray cluster has a GPU"):
        choose_seat([CPU_NODE], "cuda", None)
    with pytest.raises(UsageError, match="11 cores, and no node"):
        choose_seat([CPU_NODE], "auto", 11)


@pytest.mark.parametrize(
    ("rows", "workers", "length"),
    [(100_000_000, 64, 65_536), (1_281_167, 8, 16_384), (50_000, 2, 2048), (768, 2, 128), (60, 2, 128)],
)
def test_parts_are_whole_blocks_where_each_worker_gets_several(rows, workers, length):
    assert part_length(rows, workers) == length
    parts = BlockPart.of("train", rows, length)
    bounds = [(part.rows(rows).start, part.rows(rows).stop) for part in parts]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == rows
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))


def test_beside_an_engine_lone_runs_and_shards_are_refused_and_its_parts_exclude_each_other(tmp_path, monkeypatch):
    store, none = tmp_path / "s.zarr", lambda: None
    monkeypatch.setattr(locks, "START_SECONDS", 0.3)
    monkeypatch.setattr(locks, "ENGINE_SECONDS", 0.3)
    part, other, namesake = BlockPart("train", 0, 64), BlockPart("train", 1, 64), BlockPart("test", 0, 64)
    with locks.engine_lock(store, none), locks.shard_lock(store, part, none):
        with locks.shard_lock(store, other, none), locks.shard_lock(store, namesake, none):
            pass
        with pytest.raises(StoreError, match="being written by another process"), locks.writer_lock(store):
            pass
        with pytest.raises(StoreError, match="being written"), locks.engine_lock(store, none):
            pass
        with pytest.raises(StoreError, match="divide its rows otherwise"), locks.shard_lock(store, Shard(0, 2), none):
            pass
        with pytest.raises(StoreError, match="rows from 0"), locks.shard_lock(store, part, none):
            pass  # a worker that was thought dead is still at it
    with locks.writer_lock(store):
        locks.remove_shard_locks(store)
    assert not list(tmp_path.glob(".*shard*"))


def test_prepare_tells_what_an_earlier_run_left_and_parts_finish_it(config, tmp_path, arrays, monkeypatch):
    """What the actors call, in this process: no Ray."""
    from cleanctl.datasets.source import open_source
    from cleanctl.embed.embed import open_run
    from cleanctl.progress import SILENT
    from cleanctl.runtime import StopFlag
    from cleanctl.store import schema

    monkeypatch.setattr(schema, "BLOCK_ROWS", 8)
    monkeypatch.setattr(schema, "CHUNK_ROWS", 4)
    whole, parted = tmp_path / "whole.zarr", tmp_path / "parted.zarr"
    embed(config, store=whole)
    run = open_run(open_source(config), parted, config, stop=StopFlag(), progress=SILENT)
    assert [int(pending.sum()) for pending in run.prepare().pending.values()] == [21]
    first, *others = BlockPart.of("train", 21, 8)
    assert run.embed_part(first)[0].embedded == 8
    assert run.prepare().pending["train"].nonzero()[0].tolist() == list(range(8, 21))
    with pytest.raises(StoreError, match="13 of 21 images"):
        run.finish()
    for part in reversed(others):
        run.embed_part(part)
    assert run.finish().complete
    assert arrays(parted) == arrays(whole)
    assert Store.open(parted).split("train").complete
