"""`--devices 0,1,…`: one process a device of this machine, each embedding a shard of the rows into one store.

The processes use the start method `spawn`, because CUDA contexts do not survive fork. Each sees one device and writes
to a pipe of its own, so that a process that is killed while it writes blocks nobody: what the processes track is one
progress bar here, what several of them note is shown once. A stop signal is handed on; a process that fails leaves the
others to finish. If this process dies, they stop as on a signal.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cleanctl.config import EmbedConfig
from cleanctl.distributed.messages import SEND_SECONDS, Sender
from cleanctl.errors import CleanctlError, InterruptedRun, UsageError
from cleanctl.progress import Progress, Task
from cleanctl.records import Shard
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import cpu_count, stop_requests

END_SECONDS = 10  # for a process that has said its last word

Embed = Callable[[EmbedConfig, Path, Progress], EmbedSummary]


def embed_on_devices(config: EmbedConfig, store: Path, *, embed: Embed, progress: Progress) -> EmbedSummary:
    """Runs `embed` (importable by name) once a device of `config.devices`; gives the sum of what they did.

    `cpu` alone runs in this process. Raises UsageError for a device that is not there, and the first process's error
    once all have ended.
    """
    _require_devices(config.devices)
    if config.devices == ("cpu",):
        return embed(replace(config, devices=(), device="cpu"), store, progress)
    count = len(config.devices)
    with stop_requests() as stop, _Listener(config.devices, progress) as listener:
        progress.note(f"{count} processes, one on each of the devices {', '.join(config.devices)}.")
        processes: dict[Connection, BaseProcess] = {}
        for number, device in enumerate(config.devices):
            kind = "cpu" if device == "cpu" else "cuda"
            own = replace(config, devices=(), shard=Shard(number, count), device=kind)  # type: ignore[arg-type]
            messages, process = _start(device, own, store, embed)
            processes[messages] = process
        numbers = {messages: number for number, messages in enumerate(processes)}
        told = False
        while numbers:
            for ready in wait(list(numbers), timeout=SEND_SECONDS):
                assert isinstance(ready, Connection)
                try:
                    message = ready.recv()
                except (EOFError, OSError):  # it ended, perhaps in the middle of a message
                    del numbers[ready]
                else:
                    listener.take(numbers[ready], *message)
            if stop and not told:
                told = True
                for process in processes.values():
                    process.terminate()  # SIGTERM: the batch in hand is finished
    listener.raise_failures([_exit_code(process) for process in processes.values()], stopped=told)
    summary = _sum(listener.summaries)
    if not summary.complete:  # none of them found that it was the last
        embed(replace(config, devices=(), finish=True), store, progress)
    return replace(summary, complete=True)


# ---- in the parent


def _require_devices(devices: tuple[str, ...]) -> None:
    if set(devices) == {"cpu"}:
        return
    import torch

    count = torch.cuda.device_count()
    absent = next((name for name in devices if name != "cpu" and int(name) >= count), None)
    if absent is not None:
        raise UsageError(
            f"--devices names {absent}, and torch finds {count or 'no'} CUDA device{'' if count == 1 else 's'}.",
            do="Give numbers of devices that are there, or cpu; see what is missing with: cleanctl doctor",
        )


def _start(device: str, config: EmbedConfig, store: Path, embed: Embed) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(config, store, embed, sending))
    with visible_device(device):
        start_whole(process)
    sending.close()  # the process holds the only other end: its death closes the pipe
    return receiving, process


def start_whole(process: BaseProcess) -> None:
    """Starts a process that no Ctrl-C reaches, then or later: this one hands it on.

    One that is interrupted before it has read what it is to do would end in a traceback. A Ctrl-C that comes meanwhile
    takes effect once the process is started.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        process.start()
        return
    resource_tracker.ensure_running()  # started later, it would let the signal through
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a started process inherits it
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _exit_code(process: BaseProcess) -> int:
    process.join(END_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode or 0


class _Listener:
    """What the processes say, as one run's progress and one result."""

    def __init__(self, devices: tuple[str, ...], progress: Progress) -> None:
        self.summaries: list[EmbedSummary] = []
        self._devices = devices
        self._progress = progress
        self._ended: set[int] = set()
        self._errors: dict[int, CleanctlError] = {}
        self._said: set[str] = set()
        self._stack = ExitStack()
        self._task: Task | None = None
        self._title = ""

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def take(self, number: int, kind: str, content: Any) -> None:
        """One message of process `number`."""
        if kind == "done":
            self.summaries.append(content)
            self._ended.add(number)
        elif kind == "error":
            self._errors[number] = content
        elif kind == "start":
            self._track(*content)
        elif kind == "advance":
            title, amount = content
            if self._task is not None and title == self._title:
                self._task.advance(amount)
        elif content not in self._said:
            self._said.add(content)
            getattr(self._progress, kind)(content)  # note or warn

    def raise_failures(self, exit_codes: list[int], *, stopped: bool) -> None:
        for number, code in enumerate(exit_codes):
            if number not in self._errors and number not in self._ended:
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

    def _track(self, title: str, total: int, unit: str, done: int) -> None:
        if title != self._title or self._task is None:
            self._stack.close()
            self._title = title
            self._task = self._stack.enter_context(self._progress.track(title, total=total, unit=unit, done=done))
        else:
            self._task.grow(total, done)


def _sum(summaries: list[EmbedSummary]) -> EmbedSummary:
    """The shards' summaries as that of one run; seconds are the slowest's."""
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
def visible_device(device: str) -> Iterator[None]:
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


def _work(config: EmbedConfig, store: Path, embed: Embed, messages: Connection) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a Ctrl-C on the terminal comes from the parent, once
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=messages.close)  # a loader's processes must not keep the pipe open
    threading.Thread(target=stop_with_parent, daemon=True).start()
    assert config.shard is not None
    keep_to_own_cores(config.shard.index, config.shard.count)
    pipe = _Pipe(messages)
    try:
        summary = embed(config, store, Sender(pipe.send))
    except CleanctlError as error:
        pipe.send("error", error)
    else:
        pipe.send("done", summary)


def stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def keep_to_own_cores(number: int, count: int) -> None:
    """Divides the cores among the processes, or each would start as many threads as the machine has."""
    if not hasattr(os, "sched_setaffinity") or cpu_count() < count:
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number * len(cores) // count : (number + 1) * len(cores) // count])


class _Pipe:
    """What several threads of this process tell the parent (packing reports from several)."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages
        self._lock = threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        with self._lock, suppress(BrokenPipeError):  # the parent is dead: stop_with_parent ends this process
            self._messages.send((kind, content))
