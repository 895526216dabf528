"""`select --engine ray`: actors of a Ray cluster share the rows of a split, at most one for each block of the store.

All of them work at the same time: each passes over its own rows and meets the others at the desk, an actor that adds up
what they bring. The first one writes the scores into the store, which every node sees under the same path; no image and
no embedding passes through Ray. Where an actor dies, new ones compute the score in hand again, and those after it: each
waits for the sums of all, so this costs no more time than one new actor would that catches up. With as many actors
sums are added in the same order, so the scores are those of an undisturbed run. This module loads nothing heavy: an
actor sets its threads first.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cleanctl.config import SelectConfig
from cleanctl.distributed.messages import Sender
from cleanctl.distributed.ray_cluster import LOGS, Seat, choose_seat, connected, live_nodes
from cleanctl.errors import CleanctlError, first_line
from cleanctl.progress import Progress, Task
from cleanctl.runtime import limit_cores

if TYPE_CHECKING:
    from cleanctl.score.compute import Plan
    from cleanctl.store import Split, Store

LOOK_SECONDS = 0.5  # between looks at the desk
START_SECONDS = 300.0  # for all actors to have their place, and for a node to come where none is left
DEATHS = 5  # in a row without a score finished, after which it is the score that kills them


def score_on_ray(store: Store, split: Split, config: SelectConfig, plan: Plan, *, progress: Progress) -> None:
    """Computes and stores the scores of the plan. Raises an actor's error, CleanctlError where actors die again and
    again, and MissingPackageError without Ray."""
    from cleanctl.score.compute import plan_scores

    with connected(config.ray_address, progress) as ray:
        seat = choose_seat(live_nodes(ray), config.device, config.ray_cores)
        score = partial(_score_once, ray, seat, store, split, config, progress)
        until_stored(plan, score, lambda: plan_scores(store, split, config), progress)


# ---- in the driver


class WorkerDied(Exception):
    """An actor, or the node it was on; in the words of Ray."""


def until_stored(plan: Plan, score: Callable[[Plan], None], again: Callable[[], Plan], progress: Progress) -> None:
    """Calls `score` until no worker dies, each time with what is not stored yet, which `again` says."""
    deaths = 0
    while plan.basis:
        try:
            score(plan)
            return
        except WorkerDied as died:
            left = again()
            deaths = deaths + 1 if len(left.basis) == len(plan.basis) else 1
            if deaths == DEATHS:
                raise _deadly(died) from died
            if left.basis:
                progress.note("A worker died; the score in hand is computed again by new ones.")
            plan = left


def _score_once(
    ray: Any, seat: Seat, store: Store, split: Split, config: SelectConfig, progress: Progress, plan: Plan
) -> None:
    """By actors started for it. Raises WorkerDied if one of them dies."""
    from cleanctl.distributed.sharing import shared_among

    room = _room(ray, seat)
    progress.note(f"Room for {room} workers, each with {seat}.")
    wanted = min(room, config.processes or room)
    parts = shared_among(wanted, f"--engine ray with {wanted}", split, config, plan, progress)
    own = replace(config, engine="local", ray_address=None, ray_cores=None, processes=None, device=seat.device)
    with _actors(ray, seat, parts) as (desk, actors), _Shown(progress) as shown:
        task = os.path.abspath(store.path), split.name, own, plan, desk
        running = [actor.run.remote(*task) for actor in actors]
        while running:
            ended, running = ray.wait(running, timeout=LOOK_SECONDS)
            for one in ended:
                if (error := _result(ray, one)) is not None:
                    raise error
            for message in _result(ray, desk.told.remote()):
                shown.take(*message)


def _room(ray: Any, seat: Seat) -> int:
    """How many actors there is room for; waits for a node where the last one died."""
    end = time.monotonic() + START_SECONDS
    while not (room := seat.count(live_nodes(ray))):
        if time.monotonic() > end:
            raise CleanctlError(
                f"No node of the Ray cluster is left that has {seat}, and none came within {START_SECONDS:.0f} s.",
                so="Scores that were finished are stored.",
                do="Start nodes with `ray start --address HOST:PORT`, and run the same command again to go on.",
            )
        time.sleep(LOOK_SECONDS)
    return room


@contextmanager
def _actors(ray: Any, seat: Seat, parts: int) -> Iterator[tuple[Any, list[Any]]]:
    """The desk and one actor a part, all of them in their places."""
    desk = ray.remote(num_cpus=0)(Desk).remote(parts)
    kind = ray.remote(num_cpus=seat.cores, num_gpus=seat.gpus, max_restarts=0)(Part)
    actors = [kind.remote(number, parts, seat.cores) for number in range(parts)]
    try:
        _take_places(ray, seat, actors)
        yield desk, actors
    finally:
        for actor in (*actors, desk):
            ray.kill(actor)


def _take_places(ray: Any, seat: Seat, actors: list[Any]) -> None:
    late, end = [actor.place.remote() for actor in actors], time.monotonic() + START_SECONDS
    while late:
        ready, late = ray.wait(late, timeout=LOOK_SECONDS)
        for one in ready:
            _result(ray, one)
        if late and seat.count(live_nodes(ray)) < len(actors):
            raise WorkerDied("a node was lost while workers started")
        if late and time.monotonic() > end:
            raise CleanctlError(
                f"Ray started {len(actors) - len(late)} of {len(actors)} workers within {START_SECONDS:.0f} s.",
                so="They share the rows, so all of them must run at the same time.",
                do="Give fewer with --processes, or free the cluster's cores and GPUs.",
            )


def _result(ray: Any, reference: Any) -> Any:
    """Of a call of an actor; raises WorkerDied where that actor died, or the desk that it waited for."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as exc:
        cause = exc.cause  # of an actor that waits at the desk: that the desk is gone, or what lay on its node
        if isinstance(cause, ray.exceptions.RayError) and not isinstance(cause, ray.exceptions.RayTaskError):
            raise WorkerDied(first_line(cause)) from exc
        raise  # an error of ours, with its traceback
    except ray.exceptions.RayError as exc:
        raise WorkerDied(first_line(exc)) from exc


