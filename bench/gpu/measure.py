"""What the parts of bench.gpu measure with: sizes, a budget of seconds, and rows that name their ceiling.

A row says what was done, how fast, and which share that is of a ceiling that the same run has measured. Works are
given several inputs in turn, so that no second call finds the first one's in the cache.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import Timing, machine, summarize, timed


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured, for a large card. gemm: side of square matrices. drawn: photographs, of which `linked` names
    are made. turns: how many inputs take turns."""

    copied: int = 1 << 30
    gemm: int = 8_192
    turns: int = 4
    pixels: int = 1_024
    rows: int = 65_536
    classes: int = 1_000
    prompts: int = 8_000
    values: int = 1_280_000
    model: str = "ViT-B-32"
    batches: tuple[int, ...] = (256, 1_024)
    encoded: int = 65_536
    recipes: tuple[str, ...] = ("cifar10",)
    training_batch: int | None = None  # the recipe's own
    images: int = 16_384
    steps: int = 64
    selected: int = 1_000_000
    drawn: int = 256
    linked: int = 32_768


TINY = Sizes(
    copied=1 << 16,
    gemm=64,
    turns=2,
    pixels=4,
    rows=256,
    classes=10,
    prompts=20,
    values=2_000,
    model="tiny",
    batches=(4, 8),
    encoded=16,
    recipes=("cpu-small",),
    training_batch=8,
    images=32,
    steps=2,
    selected=600,
    drawn=4,
    linked=24,
)


@dataclass(kw_only=True)
class Bench:
    """One run. home: a folder for its files. ceilings: by name, in the unit of the rows that are held against them."""

    device: str
    sizes: Sizes
    seconds: float
    home: Path
    out: Path | None = None
    ceilings: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._about = {**machine(), "on": self.device, "tiny": self.sizes == TINY}
        self._end = time.perf_counter() + self.seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.perf_counter()

    def row(
        self,
        what: str,
        timing: Timing,
        amount: float,
        unit: str,
        *,
        of: str = "",
        ceiling: float | None = None,
        **more: Any,
    ) -> float:
        """Puts down `amount` of `unit` in the timing's seconds, held against a ceiling, by default the one that `of`
        names; returns the rate."""
        rate = timing.rate(amount)
        most = self.ceilings.get(of) if ceiling is None else ceiling
        found = {"what": what, "rate": rate, "unit": f"{unit}/s", "of": of, "ceiling": most}
        self.emit({**found, "share": None if most is None else rate / most, **timing.to_json(), **more})
        return rate

    def ceiling(self, name: str, timing: Timing, amount: float, unit: str) -> None:
        self.ceilings[name] = self.row(name, timing, amount, unit)

    def emit(self, row: dict[str, Any]) -> None:
        """One JSON line, on stdout and in the file."""
        self.rows.append(row)
        line = json.dumps({"suite": "gpu", "date": time.strftime("%Y-%m-%d"), **self._about, **row})
        print(line, flush=True)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.out.open("a") as file:
                file.write(line + "\n")


def in_turn(works: Sequence[Callable[[], Any]], *, seconds: float, runs: int = 3) -> Timing:
    """Seconds of one of `works`, all of which are started before the device is waited for; at least `runs` times, then
    until the seconds are over. The first round, which compiles, is not counted."""
    for work in works:
        work()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < runs or time.perf_counter() < end:
        found.append(timed(lambda: [work() for work in works], runs=1, warmup=0).median / len(works))
    return summarize(found)


def once(work: Callable[[], Any]) -> Timing:
    """Of what takes too long to repeat; nothing is called before."""
    return timed(work, runs=1, warmup=0)
