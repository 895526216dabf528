"""`select --processes N`: this process and N - 1 that it starts share the rows of a split.

This process is the first part: it reports, writes and decides. The others are started by `spawn`, because CUDA contexts
do not survive fork, read their own shards of the store, and are connected with it by a pipe each. One that fails or is
killed is this run's error, and the rest are killed with it: they only read. If this process dies, they end too. Each
has its own share of the cores, and where there are several CUDA devices one of them, in turn.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cleanctl.config import SelectConfig
from cleanctl.distributed.devices import END_SECONDS, keep_to_own_cores, start_whole, stop_with_parent, visible_device
from cleanctl.distributed.reduce import Exchange
from cleanctl.errors import CleanctlError
from cleanctl.progress import Progress
from cleanctl.runtime import choose_device
from cleanctl.score.compute import Plan, compute_scores
from cleanctl.store import Split, Store


def score_in_processes(
    store: Store, split: Split, config: SelectConfig, plan: Plan, *, parts: int, progress: Progress
) -> None:
    """Computes and stores the scores of the plan in `parts` processes. Raises the error of one that fails."""
    with ExitStack() as stack:
        others = [
            stack.enter_context(_started(number, parts, store, split, config, plan)) for number in range(1, parts)
        ]
        stack.enter_context(_own_cores(parts))
        compute_scores(store, split, config, plan, progress=progress, reduce=First(others))


# ---- in the first part


class Other:
    """A process that this one started, and the pipe to it."""

    def __init__(self, number: int, parts: int, messages: Connection, process: BaseProcess) -> None:
        self.number, self.parts, self.messages, self.process = number, parts, messages, process

    def receive(self) -> Any:
        """What it sends; raises the error that it ended with."""
        try:
            kind, content = self.messages.recv()
        except (EOFError, OSError) as exc:
            raise self._death() from exc
        if kind == "error":
            raise content
        return content

    def send(self, value: Any) -> None:
        try:
            self.messages.send(value)
        except OSError:
            while True:  # it is gone: what it said before is in the pipe, its error last
                self.receive()

    def _death(self) -> CleanctlError:
        self.process.join(END_SECONDS)
        code = self.process.exitcode or 0
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return CleanctlError(
            f"Process {self.number + 1} of {self.parts} died ({end}).",
            so="The score in hand is not stored; those before it are.",
            do="Run the same command again to go on. If memory ran out, give fewer --processes.",
        )


class First(Exchange):
    """The end of the pipes in this process."""

    def __init__(self, others: list[Other]) -> None:
        super().__init__(0, 1 + len(others))
        self._others = others

    def collect(self, value: Any) -> list[Any]:
        found = {0: value}
        waiting = {one.messages: one for one in self._others}
        while waiting:
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                one = waiting.pop(ready)
                found[one.number] = one.receive()
        return [found[number] for number in range(self.parts)]

    def spread(self, value: Any) -> Any:
        for one in self._others:
            one.send(value)
        return value

    def hand_on(self, value: Any, *, to: int) -> Any:
        if to == 0:
            return value
        self._others[to - 1].send(value)
        return None


@contextmanager
def _started(number: int, parts: int, store: Store, split: Split, config: SelectConfig, plan: Plan) -> Iterator[Other]:
    """One of the other processes; it is killed where the work in the `with` fails."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(number, parts, store.path, split.name, config, plan, there))
    try:
        with _device_of(number, config):
            start_whole(process)
        there.close()  # the process holds the only other end: its death closes the pipe
        yield Other(number, parts, here, process)
        process.join(END_SECONDS)
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        here.close()


def _device_of(number: int, config: SelectConfig) -> Any:
    if choose_device(config.device).value != "cuda":
        return nullcontext()
    import torch

    return visible_device(str(number % torch.cuda.device_count()))


@contextmanager
def _own_cores(parts: int) -> Iterator[None]:
    """This process keeps to its share while the others run; threads that it starts then do as well."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    keep_to_own_cores(0, parts)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


# ---- in the others


class Further(Exchange):
    """The end of a pipe in another process."""

    def __init__(self, number: int, parts: int, messages: Connection) -> None:
        super().__init__(number, parts)
        self._messages = messages

    def collect(self, value: Any) -> list[Any]:
        self._messages.send(("value", value))
        return []

    def spread(self, value: Any) -> Any:
        return self._messages.recv()

    def hand_on(self, value: Any, *, to: int) -> Any:
        return self._messages.recv() if to == self.number else None


def _work(
    number: int, parts: int, store: Path, split: str, config: SelectConfig, plan: Plan, messages: Connection
) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a Ctrl-C on the terminal ends the first process, and that one these
    threading.Thread(target=stop_with_parent, daemon=True).start()
    keep_to_own_cores(number, parts)
    try:
        opened = Store.open(store)
        compute_scores(opened, opened.split(split), config, plan, reduce=Further(number, parts, messages))
    except CleanctlError as error:
        messages.send(("error", error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the first process has ended
