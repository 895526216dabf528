"""Arrays that travel in one copy, batches that are read ahead, and a step that makes no GPU wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from cleanctl.progress import SILENT
from cleanctl.runtime import StopFlag
from cleanctl.train.engine import Engine, State
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.methods.mixfix import MixFix
from cleanctl.train.pixels import HeldPixels
from cleanctl.train.recipe import load_recipe
from cleanctl.train.transfer import ahead, pack, packed_size, send, unpack

ARRAYS = {
    "chosen": np.array([True, False, True]),
    "order": np.arange(7)[::-1],
    "none": np.zeros((0, 2), np.float32),
    "theta": np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 3, 2).transpose(1, 0, 2),
    "byte": np.arange(5, dtype=np.uint8),
    "exact": np.array(0.1),
}


def test_what_is_packed_comes_out_with_its_type_and_shape() -> None:
    packed = np.full(packed_size(ARRAYS), 255, np.uint8)
    pack(ARRAYS, packed)
    found = unpack(ARRAYS, torch.from_numpy(packed))
    plain = send(ARRAYS, "cpu")
    assert list(found) == list(plain) == list(ARRAYS)
    for name, values in ARRAYS.items():
        for tensor in (found[name], plain[name]):
            assert tensor.numpy().dtype == values.dtype
            assert np.array_equal(tensor.numpy(), values)


def test_items_are_made_ahead_and_come_in_order() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    read = ahead(items(), depth=3)
    assert next(read) == 0
    deadline = time.monotonic() + 60
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) == 5  # one was asked for, three wait, one waits for room
    assert list(read) == list(range(1, 20))


def test_what_making_an_item_raises_is_raised_where_it_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    read = ahead(items())
    assert next(read) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(read)


def test_the_thread_ends_when_nobody_asks_any_more() -> None:
    def items() -> Iterator[int]:
        yield from range(10**9)

    read = ahead(items())
    assert next(read) == 0
    threads = [one for one in threading.enumerate() if one.name == "images ahead"]
    assert threads
    read.close()
    assert not any(one.is_alive() for one in threads)


@pytest.mark.gpu
@pytest.mark.parametrize("held", ["cuda", "cpu"])
@pytest.mark.parametrize("name", ["cifar10", "animal10n"])
def test_a_step_makes_the_gpu_wait_for_nothing(name: str, held: str, monkeypatch) -> None:
    recipe = replace(load_recipe(name), network="preact-resnet18-w8", image_size=32, load_size=32, batch_size=32)
    rng = np.random.default_rng(0)
    pixel = torch.from_numpy(rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)).to(held)
    label, selected = rng.integers(0, 10, 200).astype(np.int32), np.ones(200, bool)
    compute = Compute(device="cuda", precision="bf16")
    setup = Setup(recipe=recipe, num_classes=10, compute=compute, label_M=label, selected_M=selected)
    engine = Engine(MixFix(setup), pixels=HeldPixels(pixel, selected, "cuda"), seed=0, steps=20)
    step, check = engine._step, engine._check
    steps = []

    def watched(*arguments: object) -> torch.Tensor:
        loss = step(*arguments)  # type: ignore[arg-type]
        steps.append(loss)
        if len(steps) == 5:  # constants and kernels are there
            torch.cuda.set_sync_debug_mode("error")
        return loss

    def after(*arguments: object, **options: bool) -> None:
        torch.cuda.set_sync_debug_mode("default")
        check(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "_step", watched)
    monkeypatch.setattr(engine, "_check", after)
    try:
        with SILENT.track("test", total=None, unit="images") as task:
            engine.train_epoch(State(members=engine.method.members()), task, StopFlag(), lambda: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) == 20
