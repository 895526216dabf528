"""Several processes fill one split, a share of the rows each: no coordinator, no row twice, one process's store."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import DIM, embedding_of, everything, fill, fingerprints_of, manifest_of, names, new_store

from cleanctl.errors import StoreError
from cleanctl.records import Shard
from cleanctl.store import Store, locks
from cleanctl.store.locks import shard_lock


def fill_share(path, keys, share, *, changed=(), fail=(), batch=10, limit=None):
    """What one process does for its share; gives the keys that it encoded."""
    manifest = manifest_of(keys)

    def prepare():
        Store.open(path).prepare_shards(manifest, dim=DIM, count=share.count)

    with shard_lock(path, share, prepare):
        mine = keys[share.rows(len(keys))]
        writing = Store.open(path).write_shard(manifest, share, dim=DIM, fingerprints=fingerprints_of(mine, changed))
        with writing as writer:
            pending = writer.pending_rows()[:limit]
            for start in range(0, len(pending), batch):
                rows = pending[start : start + batch]
                bad = np.array([keys[row] in fail for row in rows], dtype=bool)
                if (~bad).any():
                    writer.put(rows[~bad], embedding_of([keys[row] for row in rows[~bad]]))
                if bad.any():
                    writer.fail(rows[bad], ["truncated"] * int(bad.sum()))
    return [keys[row] for row in pending]


def finish(path, keys):
    return Store.open(path).finish_split(manifest_of(keys))


@given(st.integers(0, 300_000), st.integers(1, 40))
def test_shares_tile_the_rows(num_rows, count):
    shares = [Shard(index, count).rows(num_rows) for index in range(count)]
    assert shares[0].start == 0
    assert shares[-1].stop == num_rows
    assert all(one.stop == two.start for one, two in pairwise(shares))
    longest = max(share.stop - share.start for share in shares)
    assert longest <= 1.5 * num_rows / count + 1, "parts are about equal"


def test_shares_begin_where_batches_and_blocks_of_one_process_begin():
    starts = [Shard(index, 8).rows(100_000_000).start for index in range(8)]
    assert all(start % 65_536 == 0 for start in starts)
    assert all(Shard(index, 4).rows(2_000).start % 64 == 0 for index in range(4))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_store_is_that_of_one_process_file_for_file(tmp_path, count):
    keys = names(300)
    bad = {keys[7], keys[64], keys[299]}
    one = new_store(tmp_path / "one.zarr")
    fill(one, keys, fail=bad)
    many = new_store(tmp_path / "many.zarr")
    encoded = [fill_share(many.path, keys, Shard(index, count), fail=bad) for index in reversed(range(count))]
    assert sorted(key for part in encoded for key in part) == keys
    assert not Store.open(many.path).split("train").complete
    assert not len(finish(many.path, keys))
    assert everything(many.path) == everything(one.path)


def test_what_a_dead_process_left_undone_is_named_and_done_by_the_next(tmp_path):
    keys = names(300)
    one, many = new_store(tmp_path / "one.zarr"), new_store(tmp_path / "many.zarr")
    fill(one, keys)
    fill_share(many.path, keys, Shard(0, 4))
    fill_share(many.path, keys, Shard(1, 4), limit=20)
    fill_share(many.path, keys, Shard(3, 4))
    rows = Shard(1, 4).rows(300)
    left = finish(many.path, keys)
    expected = [*range(rows.start + 20, Shard(2, 4).rows(300).stop)]
    np.testing.assert_array_equal(left, expected)
    assert fill_share(many.path, keys, Shard(1, 4)) == keys[rows.start + 20 : rows.stop]
    half = Shard(0, 2).rows(300)
    assert fill_share(many.path, keys, Shard(0, 2)) == keys[rows.stop : half.stop], "another division goes on"
    assert fill(many, keys) == keys[half.stop : Shard(2, 4).rows(300).stop], "a lone process embeds what no share did"
    assert everything(many.path) == everything(one.path)


def test_a_changed_image_in_a_block_of_two_shares_is_embedded_by_its_own(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(96)
    fill(store, keys)
    changed = {keys[3], keys[50], keys[90]}  # of shares 0, 1 and 1; the first two lie in one block
    assert fill_share(store.path, keys, Shard(0, 2), changed=changed, limit=0) == []  # dies before it embeds
    assert fill_share(store.path, keys, Shard(1, 2), changed=changed) == [keys[50], keys[90]]
    left = finish(store.path, keys)
    assert left.tolist() == [3], "the old embedding of a changed image never counts"
    assert not store.split("train").complete
    assert [fill_share(store.path, keys, Shard(index, 2), changed=changed) for index in (1, 0)] == [[], [keys[3]]]
    assert not len(finish(store.path, keys))
    fingerprints = store.split("train").fingerprints()
    np.testing.assert_array_equal(fingerprints.digest_N16, fingerprints_of(keys, changed).digest_N16)


def test_added_images_are_embedded_alone_and_the_old_split_stays_until_all_are_there(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(200)
    fill(store, keys)
    more = sorted([*keys, *(f"img/{i:05d}b.jpg" for i in range(0, 200, 20))])
    encoded = [fill_share(store.path, more, Shard(index, 3)) for index in (1, 0)]
    assert store.split("train").keys() == keys
    encoded.append(fill_share(store.path, more, Shard(2, 3)))
    assert sorted(key for part in encoded for key in part) == sorted(set(more) - set(keys))
    assert not len(finish(store.path, more))
    split = store.split("train")
    assert split.keys() == more
    np.testing.assert_array_equal(np.concatenate([b for _, b in split.blocks()]), embedding_of(more))


def test_shares_that_see_other_images_are_refused(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(100)
    with shard_lock(store.path, Shard(0, 2), lambda: store.prepare_shards(manifest_of(keys), dim=DIM, count=2)):
        late = [*keys, "img/99999.jpg"]
        with pytest.raises(StoreError, match="another list of images"):
            fill_share(store.path, late, Shard(1, 2))


def test_the_same_share_another_division_and_a_lone_writer_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "START_SECONDS", 0.3)
    store, nothing = new_store(tmp_path / "s.zarr"), lambda: None
    with shard_lock(store.path, Shard(0, 2), nothing):
        with shard_lock(store.path, Shard(1, 2), nothing):
            pass
        for share, message in ((Shard(0, 2), "Shard 0/2 of .* is being written"), (Shard(1, 3), "filled in 2 shards")):
            with pytest.raises(StoreError, match=message), shard_lock(store.path, share, nothing):
                pass
        with pytest.raises(StoreError, match="being written by another process"), store.lock():
            pass
    with (
        store.lock(),
        pytest.raises(StoreError, match="being written by another process"),
        shard_lock(store.path, Shard(0, 2), nothing),
    ):
        pass
    with store.lock():
        pass


def test_finishing_what_was_never_begun_says_so(tmp_path):
    store = new_store(tmp_path / "s.zarr")
    assert store.finish_split(manifest_of(names(10))) is None


def test_an_incomplete_split_names_the_shards_that_are_missing_and_lists_its_failures(tmp_path):
    store, keys = new_store(tmp_path / "s.zarr"), names(300)
    fill_share(store.path, keys, Shard(0, 4), fail={keys[2]})
    fill_share(store.path, keys, Shard(2, 4), fail={keys[146]}, limit=5)
    split = Store.open(store.path).split("train")
    done = Shard(0, 4).rows(300).stop + 5
    with pytest.raises(StoreError, match=rf"{done} of 300 rows are embedded; .* shards 1/4, 2/4, 3/4"):
        split.require_complete()
    assert split.failures() == {2: "truncated", 146: "truncated"}, "of a whole block and of the journal"
