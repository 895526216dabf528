"""`torchrun -m cleanctl select`: the processes that torchrun started, on one machine or several, share the rows.

Each runs the whole command; the first one alone reports, writes and prints. Sums go through torch.distributed, by NCCL
for what lies on a GPU and by gloo for the rest: each process adds up one slice of an array in the order of the parts
and sends it to all, so a sum is the same to the last bit in every process and is the one that `--processes` gets. Where
the split has fewer blocks than there are processes, the last ones wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from cleanctl_kernels.arrays import Array, namespace

from cleanctl.distributed.reduce import Exchange
from cleanctl.score.scorer import ALONE, Reduce
from cleanctl.train.ranks import naming_the_lost, open_ranks

KEPT = "The score in hand is not stored; those before it are."


class TorchParts(Exchange):
    """Of the first `parts` processes; `group` None is all of them."""

    def __init__(self, number: int, parts: int, group: Any = None) -> None:
        super().__init__(number, parts)
        self._group = group

    def few(self, parts: int) -> Reduce:
        """The first of them among themselves; every process must ask for it, those that take no part too."""
        if parts in (1, self.parts):
            return ALONE if parts == 1 else self
        return TorchParts(self.number, parts, dist.new_group(list(range(parts))))

    def collect(self, value: Any) -> list[Any]:
        return self._gathered(value, at=0)

    def spread(self, value: Any) -> Any:
        found = [value]
        with naming_the_lost(KEPT):
            dist.broadcast_object_list(found, src=0, group=self._group)
        return found[0]

    def hand_on(self, value: Any, *, to: int) -> Any:
        raise AssertionError("gather goes straight to the part")

    def sum(self, value: Array) -> Array:
        """By slices, one a part: as much is sent as in an all-reduce, and the order of the sum is known."""
        own = torch.from_numpy(np.array(value, order="C")) if namespace(value) is np else value
        count, each = own.numel(), -(-own.numel() // self.parts)
        sent = own.new_zeros(each * self.parts)
        sent[:count] = own.reshape(-1)
        slices, whole = torch.empty_like(sent), torch.empty_like(sent)
        with naming_the_lost(KEPT):
            dist.all_to_all_single(slices, sent, group=self._group)
            total, *others = slices.reshape(self.parts, each).unbind()
            for other in others:
                total = total + other
            dist.all_gather_into_tensor(whole, total, group=self._group)
        found = whole[:count].reshape(own.shape).clone()
        return found.numpy() if namespace(value) is np else found

    def gather(self, value_N: np.ndarray, *, at: int = 0) -> np.ndarray | None:
        found = self._gathered(value_N, at=at)
        return np.concatenate(found) if found else None

    def _gathered(self, value: Any, *, at: int) -> list[Any]:
        found: list[Any] = [None] * self.parts if self.number == at else []
        with naming_the_lost(KEPT):
            dist.gather_object(value, found or None, dst=at, group=self._group)
        return found


@contextmanager
def torchrun_parts(device: str) -> Iterator[TorchParts]:
    """All processes of this torchrun. device: "cuda" takes one GPU a process."""
    with open_ranks(device) as ranks:
        yield TorchParts(ranks.number, ranks.count)
