"""Cached embeddings: every row once an epoch, the same from any step on, a window of blocks at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import write_store

from cleanctl.adapt import features
from cleanctl.adapt.features import CachedFeatures
from cleanctl.errors import InputError


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("f") / "s.zarr", rows=300, failed=(0, 7, 299)).split("train")


@pytest.fixture(params=["all in memory", "a window at a time"])
def opened(request, split, monkeypatch):
    """In windows: blocks of 64 rows, two in memory."""
    monkeypatch.setattr(features, "BLOCK_ROWS", 64)
    kept = 1 << 20 if request.param == "all in memory" else 0
    return lambda seed=3: CachedFeatures(split, seed=seed, cache_bytes=kept, window_blocks=2)


def whole(batches):
    parts = list(batches)
    return np.concatenate([position for position, _ in parts]), torch.cat([image for _, image in parts])


def test_an_epoch_has_every_readable_row_once_with_its_own_embedding(opened, split):
    cached = opened()
    position, image = whole(cached.batches(0, 50))
    assert cached.num_rows == 297
    assert np.array_equal(np.sort(position), np.arange(297))
    assert not np.array_equal(position, np.arange(297))
    stored = split.embeddings(slice(None))[split.ok_rows()].astype(np.float32)
    assert np.array_equal(image.numpy(), stored[position])
    assert [len(one) for one, _ in cached.batches(0, 50)] == [50] * 5 + [47]


def test_epochs_and_seeds_have_orders_of_their_own_and_a_call_again_the_same(opened):
    order = {key: whole(opened(key[0]).batches(key[1], 50))[0] for key in ((3, 0), (3, 1), (4, 0))}
    assert not np.array_equal(order[3, 0], order[3, 1])
    assert not np.array_equal(order[3, 0], order[4, 0])
    assert np.array_equal(order[3, 0], whole(opened(3).batches(0, 50))[0])


@pytest.mark.parametrize("first", [1, 3, 5, 6])
def test_an_epoch_that_goes_on_at_a_step_has_the_same_batches(opened, first):
    every = list(opened().batches(2, 50))[first:]
    rest = list(opened().batches(2, 50, first))
    assert [p.tolist() for p, _ in rest] == [p.tolist() for p, _ in every]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(rest, every))


def test_the_plain_pass_has_every_row_once(opened):
    position, _ = whole(opened().plain())
    assert np.array_equal(np.sort(position), np.arange(297))


def test_a_window_holds_no_more_blocks_than_it_may(split, monkeypatch):
    monkeypatch.setattr(features, "BLOCK_ROWS", 64)
    cached = CachedFeatures(split, seed=0, cache_bytes=0, window_blocks=2)
    most = []
    read = cached._read
    monkeypatch.setattr(cached, "_read", lambda position_W: most.append(len(position_W)) or read(position_W))
    list(cached.batches(0, 10))
    assert max(most) <= 128
    assert sum(most) == 297


def test_an_embedding_that_is_no_number_is_named(tmp_path):
    store = write_store(tmp_path / "s.zarr", rows=60, failed=())
    split = store.split("train")
    good = split.embeddings

    def broken(rows):
        image = good(rows).copy()
        image[42 - rows.start] = np.nan
        return image

    split.embeddings = broken
    with pytest.raises(InputError, match="1 embedding holds NaN or infinity, rows 42 of the readable ones"):
        next(CachedFeatures(split, seed=0).batches(0, 8))
