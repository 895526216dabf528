"""`embed_dataset`: a recognised source → a store with image and text embeddings, from wherever an earlier run stopped.

In: a Dataset (keys, labels, class names) and an EmbedConfig. On disk: the store, and with FFCV a `.beton` beside it for
each split that had something to embed. Unchanged images are never encoded again, and a run with nothing to encode
builds no network.

With `--shard I/N` a process embeds its share of the rows beside others. Nobody coordinates them: the first to come
prepares the store while it is alone, and whoever ends last joins the shares.

Raises StoreError (exit 4) where the store and the request disagree, and InterruptedRun (exit 130) after a stop signal,
with everything encoded so far committed.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from cleanctl.clip.models import resolve_model
from cleanctl.config import EmbedConfig
from cleanctl.embed.machine import Machine
from cleanctl.embed.opening import annotate, open_to_fill, require_agreement
from cleanctl.embed.splits import (
    SHOWN_FAILURES,
    Job,
    embed_share,
    embed_split,
    tell_failures,
    tell_stale_selections,
)
from cleanctl.embed.text import embed_prompts
from cleanctl.errors import StoreError
from cleanctl.paths import remove_shard_betons
from cleanctl.progress import SILENT, Progress
from cleanctl.prompts.prompt_set import PromptSet, resolve_prompts
from cleanctl.records import Dataset, SplitManifest
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import StopFlag, stop_requests
from cleanctl.store import Store
from cleanctl.store.locks import shard_lock


def embed_dataset(
    dataset: Dataset, store_path: Path, config: EmbedConfig, *, progress: Progress = SILENT
) -> EmbedSummary:
    """Embeds what is pending of `dataset` and the prompts of its classes into the store at `store_path`.

    `config.shard` restricts it to a share of the rows, `config.finish` to joining the shares. Raises UsageError,
    InputError (weights, prompts), StoreError, InterruptedRun.
    """
    source = resolve_model(config.model, config.pretrained, download=config.download)
    prompts = resolve_prompts(config.prompts, dataset.classes)
    for text in (*source.notes, *prompts.notes):
        progress.note(text)
    with stop_requests() as stop:
        run = _Run(dataset, store_path, config, Machine(source, config, progress), prompts, stop, progress)
        if config.finish:
            return run.finish()
        return run.embed() if config.shard is None else run.embed_share()


class _Run:
    def __init__(
        self,
        dataset: Dataset,
        path: Path,
        config: EmbedConfig,
        machine: Machine,
        prompts: PromptSet,
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        self._started = time.monotonic()
        self._dataset, self._path, self._config = dataset, path, config
        self._machine, self._prompts, self._stop, self._progress = machine, prompts, stop, progress

    def embed(self) -> EmbedSummary:
        """All rows, in this process alone."""
        store = open_to_fill(self._path, self._dataset, self._config, self._machine, self._progress)
        with store.lock():
            store.repair(self._dataset.splits, dim=self._machine.source.dim)
            annotate(store, self._dataset, self._config)
        fresh = embed_prompts(store, self._prompts, self._machine, self._progress)
        job = self._job(store)
        splits = [embed_split(job, manifest) for manifest in self._dataset.splits]
        for manifest in self._dataset.splits:
            remove_shard_betons(self._path, manifest.split)
        return self._summary(splits, fresh, complete=True)

    # ---- several processes

    def embed_share(self) -> EmbedSummary:
        """The rows of one share; the store is completed here if the others have ended."""
        share = self._config.shard
        assert share is not None
        with shard_lock(self._path, share, self._prepare):
            store = Store.open(self._path)
            require_agreement(store, self._dataset, self._machine)
            fresh = share.index == 0 and embed_prompts(store, self._prompts, self._machine, self._progress, locked=True)
            splits = [embed_share(self._job(store), manifest) for manifest in self._dataset.splits]
        complete = False
        with suppress(StoreError):  # another process is at work: it will see that it is the last
            complete = not self._join(store)
        if complete:
            self._progress.note(f"Shard {share} was the last: the store is complete.")
        return self._summary(splits, fresh, complete=complete)

    def finish(self) -> EmbedSummary:
        """Joins the shares; raises StoreError if rows are missing or a process is still at work."""
        store = Store.open(self._path)
        require_agreement(store, self._dataset, self._machine)
        fresh = embed_prompts(store, self._prompts, self._machine, self._progress)
        if missing := self._join(store):
            raise StoreError(
                f"{self._path} is not complete: {'; '.join(missing)}.",
                so="What is embedded is kept.",
                do="Run those shards again, or run cleanctl embed SOURCE without --shard, which embeds what is left.",
            )
        job, splits = self._job(store), []
        for manifest in self._dataset.splits:
            failures = tell_failures(job, manifest, changed=True)
            tell_stale_selections(job, manifest)
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

    def _prepare(self) -> None:
        """What the first process of several does while it is alone."""
        store = open_to_fill(self._path, self._dataset, self._config, self._machine, self._progress)
        annotate(store, self._dataset, self._config)
        share = self._config.shard
        assert share is not None
        for manifest in self._dataset.splits:
            store.prepare_shards(manifest, dim=self._machine.source.dim, count=share.count)

    def _join(self, store: Store) -> list[str]:
        """Completes every split whose rows are all settled; says what is missing of the others."""
        missing = []
        for manifest in self._dataset.splits:
            left = store.finish_split(manifest)
            if left is None:
                missing.append(f"split {manifest.split!r} was not begun from the images found here")
            elif len(left):
                missing.append(_what_is_left(manifest, left.tolist()))
            else:
                remove_shard_betons(self._path, manifest.split)
        return missing

    # ---- both

    def _job(self, store: Store) -> Job:
        return Job(
            store=store,
            dataset=self._dataset,
            config=self._config,
            machine=self._machine,
            stop=self._stop,
            progress=self._progress,
        )

    def _summary(self, splits: list[SplitSummary], prompts_embedded: bool, *, complete: bool) -> EmbedSummary:
        info = self._machine.info
        return EmbedSummary(
            store=self._path,
            splits=tuple(splits),
            classes=len(self._dataset.classes),
            model=str(info),
            prompts=self._prompts.name,
            num_prompts=len(self._prompts.prompts),
            prompts_embedded=prompts_embedded,
            dim=info.dim,
            device=self._machine.device.value,
            precision=info.precision,
            seconds=time.monotonic() - self._started,
            shard=None if self._config.shard is None else str(self._config.shard),
            complete=complete,
        )


def _what_is_left(manifest: SplitManifest, rows: list[int]) -> str:
    first, last = manifest.keys[rows[0]], manifest.keys[rows[-1]]
    return (
        f"{len(rows):,} of {len(manifest):,} images of split {manifest.split!r} are not embedded "
        f"(from {first!r}, row {rows[0]:,}, to {last!r}, row {rows[-1]:,})"
    )
