"""Two actors of Ray against two hand-started shards: `cleanctl embed` as whole processes on two cores, alternately.

    python -m bench.ray                       options: --model NAME --images N --side PX --repeats R --out FILE

Both get the same JPEG files, the same random weights and one core a worker. `seconds` is wall time from the first start
to the complete store, cluster and actors included. `images/s` leaves out most of what each takes to start: of Ray it is
the driver's, from the first part handed out to the last one back, the loading of networks included; of the shards twice
the slower one's own. `share` is the rate over that of the shards, of medians; the runs alternate, so that a busy
machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.embed import draw_photographs, random_model
from bench.harness import report

ONE_CORE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = random_model(options.model, home / "model")
        photographs = draw_photographs(home / "images", options.images, options.side)
        embed = [sys.executable, "-m", "cleanctl", "embed", str(photographs), "--model", f"local-dir:{model}"]
        embed += ["--prompts", "photo", "--loader", "torch", "--workers", "1", "--device", "cpu", "--json"]
        measured: dict[str, list[tuple[float, float]]] = {"shards": [], "ray": []}
        for number in range(options.repeats):
            for name, run in (("shards", _shards), ("ray", _ray)):
                measured[name].append(run(embed, home / f"{name}-{number}.zarr"))
        rows = [_row(name, options.images, runs) for name, runs in measured.items()]
        for row in rows:
            row["share"] = row["images/s"] / rows[0]["images/s"]
        report("ray", rows, out=options.out, model=options.model, side=options.side, repeats=options.repeats)


def _ray(embed: list[str], store: Path) -> tuple[float, float]:
    """(wall seconds, images a second while they are embedded)."""
    started = time.perf_counter()
    command = [*embed, "--store", str(store), "--engine", "ray", "--ray-cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, _rate(done.stdout)


def _shards(embed: list[str], store: Path) -> tuple[float, float]:
    started = time.perf_counter()
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
    return time.perf_counter() - started, 2 * min(map(_rate, told))


def _rate(told: str) -> float:
    (split,) = json.loads(told)["splits"]
    return float(split["images_per_second"])


def _row(name: str, images: int, runs: list[tuple[float, float]]) -> dict[str, Any]:
    seconds, rates = zip(*runs)
    return {"what": name, "images": images, "images/s": median(rates), "seconds": median(seconds)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ray")
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
