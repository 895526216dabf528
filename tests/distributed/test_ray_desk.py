"""The desk at which Ray's actors meet, with threads in place of actors: what is added, in which order, and for whom."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cleanctl.distributed.ray_parts import RayParts
from cleanctl.distributed.ray_select import Desk


class Handle:
    """As Ray's handle of an actor: a call gives at once what `ray.get` waits for."""

    def __init__(self, desk, loop):
        self._desk, self._loop = desk, loop

    def __getattr__(self, name):
        method = getattr(self._desk, name)
        return SimpleNamespace(remote=lambda *given: asyncio.run_coroutine_threadsafe(method(*given), self._loop))


@pytest.fixture
def meet(monkeypatch):
    """Runs work(part) for each of three parts at the same time; what each gave, in order."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda future: future.result(60)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    desk = Desk(3)

    def run(work):
        found = [None] * 3

        def one(number):
            found[number] = work(RayParts(number, 3, Handle(desk, loop)))

        threads = [threading.Thread(target=one, args=(number,)) for number in (2, 0, 1)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not desk._made
        assert not desk._brought
        return found

    yield run
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_sums_are_in_the_order_of_the_parts_and_may_be_changed(meet):
    own = [np.array([1e16, 0.1]), np.array([1.0, 0.2]), np.array([-1e16, 0.3])]

    def work(part):
        total = part.sum(own[part.number])
        kept = total.copy()
        total += 1
        again = part.sum(own[part.number])
        assert (again == kept).all()
        return kept

    expected = (own[0] + own[1]) + own[2]
    assert expected[0] == 0.0  # in another order it is 1
    for total in meet(work):
        np.testing.assert_array_equal(total, expected)


def test_rows_are_gathered_in_the_order_of_the_parts_in_the_part_that_asked(meet):
    found = meet(lambda part: [part.gather(np.full(part.number, part.number), at=at) for at in (0, 2)])
    assert found[0][0].tolist() == found[2][1].tolist() == [1, 2, 2]
    assert found[1] == [None, None]
    assert found[0][1] is None


def test_what_the_first_part_makes_is_made_once(meet):
    made = []

    def make():
        made.append(threading.get_ident())
        return {"number": len(made)}

    assert meet(lambda part: part.from_first(make)) == [{"number": 1}] * 3
    assert len(made) == 1
