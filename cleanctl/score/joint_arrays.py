"""The few steps of the scorer `joint` in which numpy and torch differ and the array API has no name for what is meant.

The equations are written once for both (`cleanctl_kernels.arrays`). Leaves nothing on disk.
"""

from __future__ import annotations

import numpy as np
from cleanctl_kernels.arrays import Array, namespace, namespace_on


def kind(device: str) -> str:
    """`cpu` or `cuda`."""
    return device.partition(":")[0]


def zeros(device: str, *shape: int, double: bool = False) -> Array:
    xp = namespace_on(device)
    return xp.zeros(shape, dtype=xp.float64 if double else xp.float32, device=device.partition(":")[0])


def double(array: Array) -> Array:
    """Float64."""
    xp = namespace(array)
    return xp.astype(array, xp.float64)


def single(array: Array) -> Array:
    """Float32, contiguous."""
    return np.ascontiguousarray(array, np.float32) if isinstance(array, np.ndarray) else array.float().contiguous()


def index(array: Array) -> Array:
    """int64, to index with."""
    xp = namespace(array)
    return xp.astype(array, xp.int64)


def row_max(array_BC: Array) -> Array:
    """(B, 1)"""
    return namespace(array_BC).max(array_BC, axis=1, keepdims=True)


def softmax(logit_BC: Array) -> Array:
    """Over classes, in place."""
    xp = namespace(logit_BC)
    logit_BC -= row_max(logit_BC)
    xp.exp(logit_BC, out=logit_BC)
    logit_BC /= xp.sum(logit_BC, axis=1, keepdims=True)
    return logit_BC


def highest(values_BC: Array, count: int) -> Array:
    """(B, count) columns of each row's highest values, in any order."""
    if isinstance(values_BC, np.ndarray):
        return np.argpartition(values_BC, -count, axis=1)[:, -count:]
    return values_BC.topk(count, dim=1).indices