def _deadly(died: WorkerDied) -> CleanctlError:
    return CleanctlError(
        f"Workers of Ray died {DEATHS} times at the same score: {died}",
        so="That score is not stored; those before it are.",
        do=f"Look at {LOGS} on their nodes; where memory ran out, have fewer workers "
        "on a node with a larger --ray-cores. Run the same command again to go on.",
    )


class _Shown:
    """What the first actor tracks and notes, shown here."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stack = progress, ExitStack()
        self._title = ""
        self._task: Task | None = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def take(self, kind: str, content: Any) -> None:
        if kind == "start":
            title, total, unit, done = content
            self._stack.close()
            tracked = self._progress.track(title, total=total or None, unit=unit, done=done)
            self._title, self._task = title, self._stack.enter_context(tracked)
        elif kind == "advance":
            if self._task is not None and content[0] == self._title:
                self._task.advance(content[1])
        else:
            getattr(self._progress, kind)(content)


# ---- the actors


class Desk:
    """Where the parts meet. Each of a part's calls has a number, and calls of one number belong together; a call ends
    when every part has made it."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._brought: dict[int, dict[int, Any]] = {}
        self._made: dict[int, asyncio.Future[Any]] = {}
        self._left: dict[int, int] = {}
        self._told: list[tuple[str, Any]] = []

    async def sum(self, call: int, number: int, value: Any) -> Any:
        """In the order of the parts."""
        return await self._met(call, number, value, lambda brought: sum(brought[1:], brought[0]))

    async def gather(self, call: int, number: int, value: Any, at: int) -> list[Any]:
        found: list[Any] = await self._met(call, number, value, lambda brought: brought)
        return found if number == at else []

    async def spread(self, call: int, number: int, value: Any) -> Any:
        return await self._met(call, number, value, lambda brought: brought[0])

    async def _met(self, call: int, number: int, value: Any, make: Any) -> Any:
        brought = self._brought.setdefault(call, {})
        made = self._made.setdefault(call, asyncio.get_running_loop().create_future())
        brought[number] = value
        if len(brought) == self._parts:
            made.set_result(make([brought[one] for one in range(self._parts)]))
            brought.clear()
        found = await made
        self._left[call] = self._left.get(call, 0) + 1
        if self._left[call] == self._parts:
            del self._made[call], self._brought[call], self._left[call]
        return found

    async def tell(self, kind: str, content: Any) -> None:
        self._told.append((kind, content))

    async def told(self) -> list[tuple[str, Any]]:
        """For the driver: what came since it last asked."""
        taken, self._told = self._told, []
        return taken


class Part:
    """One of the actors that share the rows."""

    def __init__(self, number: int, parts: int, cores: int) -> None:
        limit_cores(max(1, cores))
        self._number, self._parts = number, parts

    def place(self) -> tuple[str, int]:
        """Host name and process."""
        return socket.gethostname(), os.getpid()

    def run(self, store: str, split: str, config: SelectConfig, plan: Plan, desk: Any) -> CleanctlError | None:
        """Computes its part of the scores; gives the error that ends it, if one does."""
        from cleanctl.distributed.ray_parts import RayParts
        from cleanctl.progress import SILENT
        from cleanctl.score.compute import compute_scores
        from cleanctl.store import Store

        progress = Sender(lambda kind, content: desk.tell.remote(kind, content)) if self._number == 0 else SILENT
        try:
            opened = Store.open(Path(store))
            reduce = RayParts(self._number, self._parts, desk)
            compute_scores(opened, opened.split(split), config, plan, progress=progress, reduce=reduce)
        except CleanctlError as error:
            return error
        return None
