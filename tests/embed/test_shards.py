"""Many processes, one store: without a coordinator, whoever dies, the store of a single process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import commands
import pytest

from cleanctl.api import embed, select
from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError, UsageError
from cleanctl.store import Store, locks

CHILD = Path(__file__).with_name("share_child.py")


def test_four_processes_two_of_them_killed_and_the_others_go_on(tmp_path, images, model_dir, arrays):
    (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
    whole, shared = (str(tmp_path / f"{name}.zarr") for name in ("whole", "shared"))
    rounds = "put:1,none,write:2,none;none,-,none,-"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = commands.run(CHILD, images, model_dir, "torch", whole, shared, rounds, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = done.stdout.splitlines()
    assert first == "-9 0 -9 0 4", "two are killed, two end, and --finish says that rows are missing (exit 4)"
    assert second == "0 0 0"
    assert arrays(Path(shared)) == arrays(Path(whole))


def test_a_shard_of_a_new_store_reads_no_file_for_its_checksum_alone(config, images, tmp_path, recorder):
    (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
    embed(replace(config, shard="0/2"), store=tmp_path / "s.zarr", progress=recorder)
    assert "checksums" not in {title for title, _, _ in recorder.tracked}


def test_the_last_shard_completes_the_store_and_a_verb_that_comes_later_would_too(
    config, tmp_path, monkeypatch, arrays
):
    whole, shared = tmp_path / "whole.zarr", tmp_path / "shared.zarr"
    embed(config, store=whole)
    summaries = [embed(replace(config, shard=f"{i}/3"), store=shared) for i in range(3)]
    assert [summary.complete for summary in summaries] == [False, False, True]
    assert sum(split.images for summary in summaries for split in summary.splits) == 21
    assert arrays(shared) == arrays(whole)

    late = tmp_path / "late.zarr"
    with monkeypatch.context() as patch:  # the last to end dies before it joins the shares
        patch.setattr(Store, "finish_split", lambda store, manifest: None)
        for i in range(3):
            embed(replace(config, shard=f"{i}/3"), store=late)
    assert not Store.open(late).split("train").complete
    select(SelectConfig(strategy="zeroshot.match"), store=late)
    assert Store.open(late).split("train").complete
    embed(replace(config, finish=True), store=late)
    assert arrays(late) == arrays(whole)


def test_what_is_missing_is_named_and_a_lone_run_embeds_it(config, tmp_path):
    store = tmp_path / "s.zarr"
    embed(replace(config, shard="1/2"), store=store)
    with pytest.raises(StoreError, match=r"10 of 21 images of split 'train' are not embedded") as caught:
        embed(replace(config, finish=True), store=store)
    assert caught.value.exit_code == 4
    with pytest.raises(StoreError, match=r"11 of 21 rows are embedded; missing are rows of the shards 0/2"):
        select(SelectConfig(), store=store)
    assert [split.embedded for split in embed(config, store=store).splits] == [10]


def test_ffcv_files_of_shards_are_gone_when_the_store_is_complete(config, tmp_path, arrays):
    pytest.importorskip("ffcv")
    whole, shared = tmp_path / "whole.zarr", tmp_path / "shared.zarr"
    ffcv = replace(config, loader="ffcv")
    embed(replace(ffcv, shard="0/2"), store=shared)
    assert (tmp_path / "shared.train.0-of-2.beton").exists()
    embed(replace(ffcv, shard="1/2"), store=shared)
    assert not list(tmp_path.glob("*-of-2.beton*"))
    embed(ffcv, store=whole)
    assert arrays(shared) == arrays(whole)


def test_a_shard_is_refused_beside_a_lone_run_and_in_a_division_that_makes_no_sense(config, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    embed(config, store=store)
    monkeypatch.setattr(locks, "START_SECONDS", 0.2)
    with Store.open(store).lock(), pytest.raises(StoreError, match="being written by another process"):
        embed(replace(config, shard="0/2"), store=store)
    for wrong in ("2/2", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(UsageError, match="--shard is"):
            replace(config, shard=wrong)
    for pair in ({"finish": True}, {"devices": ("0",)}, {"replace": True}):
        with pytest.raises(UsageError, match="--shard"):
            replace(config, shard="0/2", **pair)
    with pytest.raises(UsageError, match=r"--devices is .0,gpu."):
        replace(config, devices=("0", "gpu"))
