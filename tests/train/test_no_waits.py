"""No step of a method makes a GPU wait: nothing in it needs to know a tensor's values before it goes on.

Seen without a GPU, by the operations that would wait on one: reading a scalar (item, bool, float), counting what is
true (nonzero, a mask as an index), and copying to the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from blobs import RECIPE, draw
from torch.utils._python_dispatch import TorchDispatchMode

from cleanctl.registry import METHODS
from cleanctl.train.methods.method import Batch, Compute, Method, Setup
from cleanctl.train.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
M, K = 64, 4
NEEDED = {"small-loss": {"noise_ratio": 0.25}, "dividemix": {"warmup": 0}}
NETWORK_OF_ITS_OWN = {"finetune"}  # its batches and networks are tested with it


class Waits(TorchDispatchMode):
    """Remembers the operations on which a GPU's caller waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def make(name: str) -> Method:
    label = (np.arange(M) % K).astype(np.int32)
    setup = Setup(
        recipe=parse_recipe(RECIPE, "tiny"),
        num_classes=K,
        compute=Compute(device="cpu"),
        label_M=label,
        selected_M=np.arange(M) % 4 != 0,
        settings=NEEDED.get(name, {}),
    )
    method: Method = METHODS.load(name)(setup)
    method.network.train()
    return method


def batch_of(method: Method, *, lost: int = 0) -> Batch:
    """The first planned batch; its first `lost` images could not be read."""
    members = method.members()
    planned = method.batches(members, np.ones(M, bool), steps=2, rng=np.random.default_rng(0))[0]
    slot = np.arange(lost, len(planned))
    position = planned[slot]
    pixel = torch.from_numpy(draw(members.label_M, seed=1)).permute(0, 3, 1, 2)
    return Batch(
        image_BCLL=pixel[position],
        position_B=position,
        slot_B=slot,
        label_B=torch.from_numpy(members.label_M[position].astype(np.int64)),
        rng=np.random.default_rng(1),
        epochs_done=2.5,
    )


@pytest.mark.parametrize("lost", [0, 3])
@pytest.mark.parametrize("name", [name for name in METHODS.built_in if name not in NETWORK_OF_ITS_OWN])
def test_a_step_reads_nothing_back(name: str, lost: int) -> None:
    method = make(name)
    batch = batch_of(method, lost=lost)
    with Waits() as waits:
        loss = method.step(batch)
    assert waits.seen == []
    assert torch.isfinite(loss)


def test_the_watch_sees_what_waits() -> None:
    values = torch.arange(4.0)
    with Waits() as waits:
        values.sum().item()
        values[values > 1]
        bool(values[0] > 1)
    assert waits.seen == ["_local_scalar_dense", "index", "_local_scalar_dense"]
