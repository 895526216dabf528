"""Tasks of one job over the actors of a Ray cluster, whoever dies and whoever comes.

An actor gets one task at a time. Where an actor dies, its task goes back to the front and to the next that is free, and
Ray starts the actor again (`max_restarts`) wherever there is room; an actor that was sent SIGTERM hands its task back
and is replaced. Nodes that join get actors within seconds. Results are small: what a task makes is in the store.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from cleanctl.distributed.ray_actor import Board, Job, Message, Outcome, Worker
from cleanctl.distributed.ray_cluster import LOGS, Seat, live_nodes
from cleanctl.errors import CleanctlError, first_line
from cleanctl.progress import Progress
from cleanctl.runtime import StopFlag

WAIT_SECONDS = 0.5
LOOK_SECONDS = 3.0  # between looks at which nodes there are
DEATHS = 5  # of actors at one task, after which it is the task that kills them
REFUSALS = 3  # of actors to start, in a row

Hear = Callable[[Message], None]


class Fleet:
    """Runs tasks; a context whose end is the actors'.

    most: actors that there will be work for. hear: takes the messages of workers but notes and warnings.
    """

    def __init__(
        self,
        ray: Any,
        job: Job,
        seat: Seat,
        *,
        most: int,
        stop: StopFlag,
        progress: Progress,
        hear: Hear = lambda message: None,
    ) -> None:
        self._ray, self._seat, self._stop, self._progress, self._hear = ray, seat, stop, progress, hear
        self._most = max(1, most)
        self._job = [ray.put(job)]  # in a list: an argument itself would be fetched before the worker sets its threads
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        options = {"num_cpus": seat.cores, "num_gpus": seat.gpus, "max_restarts": -1, "max_task_retries": 0}
        self._worker = ray.remote(**options)(Worker)
        self._starting: dict[Any, Any] = {}  # ref of `start` → actor
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, int]] = {}  # ref of `do` → actor, task
        self._taking: Any = None  # ref of the board's answer
        self._said: set[str] = set()
        self._looked = 0.0
        self._refused = 0
        self._error: CleanctlError | None = None

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *exc: Any) -> None:
        for actor in (*self._starting.values(), *self._free, *(actor for actor, _ in self._busy.values()), self._board):
            self._ray.kill(actor)

    def run(self, tasks: Sequence[Any], took: Callable[[int, Any], None]) -> bool:
        """Does all tasks and calls `took` with each one's number and result, as they end; False if stopped before.

        Raises the first CleanctlError of a task, once the others have handed back what they had in hand.
        """
        todo, deaths = deque(range(len(tasks))), Counter[int]()
        while todo or self._busy:
            self._look()
            while todo and self._free and not self._ending:
                number = todo.popleft()
                actor = self._free.pop()
                self._busy[actor.do.remote(number, tasks[number])] = actor, number
            if self._ending and not self._busy:
                break
            self._listen()
            for ref in self._wait():
                if ref in self._starting:
                    self._take_started(ref)
                elif (lost := self._take_ended(ref, took, deaths)) is not None:
                    todo.appendleft(lost)
        if self._error is not None:
            raise self._error
        return not todo

    def one(self, task: Any) -> Any:
        """The result of one task on any actor; None if stopped before."""
        results: list[Any] = []
        self.run([task], lambda number, result: results.append(result))
        return results[0] if results else None

    @property
    def _ending(self) -> bool:
        return bool(self._stop) or self._error is not None

    # ---- actors

    def _wait(self) -> list[Any]:
        pending = [*self._busy, *self._starting]
        if not pending:  # no node has room at the moment
            time.sleep(WAIT_SECONDS)
            return []
        ready: list[Any] = self._ray.wait(pending, timeout=WAIT_SECONDS)[0]
        return ready

    def _look(self) -> None:
        """As many actors as there is room and work for."""
        if time.monotonic() - self._looked < LOOK_SECONDS and (self._starting or self._free or self._busy):
            return
        self._looked = time.monotonic()
        room = self._seat.count(live_nodes(self._ray))
        count = len(self._starting) + len(self._free) + len(self._busy)
        for _ in range(min(room, self._most) - count):
            folder, device = os.getcwd(), self._seat.device
            actor = self._worker.remote(self._job, self._board, cores=self._seat.cores, device=device, folder=folder)
            self._start(actor)
        for ref in list(self._starting)[: max(0, count - max(room, 1))]:  # of nodes that are gone
            self._ray.kill(self._starting.pop(ref))

    def _start(self, actor: Any) -> None:
        self._starting[actor.start.options(max_task_retries=-1).remote()] = actor

    def _take_started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as exc:
            self._refused += 1
            if self._refused >= REFUSALS:
                why = str(exc).strip().splitlines()[-1].strip()
                raise CleanctlError(
                    f"Ray cannot start a worker: {why}",
                    so="Nothing is lost; what was embedded is in the store.",
                    do=f"Install the same cleanctl for the same Python on every node, and look at {LOGS} there.",
                ) from exc
        else:
            self._refused = 0
            self._free.append(actor)

    def _take_ended(self, ref: Any, took: Callable[[int, Any], None], deaths: Counter[int]) -> int | None:
        """The task's number if it is to be done again."""
        actor, number = self._busy.pop(ref)
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:
            raise  # an error of ours, with its traceback
        except self._ray.exceptions.RayError as exc:
            deaths[number] += 1
            self._start(actor)
            if deaths[number] >= DEATHS:
                self._error = _deadly(exc)
            elif not self._ending:
                self._progress.note("A worker died; its part goes to another.")
            return number
        for message in outcome.messages:
            self._tell(message)
        if outcome.kind == "done":
            self._free.append(actor)
            try:
                took(number, outcome.content)
            except CleanctlError as exc:
                self._error = self._error or exc
            return None
        if outcome.kind == "error":
            self._error = self._error or outcome.content
            self._free.append(actor)
        elif self._ending:
            self._free.append(actor)
        else:
            self._progress.note("A worker was told to stop; its part goes to another.")
            self._ray.kill(actor)
            self._looked = 0.0
        return number

    # ---- messages

    def _listen(self) -> None:
        if self._taking is not None:
            ready, _ = self._ray.wait([self._taking], timeout=0)
            if not ready:
                return
            try:
                for message in self._ray.get(self._taking):
                    self._tell(message)
            except self._ray.exceptions.RayError:
                pass  # the board died and is started again: what it held of the progress is lost
        self._taking = self._board.take.remote(self._ending)

    def _tell(self, message: Message) -> None:
        number, kind, content = message
        if kind not in ("note", "warn"):
            if number >= 0:
                self._hear(message)
        elif content not in self._said:
            self._said.add(content)
            getattr(self._progress, kind)(content)


def _deadly(exc: Exception) -> CleanctlError:
    return CleanctlError(
        f"{DEATHS} workers died at the same part: {first_line(exc)}",
        so="What is embedded is in the store, but this part kills whoever takes it.",
        do=f"Look at {LOGS}, have fewer workers on a node with a larger --ray-cores, "
        "or run the same command without --engine ray to see it happen.",
    )
