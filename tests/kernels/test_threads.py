"""Work shared among threads: in order, no further than it has to, and with numpy's BLAS on one thread meanwhile."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from cleanctl_kernels import threads
from cleanctl_kernels.threads import in_threads, num_threads, one_blas_thread


def blas_threads():
    """Of the libraries that were loaded when threads were first asked for, numpy's among them; scipy brings its own."""
    assert np.ones((2, 2)) @ np.ones((2, 2)) is not None  # it is loaded
    found = [one["num_threads"] for one in threads._libraries().info() if one["user_api"] == "blas"]
    assert found
    return found


def test_results_come_in_the_order_of_the_items_whoever_is_done_first():
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(60)
        if item == 1:
            second_done.set()
        return item * item

    assert list(in_threads(work, range(7), threads=2)) == [0, 1, 4, 9, 16, 25, 36]


@pytest.mark.parametrize("threads", [1, 3])
def test_few_items_are_taken_ahead(threads):
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    results = in_threads(lambda item: item, items(), threads=threads)
    assert next(results) == 0
    assert len(taken) <= threads + 1
    results.close()
    assert len(taken) <= threads + 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_exception_ends_it(threads):
    seen = []

    def work(item):
        seen.append(item)
        if item == 3:
            raise ValueError("the fourth")
        return item

    results, done = in_threads(work, range(1_000), threads=threads), []
    with pytest.raises(ValueError, match="the fourth"):
        done.extend(results)
    assert done == [0, 1, 2]
    assert len(seen) < 20


def test_blas_has_one_thread_inside_and_its_own_number_after_however_it_is_nested():
    before = blas_threads()
    outer, inner = one_blas_thread(), one_blas_thread()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # not the order of a stack: generators end when they will
    assert set(blas_threads()) == {1}
    inner.__exit__(None, None, None)
    assert blas_threads() == before


def test_what_openmp_is_told_holds_here_too(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    cores = num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert num_threads() == cores >= 1
