"""The machine a run is on: device, precision, cores, threads, seeds, stop signals. Nothing is probed at import."""

from __future__ import annotations

import atexit
import ctypes
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cleanctl.errors import InterruptedRun, UsageError
from cleanctl.progress import Progress, Task

if TYPE_CHECKING:
    import torch

# What libraries that compute in threads read from the environment, once, as they are loaded.
THREAD_SETTINGS = {
    # OpenMP's threads sleep while they wait. They spin by default, for so long that with one of two cores taken by
    # another process `select` took twenty times as long.
    "OMP_WAIT_POLICY": "passive",
    # So do those of OpenBLAS, numpy's: for 2^26 ticks of the clock if they are not told otherwise.
    "OPENBLAS_THREAD_TIMEOUT": "4",
    # Numba's own threads survive a fork. It would prefer TBB, if OpenCV brought it, whose clean-up at the end of a
    # process once never returned.
    "NUMBA_THREADING_LAYER": "workqueue",
}
DEVICES = ("auto", "cuda", "cpu")
PRECISIONS = ("auto", "fp16", "bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen and the reason, so that no path is taken silently."""

    value: str
    reason: str


def set_thread_defaults() -> None:
    """Puts THREAD_SETTINGS into this process's environment, and so into its children's; what a user has set stays.

    Importing any part of cleanctl does it. Where torch or Numba was imported before, their threads are as they were.
    """
    for name, value in THREAD_SETTINGS.items():
        os.environ.setdefault(name, value)


def choose_device(wanted: str = "auto") -> Choice:
    """`cuda` or `cpu`; raises UsageError if CUDA is demanded and absent. Without a driver torch is not asked, which
    would take seconds and hundreds of MiB that nothing else may need."""
    if wanted not in DEVICES:
        raise UsageError(f"--device is {wanted!r}.", do=f"Give one of: {', '.join(DEVICES)}.")
    if wanted == "cpu":
        return Choice(value="cpu", reason="asked for")
    if wanted == "auto" and "torch" not in sys.modules and not may_have_gpu():
        return Choice(value="cpu", reason="no CUDA device found")
    import torch

    if torch.cuda.is_available():
        return Choice(value="cuda", reason=torch.cuda.get_device_name())
    if wanted == "cuda":
        raise UsageError(
            "--device cuda was asked for, and torch finds no CUDA device.",
            do="Use --device cpu, or see what is missing with: cleanctl doctor",
        )
    return Choice(value="cpu", reason="no CUDA device found")


def may_have_gpu() -> bool:
    """False only where torch can find no device: on Linux without the library of a driver of NVIDIA's or AMD's."""
    if sys.platform == "darwin":
        return False
    if sys.platform != "linux" or os.path.exists("/dev/kfd"):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


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
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(here, _cores or here)


_cores: int | None = None  # what `limit_cores` said


def limit_cores(count: int) -> None:
    """From now on this process computes in `count` threads, for a process that has a part of a machine and is not bound
    to cores of it. To be called before a library that computes is loaded."""
    global _cores
    _cores = count
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(count)


def torchrun_place() -> tuple[int, int]:
    """This process's rank and their number where torchrun started it, else (0, 1)."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


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


@contextmanager
def ending_promptly() -> Iterator[None]:
    """For the whole work of a process: once its threads and atexit callbacks are done, it ends.

    Python would free every module first, which takes most of a second after torch and open_clip, and in which a
    library's clean-up has waited for ever.
    """
    code = 1  # what an exception leads to

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader of a pipe may be gone
                stream.flush()
        os._exit(code)

    atexit.register(end)  # the first one registered is the last one run
    try:
        yield
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        raise
    except KeyboardInterrupt:
        code = 130
        raise
