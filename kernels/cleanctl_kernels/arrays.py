"""The namespace an array computes in: numpy on a CPU, torch by array-api-compat elsewhere.

Code written against the array API (https://data-apis.org/array-api) runs in both. numpy 2 is such a namespace itself;
torch is imported only where an array is a tensor already, or a device other than `cpu` is named. `cpu:0` names torch's
own CPU: the very path of CUDA, for tests and for code that needs torch. What both have beyond the standard and is used
here: `out=` of elementwise functions and products, in-place operators, indexing by pairs of integer arrays.
Leaves nothing on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # np.ndarray or torch.Tensor: there is no type of both


def namespace(array: Array) -> Any:
    """The module whose functions take this array."""
    if isinstance(array, np.ndarray | np.generic):
        return np
    import array_api_compat.torch

    return array_api_compat.torch


def namespace_on(device: str) -> Any:
    """The module whose arrays lie on this device."""
    if device == "cpu":
        return np
    import array_api_compat.torch

    return array_api_compat.torch


def as_array(values: np.ndarray, device: str) -> Array:
    """The same on the device; on `cpu` no copy."""
    if device == "cpu":
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def as_array_like(values: np.ndarray, like: Array) -> Array:
    """The same beside another array."""
    return values if isinstance(like, np.ndarray) else as_array(values, str(like.device).replace("cpu", "cpu:0"))


def to_numpy(array: Array) -> np.ndarray:
    """No copy where the array lies in this machine's memory."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.detach().cpu())


def device_type(x: Array) -> str:
    """`cpu` or `cuda`."""
    return "cpu" if isinstance(x, np.ndarray) else str(x.device.type)


def contiguous(x: Array) -> Array:
    """The same with rows that lie one after the other in memory."""
    return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x.contiguous()


def numbers(like: Array) -> Array:
    """0…len-1, to index with."""
    return namespace(like).arange(len(like), device=like.device)


def pick(x_BC: Array, index_B: Array) -> Array:
    """(B,): of each row the entry at its index."""
    return x_BC[numbers(x_BC), index_B]


def put(x_BC: Array, index_B: Array, value: Array | float) -> None:
    """Writes one entry of each row."""
    x_BC[numbers(x_BC), index_B] = value


def at_least_(x: Array, low: float) -> Array:
    """In place. The standard's clip makes several copies in torch."""
    return np.maximum(x, np.asarray(low, x.dtype), out=x) if isinstance(x, np.ndarray) else x.clamp_(min=low)


def at_most_(x: Array, high: float) -> Array:
    """In place."""
    return np.minimum(x, np.asarray(high, x.dtype), out=x) if isinstance(x, np.ndarray) else x.clamp_(max=high)


def logsumexp(x: Array, *, axis: int) -> Array:
    """ln Σ exp along an axis of which at least one entry is finite."""
    xp = namespace(x)
    high = xp.max(x, axis=axis, keepdims=True)
    return xp.squeeze(high, axis=axis) + xp.log(xp.sum(xp.exp(x - high), axis=axis))
