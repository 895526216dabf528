"""`embed_dataset`: a recognised source → a store with image and text embeddings, from wherever an earlier run stopped.

In: a Dataset (keys, labels, class names) and an EmbedConfig. On disk: the store, and beside it the label set that
`--noise` made, and with FFCV a `.beton` for each split that had something to embed. Unchanged images are never encoded
again, and a run with nothing to encode builds no network.

With `--shard I/N` a process embeds one part of the rows beside others. Nobody coordinates them: the first to start
prepares the store while it is alone, and the last to end joins the shards. An engine's workers (`distributed/`) call
`prepare`, `embed_part` and `finish` of an `EmbedRun`.

Raises StoreError (exit 4) where the store and the request disagree, and InterruptedRun (exit 130) after a stop signal,
with everything encoded so far committed.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.clip.models import resolve_model
from cleanctl.config import EmbedConfig
from cleanctl.datasets.noise.label_sets import write_label_set
from cleanctl.embed.class_order import tell_class_order
from cleanctl.embed.opening import EncoderMachine, open_to_fill, require_agreement
from cleanctl.embed.splits import (
    SHOWN_FAILURES,
    Job,
    Loading,
    count_dropped,
    embed_part,
    embed_split,
    report_split_failures,
    report_stale_selections,
)
from cleanctl.errors import StoreError
from cleanctl.paths import label_set_path, location, remove_shard_betons
from cleanctl.progress import SILENT, Progress
from cleanctl.prompts.prompt_set import PromptSet, resolve_prompts
from cleanctl.records import BlockPart, Dataset, Shard, SplitManifest, Status, TextEmbeddings
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import StopFlag, stop_requests
from cleanctl.store import Store
from cleanctl.store.locks import shard_lock


def embed_dataset(
    dataset: Dataset, store_path: Path, config: EmbedConfig, *, progress: Progress = SILENT
) -> EmbedSummary:
    """Embeds what is pending of `dataset` and the prompts of its classes into the store at `store_path`.

    `config.shard` restricts it to a shard of the rows, `config.finish` to joining the shards. Raises UsageError,
    InputError (weights, prompts), StoreError, InterruptedRun.
    """
    with stop_requests() as stop:
        run = open_run(dataset, store_path, config, stop=stop, progress=progress)
        if config.finish:
            return run.finish()
        return run.embed() if config.shard is None else run.embed_shard(config.shard)


def open_run(
    dataset: Dataset, store_path: Path, config: EmbedConfig, *, stop: StopFlag, progress: Progress
) -> EmbedRun:
    """The request with its model and prompts looked up; nothing is read or written. Raises UsageError, InputError."""
    source = resolve_model(config.model, config.pretrained, download=config.download)
    prompts = resolve_prompts(config.prompts, dataset.classes)
    for text in (*source.notes, *prompts.notes):
        progress.note(text)
    provenance: dict[str, Any] = {
        "root": dataset.files.location,
        "layout": dataset.layout,
        "labels": None if config.labels is None else location(config.labels),
        "noise": None if config.noise is None else str(config.noise),
        "seed": config.seed if config.noise else None,
        "label_hash": None if dataset.label_set is None else dataset.label_set.digest,
    }
    if dataset.variant:
        provenance["variant"] = dataset.variant
    loading = Loading(
        loader=config.loader,
        workers=config.workers,
        batch_size=config.batch_size,
        retry_failures=config.retry_failures,
        max_failures=config.max_failures,
    )
    return EmbedRun(
        started=time.monotonic(),
        dataset=dataset,
        path=store_path,
        machine=EncoderMachine(source, device=config.device, precision=config.precision, progress=progress),
        prompts=prompts,
        provenance=provenance,
        loading=loading,
        shard=config.shard,
        replace=config.replace,
        stop=stop,
        progress=progress,
    )


@dataclass(frozen=True, kw_only=True)
class EmbedRun:
    """A request, resolved. provenance: where images and labels came from, as the store keeps it."""

    started: float
    dataset: Dataset
    path: Path
    machine: EncoderMachine
    prompts: PromptSet
    provenance: dict[str, Any]
    loading: Loading
    shard: Shard | None
    replace: bool
    stop: StopFlag
    progress: Progress

    def embed(self) -> EmbedSummary:
        """All rows, in this process alone."""
        store = self._open_store()
        with store.lock():
            store.repair(self.dataset.splits, dim=self.machine.source.dim)
            self._annotate(store)
        fresh = self._embed_prompts(store)
        job = self._job(store)
        splits = [embed_split(job, manifest) for manifest in self.dataset.splits]
        for manifest in self.dataset.splits:
            remove_shard_betons(self.path, manifest.split)
        return self._summary(splits, fresh, complete=True)

    # ---- several processes

    def embed_shard(self, shard: Shard) -> EmbedSummary:
        """The rows of one shard; the store is completed here if the others have ended."""
        with shard_lock(self.path, shard, lambda: self._prepare(shard.count)):
            store = Store.open(self.path)
            require_agreement(store, self.dataset, self.machine)
            fresh = shard.index == 0 and self._embed_prompts(store, locked=True)
            splits = [embed_split(self._job(store), manifest) for manifest in self.dataset.splits]
        complete = False
        with suppress(StoreError):  # another process is at work: it will see that it is the last
            complete = not self._join(store)
        if complete:
            self.progress.note(f"Shard {shard} was the last: the store is complete.")
        return self._summary(splits, fresh, complete=complete)

    def finish(self) -> EmbedSummary:
        """Joins the shards; raises StoreError if rows are missing or a process is still at work."""
        store = Store.open(self.path)
        require_agreement(store, self.dataset, self.machine)
        fresh = self._embed_prompts(store)
        if missing := self._join(store):
            raise StoreError(
                f"{self.path} is not complete: {'; '.join(missing)}.",
                so="What is embedded is kept.",
                do="Run those shards again, or run cleanctl embed SOURCE without --shard, which embeds what is left.",
            )
        job, splits = self._job(store), []
        for manifest in self.dataset.splits:
            failures = report_split_failures(job, manifest, changed=True)
            report_stale_selections(job, manifest)
            count = len(manifest)
            splits.append(
                SplitSummary(
                    split=manifest.split,
                    images=count,
                    ok=count - len(failures),
                    failed=len(failures),
                    embedded=0,
                    unchanged=count,
                    failures=tuple(failures[:SHOWN_FAILURES]),
                )
            )
        return self._summary(splits, fresh, complete=True)

    def _prepare(self, count: int = 0) -> Store:
        """What the first process of several does while it is alone; they are `count`, or an engine's workers."""
        store = self._open_store()
        self._annotate(store)
        for manifest in self.dataset.splits:
            store.prepare_shards(manifest, dim=self.machine.source.dim, count=count)
        return store

    def _join(self, store: Store) -> list[str]:
        """Completes every split whose rows are all committed; says what is missing of the others."""
        missing = []
        for manifest in self.dataset.splits:
            left = store.finish_split(manifest)
            if left is None:
                missing.append(f"split {manifest.split!r} was not begun from the images found here")
            elif len(left):
                missing.append(_what_is_left(manifest, left.tolist()))
            else:
                remove_shard_betons(self.path, manifest.split)
        return missing

    # ---- an engine's workers; its driver holds `engine_lock`

    def prepare(self) -> Prepared:
        """Makes the store ready for all workers, while nobody else writes."""
        dropped = {}
        if Store.exists(self.path):
            store = Store.open(self.path)
            dropped = {manifest.split: count_dropped(store, manifest) for manifest in self.dataset.splits}
        store = self._prepare()
        pending = {manifest.split: _pending(store, manifest) for manifest in self.dataset.splits}
        fresh = self._embed_prompts(store, locked=True)
        return Prepared(dropped=dropped, pending=pending, prompts_embedded=fresh)

    def embed_part(self, part: BlockPart) -> tuple[SplitSummary, list[tuple[str, str]]]:
        """Embeds what is pending of a part of the rows; also (key, reason) of what failed now. Raises as embed_dataset,
        StoreError where the store was not made ready."""
        manifest = next(one for one in self.dataset.splits if one.split == part.split)
        with shard_lock(self.path, part, lambda: None):
            store = Store.open(self.path)
            require_agreement(store, self.dataset, self.machine)
            return embed_part(self._job(store, part), manifest)

    # ---- all

    def _open_store(self) -> Store:
        return open_to_fill(self.path, self.dataset, self.machine, replace=self.replace, progress=self.progress)

    def _annotate(self, store: Store) -> None:
        """Provenance, and the label set of `--noise` beside the store. The caller holds the store's lock."""
        if store.source != self.provenance:
            store.annotate(source=self.provenance)
        labels = self.dataset.label_set
        for split in (manifest.split for manifest in self.dataset.splits):
            path = label_set_path(self.path, split)
            if labels is None or labels.split != split:
                path.unlink(missing_ok=True)  # of noise that the split's labels no longer have
            elif write_label_set(path, labels, self.dataset.classes):
                self.progress.note(f"The labels of {split!r} are written to {path.name}: {labels.wrong:.2%} wrong.")
        info = self.machine.info
        if store.encoder.get("logit_scale") != info.logit_scale:  # of a store that an earlier version began
            store.annotate(encoder={**store.encoder, "logit_scale": info.logit_scale, "logit_bias": info.logit_bias})

    def _embed_prompts(self, store: Store, *, locked: bool = False) -> bool:
        """Writes the text embeddings if the prompts are not those of the store; True if it did.

        locked: the caller holds the store's lock, or is the one process of several that writes them.
        """
        prompts = self.prompts
        if store.has_text_of(prompts.digest):
            return False
        text = self.machine.encoder.encode_text(prompts.prompts)
        if cut := int(np.count_nonzero(text.cut_P)):
            first = prompts.prompts[int(np.argmax(text.cut_P))]
            self.progress.warn(f"{cut} prompts are longer than the model's context and lose their end, e.g. {first!r}.")
        count, classes = len(prompts.prompts), len(store.classes)
        self.progress.note(f"Prompts {prompts.name}: {count} sentences for {classes} classes.")
        embeddings = TextEmbeddings(embedding_PD=text.embedding_PD, class_P=prompts.class_P, prompts=prompts.prompts)
        with nullcontext() if locked else store.lock():
            store.write_text(embeddings, {"name": prompts.name, "digest": prompts.digest})
        return True

    def _job(self, store: Store, part: BlockPart | None = None) -> Job:
        return Job(
            store=store,
            dataset=self.dataset,
            machine=self.machine,
            loading=self.loading,
            shard=part or self.shard,
            stop=self.stop,
            progress=self.progress,
        )

    def _summary(self, splits: list[SplitSummary], prompts_embedded: bool, *, complete: bool) -> EmbedSummary:
        info = self.machine.info
        if complete:
            device = self.machine.device.value
            tell_class_order(Store.open(self.path), self.dataset, device=device, progress=self.progress)
        return EmbedSummary(
            store=self.path,
            splits=tuple(splits),
            classes=len(self.dataset.classes),
            model=str(info),
            prompts=self.prompts.name,
            num_prompts=len(self.prompts.prompts),
            prompts_embedded=prompts_embedded,
            dim=info.dim,
            device=self.machine.device.value,
            precision=info.precision,
            seconds=time.monotonic() - self.started,
            shard=None if self.shard is None else str(self.shard),
            complete=complete,
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What preparing a store for an engine came upon, by split.

    dropped: rows whose file is gone from the source. pending: bool (N,), the rows that no run has committed; of a split
    whose list of images is another one now, all.
    """

    dropped: dict[str, int]
    pending: dict[str, np.ndarray]
    prompts_embedded: bool


def _pending(store: Store, manifest: SplitManifest) -> np.ndarray:
    split = store.split(manifest.split) if manifest.split in store.split_names() else None
    if split is None or split.num_rows != len(manifest) or split.keys() != manifest.keys:
        return np.ones(len(manifest), dtype=bool)
    pending_N: np.ndarray = split.committed()[0] == Status.PENDING
    return pending_N


def _what_is_left(manifest: SplitManifest, rows: list[int]) -> str:
    first, last = manifest.keys[rows[0]], manifest.keys[rows[-1]]
    return (
        f"{len(rows):,} of {len(manifest):,} images of split {manifest.split!r} are not embedded "
        f"(from {first!r}, row {rows[0]:,}, to {last!r}, row {rows[-1]:,})"
    )
