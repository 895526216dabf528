"""What the scorer `joint` computes with: numpy on a CPU, torch on CUDA, and the few steps in which the two differ.

Both know the same names for nearly all that is needed (`sum(axis=…)`, `@`, indexing), so the equations are written
once. Leaves nothing on disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.score.scorer import Reduce

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor

MAX_THREADS = 8


def library(device: str) -> Any:
    """The module whose arrays hold what is computed on the device."""
    if device == "cpu":
        return np
    import torch

    return torch


def library_of(array: Array) -> Any:
    return np if isinstance(array, np.ndarray) else library("")


def on(device: str, array: np.ndarray) -> Any:
    """The same numbers in an array of the device's library."""
    return array if library(device) is np else library(device).from_numpy(np.ascontiguousarray(array)).to(device)


def zeros(device: str, *shape: int, double: bool = False) -> Any:
    xp = library(device)
    where = {} if xp is np else {"device": device}
    return xp.zeros(shape, dtype=xp.float64 if double else xp.float32, **where)


def double(array: Any) -> Any:
    """Float64."""
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def single(array: Any) -> Any:
    """Float32, contiguous."""
    return np.ascontiguousarray(array, np.float32) if isinstance(array, np.ndarray) else array.float().contiguous()


def over_parts(reduce: Reduce, array: Any) -> Any:
    """The sum over the parts of the rows."""
    return reduce.sum(array)


def numbers(like: Any) -> Any:
    """0…len-1, to index with."""
    xp = library_of(like)
    return np.arange(len(like)) if xp is np else xp.arange(len(like), device=like.device)


def row_max(array_BC: Any) -> Any:
    """(B, 1)"""
    return array_BC.max(axis=1, keepdims=True) if isinstance(array_BC, np.ndarray) else array_BC.amax(1)[:, None]


def softmax(logit_BC: Any) -> Any:
    """Over classes, in place."""
    xp = library_of(logit_BC)
    if xp is not np:
        return xp.softmax(logit_BC, dim=1)
    logit_BC -= row_max(logit_BC)
    np.exp(logit_BC, out=logit_BC)
    logit_BC /= logit_BC.sum(axis=1, keepdims=True)
    return logit_BC


def highest(values_BC: Any, count: int) -> Any:
    """(B, count) columns of each row's highest values, in any order."""
    if isinstance(values_BC, np.ndarray):
        return np.argpartition(values_BC, -count, axis=1)[:, -count:]
    return values_BC.topk(count, dim=1).indices


def solve(matrix_DD: Any, right_DC: Any) -> Any:
    """Of square float64 matrices."""
    return library_of(matrix_DD).linalg.solve(matrix_DD, right_DC)


def in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """work(item) of each in the order of the items, several side by side; few of the items are taken ahead.

    numpy's loops run in one thread, and threads of its BLAS spin while they wait for one another: BLAS has one here.
    """
    count = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    coming: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="joint") as pool:
        for item in items:
            coming.append(pool.submit(work, item))
            if len(coming) > count:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def one_blas_thread() -> Any:
    """A context in which products run in the thread that asks for them; see `in_threads`."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")
