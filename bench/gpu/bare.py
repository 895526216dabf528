"""All that a card can tell of this project, within ten minutes, on a machine without nox or network.

    python3 -m bench.gpu.bare [--out DIR] [--seconds 570] [--device cuda]
    python3 -m bench.gpu.bare --device cpu --out DIR     a rehearsal: the tests' CPU cases, the bench on a few numbers

Steps in the order of what they are worth, each a process with a share of the seconds. On disk, at once: a log a step,
`steps.jsonl` (a line a step: exit code, seconds, how it ended), `gpu.jsonl` (a line a number, see `bench.gpu`). A step
that fails, or is ended because its time is over, costs the others nothing; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "pytest.mark.gpu"
# What is imported without being asked for. The rest of the extras is skipped where it is missing.
NEEDED = ("torch", "torchvision", "triton", "timm", "open_clip", "zarr", "numpy", "scipy", "sklearn", "pyarrow", "PIL")
NEEDED += ("pydantic", "array_api_compat", "threadpoolctl", "typer", "rich", "pytest", "hypothesis", "psutil")
WISHED = ("ffcv", "torchcodec", "faiss", "cuml", "pytest_timeout")
LINES_SHOWN = 12  # of the log of a step that failed


@dataclass(frozen=True, kw_only=True)
class Step:
    """most: seconds after which it is ended."""

    name: str
    command: tuple[str, ...]
    most: float


def plan(out: Path, device: str) -> list[Step]:
    python, pytest = sys.executable, (sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors")
    on_cpu = device == "cpu"
    numbers = ("--out", str(out / "gpu.jsonl"), "--device", device, *(("--tiny",) if on_cpu else ()))
    marked = ("-m", "not slow and not gpu" if on_cpu else "gpu", *files_with_the_mark())
    kernels = ("tests/kernels", "--ignore=tests/kernels/test_compile.py")
    steps = [
        ("doctor", (python, "-m", "cleanctl", "doctor"), 60),
        ("kernels", (*pytest, *kernels), 120),
        ("bench-first", bench(numbers, "kernels,encoder,train", 90), 150),
        ("tests", (*pytest, *marked), 180),
        ("bench-rest", bench(numbers, "select,embed", 110), 180),
        ("compile", (*pytest, "tests/kernels/test_compile.py"), 120),
    ]
    slower = 10 if on_cpu else 1
    return [Step(name=name, command=tuple(command), most=most * slower) for name, command, most in steps]


def bench(numbers: Iterable[str], parts: str, seconds: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "bench.gpu", "--seconds", str(seconds), "--parts", parts, *numbers)


def files_with_the_mark() -> list[str]:
    """Paths from ROOT of the tests that need a card, whole folders where conftest.py marks what its tests are given; to
    collect all the others takes half a minute."""
    found = [path for path in sorted((ROOT / "tests").rglob("*.py")) if MARK in path.read_text()]
    folders = {path.parent for path in found if path.name == "conftest.py"}
    files = {path for path in found if path.name.startswith("test_") and path.parent not in folders}
    return sorted(str(path.relative_to(ROOT)) for path in folders | files)


def run(step: Step, out: Path, left: float) -> bool:
    """False if it failed or was ended. Its line and its log are on disk before this returns."""
    log, start = out / f"{step.name}.log", time.perf_counter()
    path = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    about = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        child = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, **about},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(timeout=max(min(step.most, left), 0))
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(child.pid, signal.SIGKILL)  # its own children, too, which would keep the card
            child.wait()
    lines = log.read_text(errors="replace").splitlines()
    ended = next((line for line in reversed(lines) if any(map(str.isalnum, line))), "")  # not the edge of a table
    seconds = round(time.perf_counter() - start, 1)
    record = {"step": step.name, "code": code, "seconds": seconds, "ended": ended, "command": " ".join(step.command)}
    with (out / "steps.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    how = "done" if code == 0 else "its time was over" if code is None else f"exit code {code}"
    print(f"{step.name}: {how} after {seconds:g} s. {ended}", flush=True)
    if code != 0:
        print("\n".join(f"    {line}" for line in lines[-LINES_SHOWN:]), flush=True)
    return code == 0


def missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--seconds", type=float, default=570)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    end = time.perf_counter() + options.seconds
    if absent := missing(NEEDED):
        print(f"These packages are missing, and steps that need them fail: {', '.join(absent)}", flush=True)
    if absent := missing(WISHED):
        print(f"These packages are missing, and what needs them is skipped: {', '.join(absent)}", flush=True)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    good = [run(step, out, end - time.perf_counter()) for step in plan(out, options.device)]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
