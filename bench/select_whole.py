"""Selecting as whole processes, from `python` to its end: the published procedure's, and cleanctl's verbs on a store.

    python -m bench.select_whole [--runs 3] [--ours] [--out FILE]     also: python -m bench.select --parts whole

50,000 × 512 embeddings of CLIP's geometry, 100 classes, 800 prompts. The published procedure reads them from an npz
file and writes what it keeps; `cleanctl select` reads a store, and writes scores and selection into it and a Parquet
table beside it. Each in turn, --runs times. Seconds are wall time, imports included; cpu_s what all cores spent on it.
Peak MiB is the process's own high-water mark of resident memory, read from the kernel until it ends. OpenMP's threads
are told not to spin on either side: where other programs run, the published procedure would take many times as long.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.geometry import Geometry, clip_like
from bench.harness import report, summarize, whole_process

ROWS, CLASSES = 50_000, 100
PUBLISHED = "published procedure"


def whole(runs: int, *, ours: bool = False) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        home, data = Path(folder), clip_like(ROWS, classes=CLASSES)
        np.savez(home / "data.npz", **vars(data))
        _import(home, data)
        seen: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(runs):
            shutil.rmtree(home / "s.zarr", ignore_errors=True)
            shutil.copytree(home / "imported.zarr", home / "s.zarr")
            for name, command in _commands(home).items():
                if ours and name == PUBLISHED:
                    continue
                for left in ("a.parquet", "out.parquet", "diff.parquet", "report.html"):
                    (home / left).unlink(missing_ok=True)
                seen.setdefault(name, []).append(whole_process(command, home))
    rows = []
    for name, results in seen.items():
        seconds, cpu, peak = zip(*results)
        more = {"cpu_s": float(np.median(cpu)), "peak_mib": float(np.median(peak))}
        rows.append({"process": name, **summarize(seconds).to_json(), **more})
    theirs = rows[0]
    for row in [] if ours else rows:
        select = row["process"] in (PUBLISHED, "select")
        row["times_faster"] = theirs["median_s"] / row["median_s"] if select else None
        row["share_of_peak"] = row["peak_mib"] / theirs["peak_mib"] if select else None
    return rows


def _import(home: Path, data: Geometry) -> None:
    names = ("image_ND", "text_PD", "class_P", "label_N", "truth_N")
    for name in names:
        values = getattr(data, name)
        np.save(home / f"{name}.npy", values.astype(np.int64) if values.ndim == 1 else values)
    (home / "classes.txt").write_text("".join(f"class {k}\n" for k in range(CLASSES)))
    options = ("--image-embeddings", "--text-embeddings", "--text-classes", "--labels", "--truth")
    given = [word for option, name in zip(options, names) for word in (option, f"{name}.npy")]
    command = [*_cleanctl("import"), *given, "--classes", "classes.txt", "--store", "imported.zarr"]
    subprocess.run(command, cwd=home, check=True)


def _commands(home: Path) -> dict[str, list[str]]:
    store = ["--store", "s.zarr"]
    union = [*_cleanctl("select"), "--strategy", "union", *store]
    return {
        PUBLISHED: [sys.executable, "-m", "bench.reference_selection", "data.npz", "out.npz"],
        "select": [*_cleanctl("select"), "--strategy", "intersection", "--out", "a.parquet", *store],
        "select, scores stored": union,
        "status": [*_cleanctl("status"), *store],
        "diff": [*_cleanctl("diff"), "intersection", "union", "--out", "diff.parquet", *store],
        "export": [*_cleanctl("export"), "out.parquet", *store],
        "eval": [*_cleanctl("eval"), *store],
        "report": [*_cleanctl("report"), "--out", "report.html", *store],
    }


def _cleanctl(verb: str) -> list[str]:
    return [sys.executable, "-m", "cleanctl", verb, "--quiet"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="leave the published procedure out, which takes minutes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report("select whole", whole(options.runs, ours=options.ours), out=options.out)


if __name__ == "__main__":
    main()
