"""One split, or one share of its rows: what is pending is loaded, encoded and settled in the store.

On disk: the rows, with FFCV a `.beton` beside the store, and the table of failures once the split is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.clip.encoder import Encoder
from cleanctl.config import EmbedConfig
from cleanctl.embed.failures import FailureLimit, TooManyFailuresError, classify_failures, write_failures
from cleanctl.embed.fingerprints import current_fingerprints, fingerprints_while_embedding, known_fingerprints
from cleanctl.embed.machine import Machine
from cleanctl.embed.pipeline import batch_size_for, embed_rows
from cleanctl.embed.stopping import Stoppable
from cleanctl.errors import InterruptedRun
from cleanctl.files.fingerprints import fingerprint_files
from cleanctl.images.loaders import LoaderRequest, SeededLoader, open_loader
from cleanctl.paths import beton_path, failures_path, shard_beton_path
from cleanctl.progress import Progress
from cleanctl.records import Dataset, Fingerprints, ImageBatch, SplitManifest
from cleanctl.results import SplitSummary
from cleanctl.runtime import StopFlag
from cleanctl.store import SplitWriter, Store

SHOWN_FAILURES = 5


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every split of a run needs."""

    store: Store
    dataset: Dataset
    config: EmbedConfig
    machine: Machine
    stop: StopFlag
    progress: Progress


def embed_split(job: Job, manifest: SplitManifest) -> SplitSummary:
    """Settles every row and completes the split. Raises InterruptedRun, TooManyFailuresError, StoreError."""
    dropped = _count_dropped(job.store, manifest)
    part = _Part(job, manifest, slice(0, len(manifest)), beton_path(job.store.path, manifest.split))
    writing = job.store.write_split(
        manifest, dim=job.machine.source.dim, fingerprints=part.now, retry_failures=job.config.retry_failures
    )
    with writing as writer:
        part.settle(writer)
        writer.finish()
    failures = tell_failures(job, manifest, changed=bool(part.embedded or dropped))
    tell_stale_selections(job, manifest)
    return part.summary(failed=len(failures), dropped=dropped, failures=failures[:SHOWN_FAILURES])


def embed_share(job: Job, manifest: SplitManifest) -> SplitSummary:
    """Settles the rows of this process's share; the caller holds the store's shared lock."""
    share = job.config.shard
    assert share is not None
    rows = share.rows(len(manifest))
    part = _Part(job, manifest, rows, shard_beton_path(job.store.path, manifest.split, share))
    writing = job.store.write_shard(
        manifest, share, dim=job.machine.source.dim, fingerprints=part.now, retry_failures=job.config.retry_failures
    )
    with writing as writer:
        part.settle(writer)
        failed = writer.counts()["failed"]
    return part.summary(failed=failed, failures=part.limit.failed[:SHOWN_FAILURES])


def tell_stale_selections(job: Job, manifest: SplitManifest) -> None:
    if stale := job.store.split(manifest.split).stale_selections():
        job.progress.warn(
            f"Made before images or labels of split {manifest.split!r} changed, and not to be relied on: "
            f"{'selections' if len(stale) > 1 else 'the selection'} {', '.join(stale)}. "
            "Make anew with: cleanctl select"
        )


def tell_failures(job: Job, manifest: SplitManifest, *, changed: bool) -> list[tuple[str, str]]:
    """(key, reason) of a complete split's failures; their table is written where they may have `changed`."""
    found = job.store.split(manifest.split).failures()
    failures = [(manifest.keys[row], reason) for row, reason in found.items()]
    table = failures_path(job.store.path, manifest.split)
    if changed or table.exists() != bool(failures):
        write_failures(job.store.path, manifest.split, classify_failures(failures, job.dataset.files))
    if failures:
        key, reason = failures[0]
        job.progress.warn(
            f"{len(failures):,} of {len(manifest):,} images of split {manifest.split!r} could not be embedded, "
            f"e.g. {key}: {reason}. They are marked as failed and never selected; {table.name} lists them."
        )
    return failures


