"""What a row of `cleanctl select` costs as a whole process, from a hundred thousand rows to ten millions.

    python -m bench.select_rows [--rows 100000,1000000] [--prompts 1000] [--strategy intersection] [--folder DIR]
                                [--keep] [--out FILE] [-- OPTIONS OF SELECT]

Each store (bench/scale_store.py: 512 dimensions, 1,000 classes) is built in --folder unless it is there, which needs
1.1 KB a row on disk; what an earlier run selected from it is deleted first, so that nothing is used again. --keep
leaves the stores there. Seconds of all cores and peak MiB hold on a busy machine too, wall seconds do not. gap: what
the logistic fit states of itself. recall, probes, cells: what an approximate kNN search measured of itself, and how
many of its cells it visits.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import report, whole_process
from bench.scale_store import CLASSES, build

SPLIT = "train"


def measure(path: Path, rows: int, strategy: str, options: list[str]) -> dict[str, Any]:
    """One selection from the store at `path`."""
    from cleanctl.store import Store

    for kind in ("scores", "selections"):
        shutil.rmtree(path / SPLIT / kind, ignore_errors=True)
    command = [sys.executable, "-m", "cleanctl", "select", "--strategy", strategy, "--store", str(path), "--name", "b"]
    wall, cpu, peak = whole_process([*command, "--quiet", *options], path.parent)
    split = Store.open(path).split(SPLIT)
    summary: Any = split.selections.attributes()["b"]["summary"]
    ran = {key: value for score in summary["scores"] for key, value in score["ran"].items()}
    seconds = {made["scorer"]: made["seconds"] for made in split.scores.attributes().values()}
    return {
        "rows": rows,
        "strategy": strategy,
        "wall_s": wall,
        "cpu_s": cpu,
        "cpu_us_row": cpu / rows * 1e6,
        "peak_mib": peak,
        "kept": summary["kept"],
        **{key: ran.get(key) for key in ("passes", "gap", "recall", "probes", "cells")},
        "wall_s_of": ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--prompts", type=int, default=CLASSES)
    parser.add_argument("--strategy", default="intersection")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, found = given.folder or Path(temporary), []
        for rows in map(int, given.rows.split(",")):
            path = folder / f"{rows}-{given.prompts}.zarr"
            if not (path / SPLIT).is_dir():
                shutil.rmtree(path, ignore_errors=True)
                build(path, rows, prompts=given.prompts)
            found.append(measure(path.absolute(), rows, given.strategy, given.options))
            if not given.keep:
                shutil.rmtree(path)
    words = " ".join(given.options)
    report("select_rows", found, out=given.out, classes=CLASSES, prompts=given.prompts, options=words)


if __name__ == "__main__":
    main()
