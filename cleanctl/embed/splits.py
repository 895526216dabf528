"""One split, or one shard of its rows: what is pending is loaded, encoded and committed to the store.

On disk: the rows, with FFCV a `.beton` beside the store, and the table of failures once the split is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass

import numpy as np

from cleanctl.clip.encoder import Encoder
from cleanctl.config import FailureBound
from cleanctl.embed.failures import FailureLimit, TooManyFailuresError, classify_failures, write_failures
from cleanctl.embed.fingerprints import fingerprints_by_block
from cleanctl.embed.opening import EncoderMachine
from cleanctl.embed.pipeline import batch_size_for, embed_rows
from cleanctl.errors import InterruptedRun
from cleanctl.files.fingerprints import fingerprint_files
from cleanctl.files.keys import Keys
from cleanctl.images.loaders import LoaderRequest, SeededLoader, open_loader
from cleanctl.paths import beton_path, failures_path
from cleanctl.progress import Progress
from cleanctl.records import BlockPart, Dataset, Shard, SplitManifest
from cleanctl.results import SplitSummary
from cleanctl.runtime import StopFlag, Stoppable
from cleanctl.store import SplitWriter, Store
from cleanctl.store.standing import dataset_fingerprint

SHOWN_FAILURES = 5


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How images are read; each field is the option of its name."""

    loader: str
    workers: int | None
    batch_size: int | None
    retry_failures: bool
    max_failures: FailureBound | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every split of a run needs. shard: the rows that this process embeds; None is all of them."""

    store: Store
    dataset: Dataset
    machine: EncoderMachine
    loading: Loading
    shard: Shard | BlockPart | None
    stop: StopFlag
    progress: Progress


def embed_split(job: Job, manifest: SplitManifest) -> SplitSummary:
    """Commits every row and completes the split; commits a shard's rows where `job.shard` names one.

    Raises InterruptedRun, TooManyFailuresError, StoreError. With a shard the caller holds its lock.
    """
    if job.shard is not None:
        return embed_part(job, manifest)[0]
    dropped = count_dropped(job.store, manifest)
    part = _Part(job, manifest)
    with part.writer() as writer:
        part.embed(writer)
        writer.finish()
    failures = report_split_failures(job, manifest, changed=bool(part.embedded or dropped))
    report_stale_selections(job, manifest)
    return part.summary(failed=len(failures), dropped=dropped, failures=failures[:SHOWN_FAILURES])


def embed_part(job: Job, manifest: SplitManifest) -> tuple[SplitSummary, list[tuple[str, str]]]:
    """Commits the rows of `job.shard`; its summary, and (key, reason) of what failed in this run. Raises as
    embed_split."""
    part = _Part(job, manifest)
    with part.writer() as writer:
        part.embed(writer)
        failed = part.limit.failed
        return part.summary(failed=writer.counts()["failed"], failures=failed[:SHOWN_FAILURES]), failed


def report_stale_selections(job: Job, manifest: SplitManifest) -> None:
    if stale := job.store.split(manifest.split).stale_selections():
        job.progress.warn(
            f"Made before images or labels of split {manifest.split!r} changed, and no longer valid: "
            f"{'selections' if len(stale) > 1 else 'the selection'} {', '.join(stale)}. "
            "Run cleanctl select again."
        )


def report_split_failures(job: Job, manifest: SplitManifest, *, changed: bool) -> list[tuple[str, str]]:
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
    """The rows of a split that this process embeds."""

    def __init__(self, job: Job, manifest: SplitManifest) -> None:
        self._job, self._manifest = job, manifest
        rows = slice(0, len(manifest)) if job.shard is None else job.shard.rows(len(manifest))
        self._first_row = rows.start
        self._keys = Keys.of(manifest.keys)[rows]
        self._started = time.monotonic()
        self._loader_name: str | None = None
        self.embedded = 0
        self.limit = FailureLimit(job.loading.max_failures)
        self._now = fingerprints_by_block(job.dataset.files, job.store, manifest, rows, job.progress)

    def writer(self) -> AbstractContextManager[SplitWriter]:
        job, dim, retry = self._job, self._job.machine.source.dim, self._job.loading.retry_failures
        if job.shard is None:
            return job.store.write_split(self._manifest, dim=dim, fingerprints=self._now, retry_failures=retry)
        return job.store.write_shard(self._manifest, job.shard, dim=dim, fingerprints=self._now, retry_failures=retry)

    def embed(self, writer: SplitWriter) -> None:
        """Embeds what is pending, unless a stop signal or too many failures end it early."""
        pending_N = writer.pending_rows()
        if len(pending_N) and not self._job.stop:
            encoder = self._job.machine.encoder
            try:
                with closing(self._open_loader(encoder, pending_N)) as loader:
                    self._embed(pending_N, loader, encoder, writer)
            except TooManyFailuresError:
                self._keep_failures(writer)
                raise
        self._raise_if_stopped(writer)

    def _embed(self, pending_N: np.ndarray, loader: SeededLoader, encoder: Encoder, writer: SplitWriter) -> None:
        self._loader_name, self._started = loader.name, time.monotonic()
        count, loading, title = len(self._keys), self._job.loading, f"embedding {self._manifest.split}"
        with self._job.progress.track(title, total=count, unit="images", done=count - len(pending_N)) as task:
            self.embedded = embed_rows(
                pending_N,
                loader=loader,
                encoder=encoder,
                writer=writer,
                before=self._now,
                first_row=self._first_row,
                on_committed=self._count_failures(FailureLimit(loading.max_failures)),
                batch_size=batch_size_for(loading.batch_size, size=encoder.info.pixels.size, device=encoder.device),
                stop=lambda: bool(self._job.stop),
                task=task,
            )
            self._raise_if_stopped(writer)  # inside, or the task would pass for finished

    def _keep_failures(self, writer: SplitWriter) -> None:
        """What packing found before it was ended is committed as well, so that it can be shown."""
        files, split = self._job.dataset.files, self._manifest.split
        reasons = dict(self.limit.failed)
        failed = sorted(reasons)
        row_F = self._keys.rows_of(failed)
        row_F = self._first_row + row_F[row_F >= 0]
        row_F = row_F[np.isin(row_F, writer.pending_rows())]
        keys = Keys.of(self._manifest.keys)[row_F].tolist()
        if keys:
            writer.fail(row_F, [reasons[key] for key in keys], fingerprint_files(files, keys))
        write_failures(self._job.store.path, split, classify_failures(sorted(reasons.items()), files))

    def _count_failures(self, limit: FailureLimit) -> Callable[[int, dict[int, str]], None]:
        """What packing read was counted by a limit of its own: each image is tried once in each."""
        self.limit = limit
        keys = self._manifest.keys
        return lambda tried, reasons: limit.take(tried, {keys[row]: reason for row, reason in reasons.items()})

    def _open_loader(self, encoder: Encoder, pending_N: np.ndarray) -> SeededLoader:
        job, loading = self._job, self._job.loading
        left = len(self._keys) - len(pending_N)  # on a first run, or one that goes on, all others are pending
        first = int(pending_N[0]) - self._first_row
        request = LoaderRequest(
            files=job.dataset.files,
            keys=self._keys,
            spec=encoder.info.pixels,
            beton=beton_path(job.store.path, self._manifest.split, job.shard),
            workers=loading.workers,
            retry_failed=loading.retry_failures,
            fingerprints=self._now,
            watch=self.limit.take,
            first_row=first if first == left else None,
            on_device=encoder.device == "cuda",
        )
        return open_loader(request, loading.loader, Stoppable(job.progress, job.stop))

    def _raise_if_stopped(self, writer: SplitWriter) -> None:
        left = len(writer.pending_rows())
        if self._job.stop and left:
            shard = self._job.shard
            whose = f"split {self._manifest.split!r}" + (f", shard {shard}," if shard else "")
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


def count_dropped(store: Store, manifest: SplitManifest) -> int:
    """Rows of the store whose file is gone from the source."""
    if manifest.split not in store.split_names():
        return 0
    split, keys = store.split(manifest.split), Keys.of(manifest.keys)
    if dataset_fingerprint(split) == keys.fingerprint():
        return 0
    return int(np.count_nonzero(keys.rows_of(split.keys()) < 0))
