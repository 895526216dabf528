"""`embed --engine ray`: actors of a Ray cluster fill one store, a part of the rows at a time.

The driver lists the source, holds the store's lock for the actors and hands out parts; it loads no network. One actor
prepares the store, all embed (`EmbedRun.embed_part`: read, decode, encode, write, commit), one finishes it. A part is
a whole block of the store, which its actor writes as Zarr shards; of a small split it is a fraction of one, whose rows
wait in the journal. Only counts come back. The store is the only checkpoint: whatever died, the same command goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cleanctl.config import EmbedConfig
from cleanctl.distributed.ray_actor import Message
from cleanctl.distributed.ray_cluster import choose_seat, connected, live_nodes
from cleanctl.distributed.ray_fleet import Fleet
from cleanctl.errors import InterruptedRun
from cleanctl.progress import Progress, Task
from cleanctl.records import BlockPart, Dataset
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import StopFlag, stop_requests

if TYPE_CHECKING:
    import numpy as np

PREPARE, FINISH = "prepare", "finish"
PARTS_EACH = 8  # of an actor: where they do not divide evenly, one has one more, and the others wait for it
MIN_LENGTH = 128  # rows of a part: seconds of work on a core, in which what begins and ends with a part is little


@dataclass(frozen=True, kw_only=True)
class EmbedJob:
    """The tasks are PREPARE, FINISH and parts."""

    dataset: Dataset
    store: Path
    config: EmbedConfig

    def open(self, progress: Progress, device: Literal["cuda", "cpu"]) -> Any:
        from cleanctl.embed.embed import open_run

        config = replace(self.config, engine="local", ray_address=None, ray_cores=None, device=device)
        return open_run(self.dataset, self.store, config, stop=StopFlag(), progress=progress)

    def do(self, opened: Any, task: BlockPart | str, stop: StopFlag) -> Any:
        run = replace(opened, stop=stop)
        if task == PREPARE:
            return run.prepare()
        if task == FINISH:
            return run.finish()
        summary, failed = run.embed_part(task)
        return summary, failed if self.config.max_failures is not None else []


def embed_on_ray(dataset: Dataset, store: Path, config: EmbedConfig, *, progress: Progress) -> EmbedSummary:
    """Embeds what is pending of `dataset`. Raises as embed_dataset, and MissingPackageError without Ray."""
    from cleanctl.embed.failures import FailureLimit
    from cleanctl.store.locks import engine_lock

    started, store = time.monotonic(), Path(os.path.abspath(store))
    with connected(config.ray_address, progress) as ray, stop_requests() as stop:
        nodes = live_nodes(ray)
        seat = choose_seat(nodes, config.device, config.ray_cores)
        progress.note(f"Room for {seat.count(nodes)} workers, each with {seat}.")
        parts = _Parts(dataset, seat.count(nodes))
        job = EmbedJob(dataset=dataset, store=store, config=config)
        with Fleet(ray, job, seat, most=len(parts.all), stop=stop, progress=progress, hear=parts.hear) as fleet:
            prepared: list[Any] = []
            limit = FailureLimit(config.max_failures)

            def took(number: int, result: Any) -> None:
                summary, failed = result
                parts.took(number, summary)
                limit.take(summary.embedded, dict(failed))

            with engine_lock(store, lambda: prepared.append(fleet.one(PREPARE))):
                if prepared[0] is None:
                    raise parts.interrupted()
                parts.settle(prepared[0].pending)
                with parts.shown(progress):
                    if not fleet.run(parts.all, took):
                        raise parts.interrupted()
            finished: EmbedSummary | None = fleet.one(FINISH)
        if finished is None:
            raise parts.interrupted()
        splits = tuple(parts.summary(split, prepared[0].dropped) for split in finished.splits)
        fresh = finished.prompts_embedded or prepared[0].prompts_embedded
        return replace(finished, splits=splits, prompts_embedded=fresh, seconds=time.monotonic() - started)


def part_length(num_rows: int, workers: int) -> int:
    """Rows of a part: a whole block where every worker gets several, else a fraction that is a power of two."""
    from cleanctl.store.schema import BLOCK_ROWS

    length = BLOCK_ROWS
    while length > MIN_LENGTH and num_rows < PARTS_EACH * workers * length:
        length //= 2
    return length


class _Parts:
    """The parts of a run, how far each is, and the one progress bar of all."""

    def __init__(self, dataset: Dataset, workers: int) -> None:
        self._manifests = {manifest.split: len(manifest) for manifest in dataset.splits}
        self._total = sum(self._manifests.values())
        length = part_length(self._total, workers)
        self.all = [part for split, count in self._manifests.items() for part in BlockPart.of(split, count, length)]
        self._at = [0] * len(self.all)
        self._took: dict[str, list[SplitSummary]] = {}
        self._started, self._seconds = time.monotonic(), 0.0
        self._task: Task | None = None

    def settle(self, pending: dict[str, np.ndarray]) -> None:
        """Takes what an earlier run embedded; parts that have pending rows come first, others are looked at again."""
        left = [int(pending[part.split][self._rows(part)].sum()) for part in self.all]
        order = sorted(range(len(left)), key=lambda number: left[number] == 0)
        self.all = [self.all[number] for number in order]
        self._at = [self._size(self.all[at]) - left[number] for at, number in enumerate(order)]

    def interrupted(self) -> InterruptedRun:
        return InterruptedRun(
            f"Stopped on request: {self._total - sum(self._at):,} of {self._total:,} images remain.",
            so="Everything embedded so far is in the store.",
            do="Run the same command again to go on.",
        )

    @contextmanager
    def shown(self, progress: Progress) -> Iterator[None]:
        self._started, title = time.monotonic(), f"embedding {', '.join(self._manifests)}"
        with progress.track(title, total=self._total, unit="images", done=sum(self._at)) as self._task:
            yield
        self._seconds = time.monotonic() - self._started

    def _rows(self, part: BlockPart) -> slice:
        return part.rows(self._manifests[part.split])

    def _size(self, part: BlockPart) -> int:
        rows = self._rows(part)
        return rows.stop - rows.start

    def hear(self, message: Message) -> None:
        number, kind, content = message
        if self._task is None or content[0] != f"embedding {self.all[number].split}":
            return  # packing is part of embedding here
        if kind == "start":
            self._move(number, content[3], earlier=True)
        else:
            self._move(number, self._at[number] + content[1])

    def took(self, number: int, summary: SplitSummary) -> None:
        self._move(number, self._size(self.all[number]), earlier=not summary.embedded)
        self._took.setdefault(summary.split, []).append(summary)

    def summary(self, finished: SplitSummary, dropped: dict[str, int]) -> SplitSummary:
        """Of a finished split, with what the parts of this run did."""
        parts = self._took.get(finished.split, [])
        embedded = sum(part.embedded for part in parts)
        return replace(
            finished,
            embedded=embedded,
            unchanged=finished.images - embedded,
            dropped=dropped.get(finished.split, 0),
            loader=next((part.loader for part in parts if part.loader), None),
            seconds=self._seconds,
        )

    def _move(self, number: int, to: int, *, earlier: bool = False) -> None:
        """earlier: what came in between was embedded before, and is no part of the rate."""
        assert self._task is not None
        step, self._at[number] = to - self._at[number], to
        if earlier and step > 0:
            self._task.grow(0, step)
        elif step:
            self._task.advance(step)
