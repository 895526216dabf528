"""What a training step sends to a GPU, counted on a GPU that is not there.

Under FakeTensorMode tensors know their device, their shapes and nothing else: what reads a value back raises, what
mixes two devices raises, and every copy is an operation that can be counted. Gradients are put in by hand, since
autograd asks for the device itself.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cleanctl.progress import SILENT
from cleanctl.registry import METHODS
from cleanctl.runtime import StopFlag
from cleanctl.train import augment, transfer
from cleanctl.train.engine import Engine, State
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.pixels import HeldPixels
from cleanctl.train.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
NO_KERNEL = ("_fused_sgd_", "_fused_adamw_")  # of which torch knows no fake: they return nothing
NEEDED = {"small-loss": {"noise_ratio": 0.25}, "dividemix": {"warmup": 0}}
NOTHING_LAUNCHED = (
    "device",
    "empty",
    "empty_like",
    "zeros_like",
    "_record_function_enter_new",
    "_record_function_exit",
)
M, STEPS = 64, 3


class Copies(TorchDispatchMode):
    """Remembers copies between devices and counts operations that launch something, by step from 0."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self.operations: Counter[int] = Counter()
        self.passing: Counter[int] = Counter()  # copies that the processor does not wait for
        self.waited: list[str] = []  # "step number, file:line" of the others

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        if not (function.is_view or name in NOTHING_LAUNCHED):
            self.operations[self.state.step] += 1
        if name in NO_KERNEL:
            return None
        before = [one.device for one in args if isinstance(one, Tensor)]
        found = function(*args, **kwargs)
        if name in ("_to_copy", "copy_") and found.device != before[-1]:
            if kwargs.get("non_blocking") or (name == "copy_" and args[2:3] == (True,)):
                self.passing[self.state.step] += 1
            else:
                ours = [one for one in traceback.extract_stack() if "/cleanctl/" in one.filename]
                names = [f"{Path(one.filename).name}:{one.lineno}" for one in ours[-2:]]
                self.waited.append(f"step {self.state.step}, {names}")
        return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CUDA device whose tensors hold nothing. The network is made on it, because fakes cannot be moved."""

    def backward(loss: Tensor) -> None:
        for one in networks[-1].parameters():
            one.grad = torch.zeros_like(one)

    def made_there(network: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        networks.append(network)
        return network

    networks: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "to", made_there)
    monkeypatch.setattr(Tensor, "backward", backward)
    # There is no pinned memory without a card.
    monkeypatch.setattr(transfer, "packed", lambda arrays: torch.empty(transfer.packed_size(arrays), dtype=torch.uint8))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    augment._scale_and_shift.cache_clear()


def engine_of(name: str, recipe: str) -> Engine:
    small = replace(load_recipe(recipe), network="preact-resnet18-w8", image_size=32, load_size=32, batch_size=16)
    every = np.ones(M, bool)
    setup = Setup(
        recipe=small,
        num_classes=10,
        compute=Compute(device="cuda"),
        label_M=(np.arange(M) % 10).astype(np.int32),
        selected_M=np.arange(M) % 4 != 0,
        settings=NEEDED.get(name, {}),
    )
    with torch.device("cuda"):
        method = METHODS.load(name)(setup)
        pixel = torch.zeros(M, 32, 32, 3, dtype=torch.uint8)
    engine = Engine(method, pixels=HeldPixels(pixel, every, "cuda"), seed=0, steps=STEPS)
    assert engine.view_steps == 8
    engine.view_steps = 2  # which is faster here
    return engine


def copies_of(engine: Engine) -> Copies:
    """Of one epoch's steps. What is read back at its end, the losses, cannot be read here."""
    state = State(members=engine.method.members())
    with (
        SILENT.track("test", total=None, unit="images") as task,
        Copies(state) as copies,
        pytest.raises(DataDependentOutputException),
    ):
        engine.train_epoch(state, task, StopFlag(), lambda: None)
    assert state.step == STEPS, "a value was read back in the middle of an epoch"
    return copies


@pytest.mark.parametrize("recipe", ["cifar10", "animal10n"])
def test_a_step_sends_one_packed_copy_that_nothing_waits_for(fake: None, recipe: str) -> None:
    """What is mixed with what. Beside it: labels and positions of 64 steps, the draws of the views made together."""
    copies = copies_of(engine_of("mixfix", recipe))
    assert [copies.passing[step] for step in range(STEPS)] == [1 + 2 + 1, 1, 1 + 1]
    assert not [one for one in copies.waited if not one.startswith("step 0")]
    step = copies.operations[1]  # forward, loss, update
    assert 90 < step < 130, copies.operations
    assert 200 < copies.operations[0] - step < 600  # the views, as many for eight steps as for one


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS.built_in if name not in ("mixfix", "finetune")])
def test_no_method_waits_for_a_copy(fake: None, name: str) -> None:
    copies = copies_of(engine_of(name, "cifar10"))
    assert not [one for one in copies.waited if not one.startswith("step 0")]
    assert max(copies.passing.values()) <= 12


def test_the_watch_sees_a_copy_that_is_waited_for(fake: None) -> None:
    with Copies(State(members=None)) as copies:
        torch.zeros(3).to("cuda")
        torch.zeros(3, device="cuda").copy_(torch.zeros(3))
        torch.zeros(3).to("cuda", non_blocking=True)
    assert len(copies.waited) == 2
    assert copies.passing.total() == 1
