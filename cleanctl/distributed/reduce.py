"""Sums over parts that send one another objects: what pipes, torchrun and Ray have in common.

Everything goes to the first part and from there to all. It adds in the order of the parts, whoever came first, so a sum
is the same to the last bit in every part and in every run with as many parts. With another number of parts float64 sums
are rounded otherwise, by about 1e-16 of them. Leaves nothing on disk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, namespace, to_numpy

from cleanctl.score.scorer import Made, Reduce


class Exchange(Reduce):
    """`collect` and `spread` are all that a way to send objects has to bring."""

    def __init__(self, number: int, parts: int) -> None:
        self.number, self.parts = number, parts

    @abstractmethod
    def collect(self, value: Any) -> list[Any]:
        """In the first part what every part gave, in the order of the parts; empty in the others."""

    @abstractmethod
    def spread(self, value: Any) -> Any:
        """What the first part gave, in each."""

    @abstractmethod
    def hand_on(self, value: Any, *, to: int) -> Any:
        """In part `to` what the first part gave; None in the others."""

    def sum(self, value: Array) -> Array:
        own = np.asarray(value) if namespace(value) is np else to_numpy(value)
        total = None
        for one in self.collect(own):
            total = np.array(one) if total is None else total + one
        found = self.spread(total)
        return found if namespace(value) is np else as_array(found, str(value.device).replace("cpu", "cpu:0"))

    def gather(self, value_N: np.ndarray, *, at: int = 0) -> np.ndarray | None:
        found = self.collect(value_N)
        whole = np.concatenate(found) if found else None
        return whole if at == 0 else self.hand_on(whole, to=at)

    def from_first(self, make: Callable[[], Made]) -> Made:
        made: Made = self.spread(make() if self.number == 0 else None)
        return made
