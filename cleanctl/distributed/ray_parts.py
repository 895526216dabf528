"""How the actors of `select --engine ray` add up and gather: at the desk, which answers when all of them are there.

The desk adds in the order of the parts, so a sum is the one that `--processes` gets. Arrays travel through Ray's object
store and are copied out of it, because what lies there cannot be changed. Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, namespace, to_numpy

from cleanctl.distributed.reduce import Exchange


class RayParts(Exchange):
    """desk: the handle of a `Desk`."""

    def __init__(self, number: int, parts: int, desk: Any) -> None:
        super().__init__(number, parts)
        self._desk, self._calls = desk, 0

    def collect(self, value: Any) -> list[Any]:
        found: list[Any] = self._asked(self._desk.gather, value, 0)
        return found

    def spread(self, value: Any) -> Any:
        return self._asked(self._desk.spread, value if self.number == 0 else None)

    def hand_on(self, value: Any, *, to: int) -> Any:
        raise AssertionError("gather goes straight to the part")

    def sum(self, value: Array) -> Array:
        own = np.asarray(value) if namespace(value) is np else to_numpy(value)
        found = np.array(self._asked(self._desk.sum, own))
        return found if namespace(value) is np else as_array(found, str(value.device).replace("cpu", "cpu:0"))

    def gather(self, value_N: np.ndarray, *, at: int = 0) -> np.ndarray | None:
        found = self._asked(self._desk.gather, value_N, at)
        return np.concatenate(found) if found else None

    def _asked(self, method: Any, *given: Any) -> Any:
        import ray

        self._calls += 1
        return ray.get(method.remote(self._calls, self.number, *given))
