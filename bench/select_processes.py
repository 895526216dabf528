"""One process with a thread a core against processes of one thread each that share the rows: whole commands, in turn.

    python -m bench.select_processes [--rows 262144] [--classes 1000] [--runs 3] [--out FILE]
    also: bench.select --parts processes

`cleanctl select` (intersection) on a store of --rows × 512. Seconds are wall time from `python` to its end; cpu_s is
what all cores spent, which holds on a busy machine too. MiB is the peak of the sum over all its processes, of which
pages that several share are counted once (PSS), looked at every 50 ms. jaccard: of the rows kept, with one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.harness import report, summarize
from bench.scale_store import CLASSES, build

LOOK = 0.05  # seconds between two looks at the memory


def processes(runs: int, rows: int, classes: int = CLASSES) -> list[dict[str, Any]]:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "s.zarr"
        build(store, rows, classes=classes)
        seen: dict[int, list[tuple[float, float, float]]] = {1: [], cores: []}
        kept: dict[int, np.ndarray] = {}
        for _ in range(runs):
            for count, results in seen.items():
                for made in ("scores", "selections"):
                    shutil.rmtree(store / "train" / made, ignore_errors=True)
                results.append(_select(store, count))
                kept[count] = _kept(store)
    found = []
    for count, results in seen.items():
        seconds, cpu, peak = zip(*results)
        jaccard = float((kept[count] & kept[1]).sum() / max((kept[count] | kept[1]).sum(), 1))
        row = {
            "rows": rows,
            "classes": classes,
            "processes": count,
            "threads_each": cores // count,
            **summarize(seconds).to_json(),
        }
        found.append(row | {"cpu_s": float(np.median(cpu)), "peak_mib": float(np.median(peak)), "jaccard": jaccard})
    return found


def _select(store: Path, count: int) -> tuple[float, float, float]:
    """Wall seconds, seconds of all cores and peak MiB."""
    command = [sys.executable, "-m", "cleanctl", "select", "--store", str(store), "--device", "cpu", "--quiet"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    started, before, peak = time.perf_counter(), _cpu(), 0
    with subprocess.Popen([*command, "--processes", str(count)], env={**os.environ, "PYTHONPATH": path}) as child:
        first = psutil.Process(child.pid)
        while child.poll() is None:
            with suppress(psutil.Error):
                everyone = [first, *first.children(recursive=True)]
                peak = max(peak, sum(one.memory_full_info().pss for one in everyone))
            time.sleep(LOOK)
        seconds = time.perf_counter() - started
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed.")
    return seconds, _cpu() - before, peak / 2**20


def _cpu() -> float:
    """Of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _kept(store: Path) -> np.ndarray:
    from cleanctl.store import Store

    return Store.open(store).split("train").selections.read("intersection").keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report("select processes", processes(options.runs, options.rows, options.classes), out=options.out)


if __name__ == "__main__":
    main()
