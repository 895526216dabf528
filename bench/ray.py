"""Two actors of Ray against two hand-started shards: `cleanctl embed` as whole processes on two cores, alternately.

    python -m bench.ray                       options: --model NAME --images N --side PX --repeats R --out FILE

Both get the same JPEG files, the same random weights and one core a worker. Of each run:
    seconds   wall time from the first start to the complete store
    embed     of it, from the first image to the last one: of the shards that of the slower one, of Ray the driver's,
              from the first part handed out to the last one back, in which the second actor still loads its network
    start     the rest: imports, networks and prompts, of Ray the cluster, and the joining of what was embedded
    cpu       processor seconds of all processes, Ray's own among them, which a busy machine changes little
Shares are of the shards' time over Ray's, medians of the runs; 1.0 is as fast. The runs alternate, so that a busy
machine slows both. The defaults take about 75 s a run on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from bench.embed import draw_photographs, random_model
from bench.harness import report

LOOK_SECONDS = 0.5
ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = random_model(options.model, home / "model")
        photographs = draw_photographs(home / "images", options.images, options.side)
        embed = [sys.executable, "-m", "cleanctl", "embed", str(photographs), "--model", f"local-dir:{model}"]
        embed += ["--prompts", "photo", "--loader", "torch", "--workers", "1", "--device", "cpu", "--json"]
        measured: dict[str, list[_Run]] = {"shards": [], "ray": []}
        for number in range(options.repeats):
            for name, run in (("shards", _shards), ("ray", _ray)):
                measured[name].append(_measured(run, embed, home / f"{name}-{number}.zarr"))
        rows = [_row(name, options.images, runs) for name, runs in measured.items()]
        for row in rows:
            row["share"] = rows[0]["seconds"] / row["seconds"]
            row["share of embed"] = rows[0]["embed"] / row["embed"]
            row["share of cpu"] = rows[0]["cpu"] / row["cpu"]
        report("ray", rows, out=options.out, model=options.model, side=options.side, repeats=options.repeats)


class _Run(NamedTuple):
    """Seconds."""

    seconds: float
    embed: float
    cpu: float


def _measured(run: Callable[[list[str], Path], float], embed: list[str], store: Path) -> _Run:
    started = time.perf_counter()
    with _Processes() as processes:
        embedding = run(embed, store)
    return _Run(time.perf_counter() - started, embedding, processes.cpu)


class _Processes:
    """Those below this one, looked at again and again, because nobody waits for some of Ray's."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Processes:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def cpu(self) -> float:
        return sum(self._seconds.values())

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    used = process.cpu_times()
                    self._seconds[process.pid] = used.user + used.system


def _ray(embed: list[str], store: Path) -> float:
    """Seconds of embedding."""
    command = [*embed, "--store", str(store), "--engine", "ray", "--ray-cores", "1"]
    return _embedding(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _shards(embed: list[str], store: Path) -> float:
    processes = [
        subprocess.Popen(
            [*embed, "--store", str(store), "--shard", f"{number}/2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_CORE},
        )
        for number in range(2)
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return max(map(_embedding, told))


def _embedding(told: str) -> float:
    (split,) = json.loads(told)["splits"]
    return float(split["seconds"])


def _row(name: str, images: int, runs: list[_Run]) -> dict[str, Any]:
    middle = {field: median(getattr(run, field) for run in runs) for field in _Run._fields}
    start = median(run.seconds - run.embed for run in runs)
    return {"what": name, "images": images, **middle, "start": start, "images/s": images / middle["embed"]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ray")
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
