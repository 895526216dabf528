"""One process with a thread a core against processes of one thread each that share the rows: whole commands, in turn.

    python -m bench.select_processes [--rows 262144] [--runs 3] [--out FILE]     also: bench.select --parts processes

`cleanctl select` (intersection) on a store of --rows × 512, 1,000 classes. Seconds are wall time from `python` to its
end. MiB is the peak of the sum over all its processes, of which pages that several share are counted once (PSS), looked
at every 50 ms. jaccard: rows kept, against those of one process.
"""

from __future__ import annotations

import argparse
import os
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
from bench.scale_store import build

LOOK = 0.05  # seconds between two looks at the memory


def processes(runs: int, rows: int) -> list[dict[str, Any]]:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "s.zarr"
        build(store, rows)
        seen: dict[int, list[tuple[float, float]]] = {1: [], cores: []}
        kept: dict[int, np.ndarray] = {}
        for _ in range(runs):
            for count, results in seen.items():
                for made in ("scores", "selections"):
                    shutil.rmtree(store / "train" / made, ignore_errors=True)
                results.append(_select(store, count))
                kept[count] = _kept(store)
    found = []
    for count, results in seen.items():
        seconds, peak = zip(*results)
        jaccard = float((kept[count] & kept[1]).sum() / max((kept[count] | kept[1]).sum(), 1))
        row = {"rows": rows, "processes": count, "threads_each": cores // count, **summarize(seconds).to_json()}
        found.append(row | {"peak_mib": float(np.median(peak)), "jaccard": jaccard})
    return found


def _select(store: Path, count: int) -> tuple[float, float]:
    """Wall seconds and peak MiB."""
    command = [sys.executable, "-m", "cleanctl", "select", "--store", str(store), "--device", "cpu", "--quiet"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    started, peak = time.perf_counter(), 0
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
    return seconds, peak / 2**20


def _kept(store: Path) -> np.ndarray:
    from cleanctl.store import Store

    return Store.open(store).split("train").selections.read("intersection").keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report("select processes", processes(options.runs, options.rows), out=options.out)


if __name__ == "__main__":
    main()
