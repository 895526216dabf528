"""The machine a run finds itself on: device, precision, cores, seeds, stop signals. Nothing is probed at import."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanctl.errors import InterruptedRun, UsageError
from cleanctl.progress import Progress, Task

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "cpu")
PRECISIONS = ("auto", "fp16", "bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen and the reason, so that no path is taken silently."""

    value: str
    reason: str


def choose_device(wanted: str = "auto") -> Choice:
    """`cuda` or `cpu`; raises UsageError if CUDA is demanded and absent."""
    import torch

    if wanted not in DEVICES:
        raise UsageError(f"--device is {wanted!r}.", do=f"Give one of: {', '.join(DEVICES)}.")
    if wanted == "cpu":
        return Choice(value="cpu", reason="asked for")
    if torch.cuda.is_available():
        return Choice(value="cuda", reason=torch.cuda.get_device_name())
    if wanted == "cuda":
        raise UsageError(
            "--device cuda was asked for, and torch finds no CUDA device.",
            do="Use --device cpu, or see what is missing with: cleanctl doctor",
        )
    return Choice(value="cpu", reason="no CUDA device found")


def has_native_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX512-BF16 or AMX); emulated, it is slower than fp32."""
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


def choose_precision(wanted: str, device: str) -> Choice:
    """fp16 on CUDA; on a CPU bf16 where the processor has it, else fp32. Explicit wishes are kept."""
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision is {wanted!r}.", do=f"Give one of: {', '.join(PRECISIONS)}.")
    if wanted == "fp16" and device == "cpu":
        raise UsageError(
            "--precision fp16 was asked for on a CPU.",
            so="Processors have no fast fp16 matrix product.",
            do="Use --precision bf16, fp32 or auto.",
        )
    if wanted != "auto":
        return Choice(value=wanted, reason="asked for")
    if device == "cuda":
        return Choice(value="fp16", reason="half precision on CUDA")
    if has_native_bf16():
        return Choice(value="bf16", reason="the processor multiplies bf16 natively")
    return Choice(value="fp32", reason="the processor has no native bf16")


def torch_dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def cpu_count() -> int:
    """Cores this process may use, which in a container or under SLURM is less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def seed_everything(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class StopFlag:
    """Set by the first SIGINT or SIGTERM; loops ask it between units of work."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopFlag]:
    """Turns SIGINT and SIGTERM into a flag for the time of a `with`; a second signal stops at once.

    Outside the main thread signals cannot be caught, and the flag is never set.
    """
    flag = StopFlag()

    def handler(number: int, frame: object) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.signal = number

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, handler) for number in numbers]
    except ValueError:
        yield flag
        return
    try:
        yield flag
    finally:
        for number, old in zip(numbers, before):
            signal.signal(number, old)


class Stoppable:
    """A Progress whose tasks raise InterruptedRun after a stop signal: for long work that takes a Progress alone."""

    def __init__(self, progress: Progress, stop: StopFlag) -> None:
        self._stop = stop
        self.note, self.warn = progress.note, progress.warn
        self._track = progress.track

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        with self._track(title, total=total, unit=unit, done=done) as task:
            yield _StoppableTask(title, task, self._stop)


class _StoppableTask:
    def __init__(self, title: str, task: Task, stop: StopFlag) -> None:
        self._title, self._task, self._stop = title, task, stop
        self.describe, self.grow = task.describe, task.grow

    def advance(self, amount: int = 1) -> None:
        self._task.advance(amount)
        if self._stop:
            raise InterruptedRun(
                f"Stopped on request while {self._title}.",
                so="Everything embedded so far is in the store.",
                do="Run the same command again to go on.",
            )
