"""The store's promises: whole or absent, the same after a kill, nothing embedded twice, damage found, one writer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from rows import DIM, embedding_of, everything, fill, fingerprints_of, manifest_of, names, new_store

from cleanctl.errors import StoreError
from cleanctl.records import SplitManifest, Status, TextEmbeddings
from cleanctl.store import Store


def test_rows_come_back_in_order_with_failures_counted(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(150)
    fill(store, keys, fail={keys[3], keys[149]})
    split = store.split("train")
    assert split.keys() == keys
    assert split.failures() == {3: "truncated", 149: "truncated"}
    assert split.complete
    ok = split.ok_rows()
    assert len(ok) == 148
    seen = np.concatenate([block for _, block in split.blocks()])
    np.testing.assert_array_equal(seen, embedding_of([keys[row] for row in ok]))
    slices = [rows for rows, _ in split.blocks()]
    assert [s.start for s in slices] == [0, 63, 127]
    assert slices[-1].stop == split.blocks().num_rows == 148


def test_failed_rows_are_nan_and_never_zero(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(5)
    fill(store, keys, fail={keys[2]})
    assert np.isnan(store.split("train").embeddings(slice(2, 3))).all()


def test_a_second_run_encodes_nothing(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(150)
    fill(store, keys, fail={keys[7]})
    before = everything(store.path)
    assert fill(store, keys, fail={keys[7]}) == []
    assert everything(store.path) == before


def test_an_interrupted_run_goes_on_and_ends_as_if_never_interrupted(tmp_path):
    keys = names(200)
    whole = new_store(tmp_path / "whole.zarr")
    fill(whole, keys, fail={keys[70]})
    parts = new_store(tmp_path / "parts.zarr")
    encoded = [fill(parts, keys, fail={keys[70]}, limit=limit) for limit in (15, 60, 1, 40)]
    assert not Store.open(parts.path).split("train").complete
    encoded.append(fill(parts, keys, fail={keys[70]}))
    assert [key for part in encoded for key in part] == keys
    assert everything(parts.path) == everything(whole.path)


def test_an_incomplete_store_gives_no_result_unless_asked(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys, limit=64)
    split = store.split("train")
    with pytest.raises(StoreError, match="64 of 100 rows"):
        split.require_complete()
    split.require_complete(partial=True)
    assert split.blocks().num_rows == 64


def test_added_removed_and_changed_images_are_embedded_alone(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(200)
    fill(store, keys)
    fresh = sorted([*keys[:50], *keys[60:], "img/00010b.jpg", "zzz.jpg"])
    assert fill(store, fresh, changed={keys[100]}) == ["img/00010b.jpg", keys[100], "zzz.jpg"]
    split = store.split("train")
    assert split.keys() == fresh
    np.testing.assert_array_equal(np.concatenate([b for _, b in split.blocks()]), embedding_of(fresh))
    assert sorted(p.name for p in store.path.iterdir()) == ["train", "zarr.json"]


def test_an_image_whose_file_changed_counts_for_nothing_until_it_is_embedded_again(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(130)
    fill(store, keys)
    fill(store, keys, changed={keys[5]}, limit=0)
    split = store.split("train")
    assert split.committed()[0][5] == Status.PENDING
    assert 5 not in split.ok_rows()


def test_a_changed_image_in_a_whole_block_survives_an_interruption(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(130)
    fill(store, keys)
    changed = set(keys[5:25])
    assert fill(store, keys, changed=changed, limit=12) == keys[5:17]
    assert fill(store, keys, changed=changed) == keys[17:25]
    assert store.split("train").complete


def test_an_interrupted_change_of_keys_keeps_the_old_split_readable(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(130)
    fill(store, keys)
    more = sorted([*keys, *(f"new/{i:03d}.jpg" for i in range(70))])
    assert len(fill(store, more, limit=30)) == 30
    assert store.split("train").keys() == keys
    assert len(fill(store, more)) == 40
    assert store.split("train").keys() == more


def test_new_labels_need_no_new_embedding(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(70)
    fill(store, keys)
    other = SplitManifest(split="train", keys=keys, label_N=np.full(70, 2, np.int32), truth_N=np.ones(70, np.int32))
    with store.write_split(other, dim=DIM, fingerprints=fingerprints_of(keys)) as writer:
        assert not len(writer.pending_rows())
        writer.finish()
    split = store.split("train")
    assert set(split.label_N()) == {2}
    assert split.truth_N() is not None


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_shard_is_found_and_made_again_alone(tmp_path, damage):
    store, keys = new_store(tmp_path / "s.zarr"), names(200)
    fill(store, keys)
    good = everything(store.path)
    shard = store.path / "train" / "embedding" / "c" / "1" / "0"
    data = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    else:
        data[37] ^= 0x40
        shard.write_bytes(data[:-100] if damage == "cut" else data)
    if damage == "flip":
        with pytest.raises(StoreError, match="damaged"):
            list(store.split("train").blocks())
    assert fill(store, keys) == keys[64:128]
    assert everything(store.path) == good


def test_a_torn_journal_segment_is_dropped_not_trusted(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys, limit=20)
    (segment,) = (store.path / ".staging" / "train").glob("*.npz")
    segment.write_bytes(segment.read_bytes()[:-30])
    assert fill(store, keys) == keys


def test_failures_can_be_tried_again(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys, fail=set(keys[:4]))
    fingerprints = fingerprints_of(keys)
    with store.write_split(manifest_of(keys), dim=DIM, fingerprints=fingerprints, retry_failures=True) as writer:
        np.testing.assert_array_equal(writer.pending_rows(), [0, 1, 2, 3])
        writer.put(np.array([0, 1]), embedding_of(keys[:2]))
        writer.fail(np.array([2, 3]), ["still truncated"] * 2)
        writer.finish()
    assert store.split("train").failures() == {2: "still truncated", 3: "still truncated"}


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(10)
    with (
        store.write_split(manifest_of(keys), dim=DIM, fingerprints=fingerprints_of(keys)),
        pytest.raises(StoreError, match=f"pid {os.getpid()}"),
        store.lock(),
    ):
        pass
    with store.lock():
        pass


def test_scores_and_selections_are_replaced_whole_and_marked_stale(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys)
    split = store.split("train")
    split.write_result("selections", "a & (b|c)", {"keep": np.arange(100) % 2 == 0}, {"theta": 0.5})
    split.write_result("selections", "second", {"keep": np.ones(100, bool)}, {})
    split.write_result("selections", "a & (b|c)", {"keep": np.arange(100) % 3 == 0}, {"theta": 0.7})
    assert list(split.results("selections")) == ["second", "a & (b|c)"]
    result = split.read_result("selections", "a & (b|c)")
    assert result.arrays["keep"].sum() == 34
    assert result.attributes["theta"] == 0.7
    assert result.attributes["stale"] is False
    fill(store, keys[50:])
    moved = store.split("train").read_result("selections", "a & (b|c)")
    np.testing.assert_array_equal(moved.arrays["keep"], np.arange(50, 100) % 3 == 0)
    assert moved.attributes["stale"] is True


@pytest.mark.parametrize("change", ["an image", "a label"])
def test_a_selection_is_stale_once_an_image_or_a_label_is_another(tmp_path, change):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys)
    store.split("train").write_result("selections", "mine", {"keep": np.ones(100, bool)}, {})
    fill(store, keys)
    assert store.split("train").stale_selections() == []
    if change == "an image":
        fill(store, keys, changed={keys[70]})
    else:
        labels = manifest_of(keys).label_N
        labels[3] = (labels[3] + 1) % 3
        with store.write_split(
            SplitManifest(split="train", keys=keys, label_N=labels), dim=DIM, fingerprints=fingerprints_of(keys)
        ) as writer:
            writer.finish()
    assert store.split("train").stale_selections() == ["mine"]
    store.split("train").write_result("selections", "mine", {"keep": np.ones(100, bool)}, {})
    assert store.split("train").stale_selections() == []


def test_text_embeddings_are_replaced_whole(tmp_path):
    store = new_store(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="no text embeddings"):
        store.text()
    for count in (5, 3):
        text = TextEmbeddings(
            embedding_PD=np.eye(count, DIM, dtype=np.float32),
            class_P=np.arange(count, dtype=np.int32),
            prompts=tuple("abcde"[:count]),
        )
        store.write_text(text, {"prompts": f"set of {count}"})
    assert store.text().prompts == ("a", "b", "c")
    assert store.text_attributes() == {"prompts": "set of 3"}


def test_opening_what_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="cleanctl embed"):
        Store.open(tmp_path / "none.zarr")
    new_store(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="it has: none"):
        Store.open(tmp_path / "s.zarr").split("train")


def test_only_stores_are_removed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match="not a cleanctl store"):
        Store.remove(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").exists()
    new_store(tmp_path / "s.zarr")
    Store.remove(tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_a_kill_while_a_store_is_created_or_removed_is_no_obstacle_to_the_next_run(tmp_path):
    path = tmp_path / "s.zarr"
    path.mkdir()
    (path / ".zarr.json.0d9e68ed.partial").write_bytes(b"{")
    new_store(path)
    assert Store.open(path).classes == ("a", "b", "c")
    Store.remove(path)
    path.mkdir()
    (path / ".zarr.json.0d9e68ed.partial").write_bytes(b"{")
    rest = tmp_path / ".s.zarr.removed" / "train"
    rest.mkdir(parents=True)
    Store.remove(path)
    assert list(tmp_path.iterdir()) == []


def test_other_tools_read_it_as_plain_zarr(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    fill(store, keys)
    group = zarr.open_group(str(store.path), mode="r")
    assert group["train/embedding"].dtype == np.float16
    assert group.attrs["cleanctl"]["classes"] == ["a", "b", "c"]


ZYGOTE = """
    import os, sys
    sys.path.insert(0, {folder!r})
    import rows as t
    from cleanctl.store import Store, schema, writer
    schema.BLOCK_ROWS, schema.CHUNK_ROWS, writer.SEGMENT_ROWS = 64, 16, 20
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            t.fill(Store.open(line.strip()), t.names(300), fail={{"img/00013.jpg"}}, batch=7)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def killed_runs(tmp_path, kills):
    """Fills stores in processes that are killed at random moments until `kills` were; gives the finished stores.

    The process that forks them has imported everything and used nothing, so a kill hits work and not an import.
    """
    code = textwrap.dedent(ZYGOTE.format(folder=str(Path(__file__).parent)))
    rng = np.random.default_rng()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as zygote:
        done, count, longest = [], 0, 0.05
        while count < kills:
            store = new_store(tmp_path / f"killed-{len(done)}.zarr")
            code_of_run = None
            while code_of_run != 0:
                print(store.path, file=zygote.stdin)
                pid = int(zygote.stdout.readline())
                time.sleep(rng.uniform(0, longest))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                code_of_run = int(zygote.stdout.readline())
                assert code_of_run in (0, -signal.SIGKILL)
                count += code_of_run != 0
                longest *= 1.1 if code_of_run else 0.9  # about half of them get done, however busy the machine is
            done.append(store.path)
        zygote.stdin.close()
    return done


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_store_ends_the_same(tmp_path, kills):
    """Real processes and SIGKILL; each round goes on with what the last one left."""
    whole = new_store(tmp_path / "whole.zarr")
    fill(whole, names(300), fail={"img/00013.jpg"})
    expected = everything(whole.path)
    for path in killed_runs(tmp_path, kills):
        assert everything(path) == expected
