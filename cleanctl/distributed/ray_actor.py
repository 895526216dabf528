"""The two kinds of Ray actors: workers, which do tasks, and a board, through which they and the driver talk.

A worker does its tasks on its main thread, so that signals reach it: after SIGTERM it finishes the batch in hand and
says that it stopped. While it works, a second thread brings what it tracks and notes to the board once a second, and
hears there that the driver wants to stop. This module loads nothing heavy: a worker sets its threads first.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cleanctl.distributed.messages import Sender
from cleanctl.errors import CleanctlError, InterruptedRun
from cleanctl.progress import Progress
from cleanctl.runtime import StopFlag, limit_cores, stop_requests

BEAT_SECONDS = 1.0
ANSWER_SECONDS = 10.0  # the board's, after which a message is lost; progress alone is lost with it

Message = tuple[int, str, Any]  # the task's number, and what `Sender` sends


class Job(Protocol):
    """What workers do. Pickled once; a task and its result are small."""

    def open(self, progress: Progress, device: Literal["cuda", "cpu"]) -> Any:
        """What is made once a process, before its first task."""
        ...

    def do(self, opened: Any, task: Any, stop: StopFlag) -> Any:
        """One task; raises InterruptedRun after `stop`, other CleanctlErrors for what ends the run."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a task ended in its worker. content: the result, or the error; of "stopped" its InterruptedRun."""

    kind: Literal["done", "stopped", "error"]
    content: Any
    messages: list[Message]


class Board:
    """Where workers leave messages and the driver its wish to stop. On no core of its own."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._stopping = False

    def report(self, messages: list[Message]) -> bool:
        """True if the worker shall stop."""
        self._messages += messages
        return self._stopping

    def take(self, stopping: bool) -> list[Message]:
        """For the driver: what came since it last asked."""
        self._stopping = stopping
        taken, self._messages = self._messages, []
        return taken


class Worker:
    """job: a list of Ray's reference to it. cores: what it computes on. folder: the driver's, for relative paths."""

    def __init__(self, job: list[Any], board: Any, *, cores: int, device: Literal["cuda", "cpu"], folder: str) -> None:
        limit_cores(max(1, cores))
        with suppress(OSError):  # not on this node: paths that are relative will be reported as missing
            os.chdir(folder)
        self._reference, self._board, self._device = job[0], board, device
        self._job: Any = None
        self._opened: Any = None
        self._refused: CleanctlError | None = None
        self._number = -1  # of no task
        self._lock = threading.Lock()
        self._messages: list[Message] = []

    def start(self) -> tuple[str, int]:
        """Host name and process, once it is ready for tasks. What hinders it is said by the first task."""
        import ray

        if self._job is None:
            self._job = ray.get(self._reference)
            try:
                self._opened = self._job.open(Sender(self._send), self._device)
            except CleanctlError as exc:
                self._refused = exc
        return socket.gethostname(), os.getpid()

    def do(self, number: int, task: Any) -> Outcome:
        """Task `number` of the run."""
        self._number, ended = number, threading.Event()
        with stop_requests() as stop:
            beat = threading.Thread(target=self._beat, args=(stop, ended), name="cleanctl-beat", daemon=True)
            beat.start()
            try:
                kind, content = self._do(task, stop)
            finally:
                ended.set()
                beat.join()
        return Outcome(kind, content, self._drain())

    def _do(self, task: Any, stop: StopFlag) -> tuple[Literal["done", "stopped", "error"], Any]:
        try:
            if self._refused is not None:
                raise self._refused
            return "done", self._job.do(self._opened, task, stop)
        except InterruptedRun as exc:
            return "stopped", exc
        except CleanctlError as exc:
            return "error", exc

    def _beat(self, stop: StopFlag, ended: threading.Event) -> None:
        import ray

        while not ended.wait(BEAT_SECONDS):
            with suppress(ray.exceptions.RayError):  # a board that died is started again, or the driver is dead
                if ray.get(self._board.report.remote(self._drain()), timeout=ANSWER_SECONDS) and not stop:
                    stop.signal = signal.SIGTERM

    def _send(self, kind: str, content: Any) -> None:
        with self._lock:
            self._messages.append((self._number, kind, content))

    def _drain(self) -> list[Message]:
        with self._lock:
            drained, self._messages = self._messages, []
            return drained