class _Part:
    """The rows `rows` of a split on their way into the store."""

    def __init__(self, job: Job, manifest: SplitManifest, rows: slice, beton: Path) -> None:
        self._job, self._manifest, self._rows, self._beton = job, manifest, rows, beton
        whole = rows == slice(0, len(manifest))
        self._keys = manifest.keys if whole else manifest.keys[rows]
        self._started = time.monotonic()
        self._loader_name: str | None = None
        self.embedded = 0
        self.limit = FailureLimit(job.config.max_failures)
        known = known_fingerprints(job.store, manifest, rows)
        self.now = current_fingerprints(job.dataset.files, self._keys, known, job.progress)

    def settle(self, writer: SplitWriter) -> None:
        """Embeds what is pending, unless a stop signal or too many failures end it early."""
        pending_N = writer.pending_rows()
        if len(pending_N) and not self._job.stop:
            encoder = self._job.machine.encoder
            try:
                with self._loader(encoder, pending_N) as loader:
                    self._embed(pending_N, loader, encoder, writer)
            except TooManyFailuresError:
                self._keep_failures(writer)
                raise
        self._raise_if_stopped(writer)

    def _embed(self, pending_N: np.ndarray, loader: SeededLoader, encoder: Encoder, writer: SplitWriter) -> None:
        self._loader_name, self._started = loader.name, time.monotonic()
        count, config, split = len(self._keys), self._job.config, self._manifest.split
        title = f"embedding {split}"
        with self._job.progress.track(title, total=count, unit="images", done=count - len(pending_N)) as task:
            self.embedded = embed_rows(
                pending_N,
                loader=_Shifted(loader, self._rows.start),
                encoder=encoder,
                writer=writer,
                fingerprints_of=_shifted_fingerprints(loader, self.now, self._rows.start),
                on_settled=self._count_failures(FailureLimit(config.max_failures)),
                batch_size=batch_size_for(config.batch_size, size=encoder.info.pixels.size, device=encoder.device),
                stop=lambda: bool(self._job.stop),
                task=task,
            )
            self._raise_if_stopped(writer)  # inside, or the task would pass for finished

    def _keep_failures(self, writer: SplitWriter) -> None:
        """What packing found before it was ended is settled as well, so that it can be shown."""
        files, split = self._job.dataset.files, self._manifest.split
        reasons = dict(self.limit.failed)
        pending = {self._manifest.keys[row]: row for row in writer.pending_rows().tolist()}
        keys = sorted(reasons.keys() & pending.keys())
        if keys:
            row_F = np.array([pending[key] for key in keys], dtype=np.int64)
            writer.fail(row_F, [reasons[key] for key in keys], fingerprint_files(files, keys))
        write_failures(self._job.store.path, split, classify_failures(sorted(reasons.items()), files))

    def _count_failures(self, limit: FailureLimit) -> Callable[[int, dict[int, str]], None]:
        """What packing read was counted by a limit of its own: each image is tried once in each."""
        self.limit = limit
        keys = self._manifest.keys
        return lambda tried, reasons: limit.take(tried, {keys[row]: reason for row, reason in reasons.items()})

    @contextmanager
    def _loader(self, encoder: Encoder, pending_N: np.ndarray) -> Iterator[SeededLoader]:
        job = self._job
        left = len(self._keys) - len(pending_N)  # on a first run, or one that goes on, all others are pending
        first = int(pending_N[0]) - self._rows.start
        request = LoaderRequest(
            files=job.dataset.files,
            keys=self._keys,
            spec=encoder.info.pixels,
            beton=self._beton,
            workers=job.config.workers,
            retry_failed=job.config.retry_failures,
            fingerprints=self.now,
            watch=self.limit.take,
            first_row=first if first == left else None,
        )
        loader = open_loader(request, job.config.loader, Stoppable(job.progress, job.stop))
        try:
            yield loader
        finally:
            loader.close()

    def _raise_if_stopped(self, writer: SplitWriter) -> None:
        left = len(writer.pending_rows())
        if self._job.stop and left:
            share = self._job.config.shard
            whose = f"split {self._manifest.split!r}" + (f", shard {share}," if share else "")
            raise InterruptedRun(
                f"Stopped on request: {left:,} of {len(self._keys):,} images of {whose} remain.",
                so="Everything embedded so far is in the store.",
                do="Run the same command again to go on.",
            )

    def summary(self, *, failed: int, failures: list[tuple[str, str]], dropped: int = 0) -> SplitSummary:
        count = len(self._keys)
        return SplitSummary(
            split=self._manifest.split,
            images=count,
            ok=count - failed,
            failed=failed,
            embedded=self.embedded,
            unchanged=count - self.embedded,
            dropped=dropped,
            loader=self._loader_name,
            seconds=time.monotonic() - self._started,
            failures=tuple(failures),
        )


class _Shifted:
    """A loader of some rows of a split, spoken to in rows of the split."""

    def __init__(self, loader: SeededLoader, start: int) -> None:
        self.name = loader.name
        self._loader, self._start = loader, start

    def batches(self, row_N: np.ndarray, *, batch_size: int) -> Iterator[ImageBatch]:
        for batch in self._loader.batches(row_N - self._start, batch_size=batch_size):
            yield ImageBatch(
                row_B=batch.row_B + self._start,
                pixel_BSSC=batch.pixel_BSSC,
                ok_B=batch.ok_B,
                reason={row + self._start: why for row, why in batch.reason.items()},
                fingerprints=batch.fingerprints,
            )

    def close(self) -> None:
        self._loader.close()


def _shifted_fingerprints(loader: SeededLoader, now: Fingerprints, start: int) -> Callable[[np.ndarray], Fingerprints]:
    fingerprints_of = fingerprints_while_embedding(loader, now)
    return lambda row_B: fingerprints_of(row_B - start)


def _count_dropped(store: Store, manifest: SplitManifest) -> int:
    if manifest.split not in store.split_names():
        return 0
    return len(set(store.split(manifest.split).keys()).difference(manifest.keys))
