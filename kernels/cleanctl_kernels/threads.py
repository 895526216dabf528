"""Work on the pieces of one thing in several threads, in which numpy then uses one thread each.

numpy's elementwise functions know one thread, and its BLAS's own threads spin while they wait for one another, which
on a busy machine takes many times as long. So whole pieces of the work go to threads of ours: a piece is the same
whoever works on it, and what the pieces give is handed on in their order; so the result does not depend on the number
of threads, not to the last bit. Leaves nothing on disk.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def num_threads() -> int:
    """Cores this process may use, or OMP_NUM_THREADS where that is fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(cores, int(told)) if told.isdigit() and int(told) else cores


def in_threads(work: Callable[[Item], Done], items: Iterable[Item], *, threads: int | None = None) -> Iterator[Done]:
    """work(item) for each item, in the order of the items, of which one more than there are threads is taken ahead.

    The first exception is raised here; what has not begun by then is dropped.
    """
    count = num_threads() if threads is None else threads
    with one_blas_thread():
        if count <= 1:
            yield from map(work, items)
            return
        pool, coming = ThreadPoolExecutor(count, thread_name_prefix="tiles"), deque[Future[Done]]()
        try:
            for item in items:
                coming.append(pool.submit(work, item))
                if len(coming) > count:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS of numpy on one thread in the whole process, until the last of those who asked for it is done."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


class _Limit:
    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._undo: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.restore_original_limits()


_limit = _Limit()


@cache
def _libraries() -> Any:
    """The BLAS libraries that are loaded: numpy's, which the callers have imported."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
