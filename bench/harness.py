"""What every suite measures with: repeated runs, medians and quartiles, the machine written beside the numbers.

A suite prints a table for people and then one JSON line, and with `--out FILE` appends that line to FILE.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LOOK = 0.01  # seconds between two looks at a process's memory


@dataclass(frozen=True)
class Timing:
    """Seconds of n runs."""

    n: int
    median: float
    low: float  # first quartile
    high: float  # third quartile

    def rate(self, count: float) -> float:
        return count / self.median

    def to_json(self) -> dict[str, float]:
        return {"n": self.n, "median_s": self.median, "q1_s": self.low, "q3_s": self.high}

    def __str__(self) -> str:
        return f"{self.median:.3f} s ({self.low:.3f}–{self.high:.3f}, n={self.n})"


def summarize(seconds: Sequence[float]) -> Timing:
    ordered = sorted(seconds)
    if len(ordered) < 2:
        return Timing(len(ordered), ordered[0], ordered[0], ordered[0])
    quarters = statistics.quantiles(ordered, n=4, method="inclusive")
    return Timing(len(ordered), quarters[1], quarters[0], quarters[2])


def timed(work: Callable[[], Any], *, runs: int = 5, warmup: int = 1) -> Timing:
    """Wall seconds of `work`; CUDA is synchronised before the clock is read."""
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(runs):
        _synchronize()
        start = time.perf_counter()
        work()
        _synchronize()
        seconds.append(time.perf_counter() - start)
    return summarize(seconds)


def side_by_side(works: dict[str, Callable[[], Any]], *, runs: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Times several works in turn, A B A B …, so that a machine that slows down slows all of them."""
    for _ in range(warmup):
        for work in works.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            seconds[name].append(timed(work, runs=1, warmup=0).median)
    return {name: summarize(values) for name, values in seconds.items()}


def whole_process(command: Sequence[str], home: Path) -> tuple[float, float, float]:
    """A command in the folder `home`, from its start to its end: wall seconds, seconds of all cores, and the peak of
    its resident MiB as the kernel counts it. OpenMP's threads are told not to spin, and bytecode is kept, as that of an
    installed package is. Ends this process if it fails."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started, before, peak = time.perf_counter(), _cpu_of_children(), 0
    with subprocess.Popen(command, cwd=home, env=environment) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())  # a process that has ended has none
            peak = int(found[1]) if found else peak
            time.sleep(LOOK)
        seconds = time.perf_counter() - started
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed.")
    return seconds, _cpu_of_children() - before, peak / 1024


def machine() -> dict[str, Any]:
    """Device, cores and versions, for beside the numbers."""
    import torch

    versions = {}
    for name in ("torch", "triton", "open_clip_torch", "zarr", "numpy", "ffcv", "faiss-cpu", "scikit-learn"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": versions,
    }


def report(suite: str, rows: Sequence[dict[str, Any]], *, out: Path | None, **extra: Any) -> None:
    """Prints rows (same keys) as a table, then everything as one JSON line; appends that line to `out`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"bench {suite}", title_justify="left")
    for key in rows[0]:
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:,.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    line = json.dumps({"suite": suite, "date": time.strftime("%Y-%m-%d"), **machine(), **extra, "rows": list(rows)})
    print(line)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(line + "\n")


def _cpu_of_children() -> float:
    """Of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
