"""Promises about encoding on a device, with a stand-in for `torch.cuda`: order, whose memory when, graphs, errors.

On a card the same is asked of CUDA itself (the tests marked `gpu`).
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from cleanctl.clip import cuda_workers
from cleanctl.clip.cuda_workers import AHEAD, CudaWorkers, Graphs
from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.errors import UsageError
from cleanctl.records import DevicePixels


class Stream:
    waited: list[object]

    def __init__(self):
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)

    def wait_event(self, event):
        self.waited.append(event)


class Event:
    made: ClassVar[list[Event]] = []

    def __init__(self, blocking=False):
        assert blocking, "a thread that waits must not spin"
        self.recorded = self.waited_for = False
        Event.made.append(self)

    def record(self):
        self.recorded = True

    def synchronize(self):
        assert self.recorded
        self.waited_for = True


@pytest.fixture
def cuda(monkeypatch):
    """`torch.cuda` as far as the workers use it, on which everything has ended at once."""
    current = Stream()
    stand_in = {
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda: current,
        "stream": lambda one: nullcontext(),
        "synchronize": lambda: None,
    }
    for name, value in stand_in.items():
        monkeypatch.setattr(torch.cuda, name, value)
    Event.made.clear()
    return current


def recorded(embed, pixel_BSSC):
    """A graph that a processor replays: the same memory in, the same memory out."""
    image_BD = embed(pixel_BSSC)
    return lambda: image_BD.copy_(embed(pixel_BSSC)), image_BD


@pytest.fixture(scope="module")
def encoder(model_dir):
    return load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cpu", precision="fp32")


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def through(workers, batches):
    pending, results = [], []
    for batch in batches:
        pending.append(workers.submit(batch))
        if len(pending) > workers.ahead:
            results.append(np.array(pending.pop(0).result()))
    return results + [np.array(one.result()) for one in pending]


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_batches_come_in_order_and_each_is_its_own(encoder, cuda, monkeypatch, graph):
    """More batches than staging buffers, whose memory is used again while results are waited for."""
    monkeypatch.setattr(cuda_workers, "record_graph", recorded)
    batches = [pixels(8, seed) for seed in range(9)] + [pixels(3, 99)]
    with_device = CudaWorkers(encoder, graph=graph, device="cpu")
    for batch, found in zip(batches, through(with_device, batches), strict=True):
        assert np.abs(found.astype(np.float32) - encoder.encode_images(batch)).max() < 1e-3
    with_device.close()


def test_a_staging_buffer_is_filled_again_after_its_upload_was_waited_for(encoder, cuda):
    workers = CudaWorkers(encoder, graph=False, device="cpu")
    through(workers, [pixels(2, seed) for seed in range(6)])
    uploads = Event.made[::2]  # of each batch its upload, then its end
    assert [event.waited_for for event in uploads] == [True, True, False, False, False, False]
    assert workers.ahead == AHEAD == 2


def test_pixels_on_the_device_are_computed_where_they_lie_and_waited_for(encoder, cuda):
    ready, crops = Event(blocking=True), pixels(4)
    workers = CudaWorkers(encoder, graph=False, device="cpu")
    found = workers.submit(DevicePixels(pixel_KSSC=torch.from_numpy(crops), ready=ready)).result()
    assert np.array_equal(found, encoder.encode_images(crops))
    assert cuda.waited == [ready]
    assert len(Event.made) == 2  # no upload


def test_the_first_batch_of_a_shape_is_computed_and_the_next_ones_replayed(monkeypatch):
    monkeypatch.setattr(cuda_workers, "record_graph", recorded)
    calls, notes = [], []

    def embed(pixel_BSSC):
        calls.append(len(pixel_BSSC))
        return pixel_BSSC.float().mean(dim=(1, 2))

    graphs = Graphs(embed, notes.append)
    for count, seed in [(8, 0), (8, 1), (8, 2), (3, 3), (8, 4)]:
        pixel = torch.from_numpy(pixels(count, seed))
        assert torch.equal(graphs(pixel), pixel.float().mean(dim=(1, 2)))
    assert calls == [8, 8, 8, 8, 3, 8]  # the second 8 is the recording of the graph
    assert notes == ["CUDA graph: used for batches of 8 images."]


def test_a_network_that_cannot_be_recorded_is_computed_and_the_reason_told_once(monkeypatch):
    def refuse(embed, pixel_BSSC):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(cuda_workers, "record_graph", refuse)
    notes = []
    graphs = Graphs(lambda pixel: pixel.float().sum(dim=(1, 2)), notes.append)
    for count in (4, 4, 4, 2, 2):
        pixel = torch.from_numpy(pixels(count))
        assert torch.equal(graphs(pixel), pixel.float().sum(dim=(1, 2)))
    assert notes == ["CUDA graph: not used (operation not permitted when stream is capturing)."]


def test_a_device_without_memory_for_a_batch_is_an_error_that_names_the_option(cuda):
    def embed(pixel_BSSC):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    encoder = SimpleNamespace(check=lambda pixel: None, embed=embed)
    with pytest.raises(UsageError, match="no memory for a batch of 5 images: CUDA out of memory") as caught:
        CudaWorkers(encoder, device="cpu").submit(pixels(5))
    assert "--batch-size" in caught.value.do


@pytest.mark.gpu
def test_on_cuda_a_replayed_batch_is_the_computed_one_and_the_graph_is_used(model_dir):
    notes = SimpleNamespace(note=lambda text: told.append(text))
    told: list[str] = []
    encoder = load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cuda", precision="fp16")
    encoder.progress = notes
    batches = [pixels(16, seed) for seed in range(8)] + [pixels(5, 99)]
    found = {}
    for graph in (False, True):
        with encoder.workers(graph=graph) as workers:
            found[graph] = through(workers, batches)
    for eager, replayed in zip(found[False], found[True], strict=True):
        assert np.abs(eager.astype(np.float32) - replayed).max() < 1e-3
    assert told == ["CUDA graph: used for batches of 16 images."]
