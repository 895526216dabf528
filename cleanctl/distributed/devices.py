"""`--devices 0,1,…`: one process a device of this machine, each embedding a share of the rows into one store.

The processes are started anew (no fork: CUDA bears none), see one device each, and speak to this one through a queue:
what they track is one bar here, what they note is told once. A stop signal is handed on; a process that fails leaves
the others to finish. If this process dies, they stop as on a signal.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from cleanctl.config import EmbedConfig
from cleanctl.errors import CleanctlError, InterruptedRun
from cleanctl.progress import Progress, Task
from cleanctl.records import Shard
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import cpu_count, stop_requests

TELL_SECONDS = 0.2

Message = tuple[str, int, Any]  # kind, number of the device, content
Embed = Callable[[EmbedConfig, Path, Progress], EmbedSummary]


def embed_on_devices(config: EmbedConfig, store: Path, *, embed: Embed, progress: Progress) -> EmbedSummary:
    """Runs `embed` (importable by name) once a device of `config.devices`; gives the sum of what they did.

    Raises the first process's error, once all have ended.
    """
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    count = len(config.devices)
    processes = []
    with stop_requests() as stop:
        progress.note(f"{count} processes, one on each of the devices {', '.join(config.devices)}.")
        for number, device in enumerate(config.devices):
            share = replace(config, devices=(), shard=Shard(number, count), device="cpu" if device == "cpu" else "cuda")
            process = context.Process(target=_work, args=(number, device, share, store, embed, messages))
            with _visible(device):
                process.start()
            processes.append(process)
        listener = _Listener(config.devices, progress)
        told = False
        with listener:
            while any(process.is_alive() for process in processes):
                listener.listen(messages)
                if stop and not told:
                    told = True
                    for process in processes:
                        process.terminate()  # SIGTERM: the batch in hand is finished
            listener.listen(messages)
    for process in processes:
        process.join()
    listener.raise_failures([process.exitcode or 0 for process in processes], stopped=told)
    return _sum(listener.summaries)


# ---- in the parent


class _Listener:
    """What the processes say, as one run's progress and one result."""

    def __init__(self, devices: tuple[str, ...], progress: Progress) -> None:
        self.summaries: list[EmbedSummary] = []
        self._devices = devices
        self._progress = progress
        self._errors: dict[int, CleanctlError] = {}
        self._said: set[str] = set()
        self._stack = ExitStack()
        self._task: Task | None = None
        self._title = ""

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def listen(self, messages: Any) -> None:
        """Takes what has come, waiting a little for the first."""
        deadline = time.monotonic() + TELL_SECONDS
        while True:
            try:
                kind, number, content = messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            getattr(self, f"_take_{kind}")(number, content)

    def raise_failures(self, exit_codes: list[int], *, stopped: bool) -> None:
        for number, code in enumerate(exit_codes):
            if code and number not in self._errors:
                early = stopped and code == -signal.SIGTERM  # before it could listen for signals
                self._errors[number] = (InterruptedRun if early else CleanctlError)(
                    f"The process on device {self._devices[number]} (shard {number}/{len(exit_codes)}) died "
                    f"({f'signal {-code}' if code < 0 else f'exit code {code}'}).",
                    so="Its images are not all embedded; those of the others are.",
                    do="Run the same command again to go on.",
                )
        worst = sorted(self._errors.values(), key=lambda error: isinstance(error, InterruptedRun))
        if worst:
            raise worst[0]

    def _take_start(self, number: int, content: tuple[str, int, str, int]) -> None:
        title, total, unit, done = content
        if title != self._title or self._task is None:
            self._stack.close()
            self._title = title
            self._task = self._stack.enter_context(self._progress.track(title, total=total, unit=unit, done=done))
        else:
            self._task.grow(total, done)

    def _take_advance(self, number: int, content: tuple[str, int]) -> None:
        title, amount = content
        if self._task is not None and title == self._title:
            self._task.advance(amount)

    def _take_note(self, number: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.note(text)

    def _take_warn(self, number: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.warn(text)

    def _take_done(self, number: int, summary: EmbedSummary) -> None:
        self.summaries.append(summary)

    def _take_error(self, number: int, error: CleanctlError) -> None:
        self._errors[number] = error


def _sum(summaries: list[EmbedSummary]) -> EmbedSummary:
    """The shares' summaries as that of one run; seconds are the slowest's."""
    splits: dict[str, SplitSummary] = {}
    for summary in summaries:
        for one in summary.splits:
            here = splits.get(one.split)
            splits[one.split] = one if here is None else _add(here, one)
    first = summaries[0]
    return replace(
        first,
        splits=tuple(splits.values()),
        prompts_embedded=any(summary.prompts_embedded for summary in summaries),
        seconds=max(summary.seconds for summary in summaries),
        shard=None,
        complete=any(summary.complete for summary in summaries),
    )


def _add(one: SplitSummary, two: SplitSummary) -> SplitSummary:
    counts = {name: getattr(one, name) + getattr(two, name) for name in ("images", "ok", "failed", "embedded")}
    return replace(
        one,
        **counts,
        unchanged=one.unchanged + two.unchanged,
        loader=one.loader or two.loader,
        seconds=max(one.seconds, two.seconds),
        failures=(*one.failures, *two.failures)[:5],
    )


@contextmanager
def _visible(device: str) -> Iterator[None]:
    """A process started within sees that CUDA device alone, and none if it is to use the processor."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    allowed = before.split(",") if before else None
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        number = int(device)
        os.environ["CUDA_VISIBLE_DEVICES"] = allowed[number] if allowed and number < len(allowed) else device
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


# ---- in the process of one device


def _work(number: int, device: str, config: EmbedConfig, store: Path, embed: Embed, messages: Any) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a Ctrl-C on the terminal comes from the parent, once
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    assert config.shard is not None
    _keep_to_own_cores(number, config.shard.count)
    try:
        summary = embed(config, store, _Sender(number, messages))
    except CleanctlError as error:
        messages.put(("error", number, error))
    else:
        messages.put(("done", number, summary))
    messages.close()
    messages.join_thread()


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _keep_to_own_cores(number: int, count: int) -> None:
    """Divides the cores among the processes, or each would start as many threads as the machine has."""
    if not hasattr(os, "sched_setaffinity") or cpu_count() < count:
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number * len(cores) // count : (number + 1) * len(cores) // count])


class _Sender:
    """A Progress whose words go to the parent."""

    def __init__(self, number: int, messages: Any) -> None:
        self._number, self._messages = number, messages

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        shared = title.partition(" ")[0] + " images" if title.startswith("packing") else title
        self._messages.put(("start", self._number, (shared, total or 0, unit, done)))
        task = _SendingTask(self._number, self._messages, shared)
        try:
            yield task
        finally:
            task.flush()

    def note(self, text: str) -> None:
        self._messages.put(("note", self._number, text))

    def warn(self, text: str) -> None:
        self._messages.put(("warn", self._number, text))


class _SendingTask:
    def __init__(self, number: int, messages: Any, title: str) -> None:
        self._number, self._messages, self._title = number, messages, title
        self._count, self._since = 0, time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._count += amount
        if time.monotonic() - self._since >= TELL_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._messages.put(("advance", self._number, (self._title, self._count)))
        self._count, self._since = 0, time.monotonic()

    def describe(self, text: str) -> None:
        pass

    def grow(self, total: int, done: int) -> None:
        self._messages.put(("start", self._number, (self._title, total, "", done)))
