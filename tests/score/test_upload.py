"""Blocks reach a device whole and in order, and no buffer is written to while a copy out of it is still under way."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.upload import HostLane, uploaded


class LateLane(HostLane):
    """A device whose copies are made no earlier than somebody waits for them, as a busy one's may be."""

    def __init__(self):
        self.buffers, self.waited = 0, []

    def buffer(self, size):
        self.buffers += 1
        return super().buffer(size)

    def send(self, host):
        there = torch.full_like(host, -1)
        return there, lambda: there.copy_(host)

    def wait(self, sent):
        self.waited.append(threading.current_thread().name)
        sent()

    def receive(self, there, sent):
        sent()


def blocks_of(sizes, dtype=np.float16):
    rng, start = np.random.default_rng(0), 0
    for size in sizes:
        yield slice(start, start + size), rng.standard_normal((size, 6)).astype(dtype)
        start += size


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("lane", [HostLane, LateLane])
def test_every_block_arrives_as_it_was(lane, dtype):
    sizes = [7, 7, 3, 11, 1, 7]
    found = [(rows, there.clone()) for rows, there in uploaded(blocks_of(sizes, dtype), "cpu:0", lane=lane())]
    assert len(found) == len(sizes)
    for (rows, there), (expected_rows, expected) in zip(found, blocks_of(sizes, dtype)):
        assert rows == expected_rows
        np.testing.assert_array_equal(there.numpy(), expected)


def test_a_buffer_is_used_again_when_its_copy_is_made():
    lane = LateLane()
    assert len(list(uploaded(blocks_of([5] * 8), "cpu:0", lane=lane))) == 8
    assert lane.buffers == 2
    assert len(lane.waited) == 6  # each use of a buffer but the first
    assert all(name.startswith("upload") for name in lane.waited)  # not the thread that computes


def test_what_was_received_does_not_change_with_later_blocks():
    kept = [there for _, there in uploaded(blocks_of([4] * 5), "cpu:0")]
    for there, (_, expected) in zip(kept, blocks_of([4] * 5)):
        np.testing.assert_array_equal(there.numpy(), expected)


def test_an_error_of_the_source_reaches_the_one_who_asks():
    def broken():
        yield from blocks_of([3])
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(uploaded(broken(), "cpu:0"))


@pytest.mark.parametrize(("device", "kind"), [("cpu", np.float32), ("cpu:0", torch.float16)])
def test_tiles_come_as_they_are_stored_where_that_is_asked_for(device, kind):
    image = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float16)
    data = Float32Blocks(ArrayBlocks(image_ND=image, block_rows=70), device=device)
    for _ in range(2):
        found = list(data.map(lambda rows, tile: (tile.dtype, np.array(tile)), stored=True))
        assert {dtype for dtype, _ in found} == {np.dtype(kind) if device == "cpu" else kind}
        np.testing.assert_array_equal(np.concatenate([tile for _, tile in found]), image)


@pytest.mark.gpu
def test_a_copy_to_a_gpu_is_waited_for_by_its_stream():
    sizes = [50_000] * 6
    found = [there.float().sum(dtype=torch.float64) for _, there in uploaded(blocks_of(sizes), "cuda")]
    expected = [values.astype(np.float64).sum() for _, values in blocks_of(sizes)]
    np.testing.assert_allclose([float(one) for one in found], expected, atol=1e-2)
