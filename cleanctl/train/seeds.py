"""`train --seeds N`: one run a seed, each in a folder of its own, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev

from cleanctl.config import TrainConfig, within
from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.results import SeedsResult, Spread, TrainResult
from cleanctl.runtime import torchrun_place
from cleanctl.store import Store
from cleanctl.train.pool import find_pool
from cleanctl.train.run import run_name

MEASURED = ("last_top1", "best_top1", "label_accuracy", "members")
MOST = 1000


def train_seeds(
    store: Store,
    config: TrainConfig,
    count: int,
    *,
    run: Callable[[TrainConfig], TrainResult],
    progress: Progress = SILENT,
) -> SeedsResult:
    """Trains with the seeds config.seed, config.seed + 1, …, `count` of them; `run` trains one.

    A run's name ends in `-seed` and its seed. All train on one selection, although another may be made meanwhile. Where
    one fails or is stopped, those before it are finished: the same call shows their results and goes on.
    """
    within("--seeds", count, 1, MOST)
    if torchrun_place()[1] > 1:
        raise UsageError("--seeds was given under torchrun.", do="Start torchrun once for each seed, with --seed.")
    selection = find_pool(store, config).selection
    name = config.name or run_name(config, selection)
    seeds = [config.seed + number for number in range(count)]
    configs = [replace(config, selection=selection, seed=seed, name=f"{name}-seed{seed}") for seed in seeds]
    runs = []
    for number, one in enumerate(configs, 1):
        progress.note(f"Run {number} of {count}: seed {one.seed}.")
        runs.append(run(one))
    spreads = {measure: spread([getattr(one, measure) for one in runs]) for measure in MEASURED}
    return SeedsResult(name=name, seeds=tuple(seeds), runs=tuple(runs), spreads=spreads)


def spread(values: list[float | None]) -> Spread | None:
    """None where a value is missing; the deviation is that of a sample (n − 1), None for one value."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return Spread(mean=mean(numbers), deviation=stdev(numbers) if len(numbers) > 1 else None, count=len(numbers))
