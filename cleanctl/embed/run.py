"""`embed_dataset`: a recognised source → a store with image and text embeddings, from wherever an earlier run stopped.

In: a Dataset (keys, labels, class names) and an EmbedConfig. On disk: the store, and with FFCV a `.beton` beside it for
each split that had something to embed. Unchanged images are never encoded again, and a run with nothing to encode
builds no network. Raises StoreError (exit 4) where the store was made by another model, for other classes or from
another source, and InterruptedRun (exit 130) after a stop signal, with everything encoded so far committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.config import EmbedConfig, beton_path, location
from cleanctl.data.loaders import SeededLoader, open_loader
from cleanctl.embed.encoder import Encoder, load_encoder
from cleanctl.embed.models import ModelSource, resolve_model
from cleanctl.embed.pipeline import batch_size_for, embed_rows
from cleanctl.embed.prompts import PromptSet, resolve_prompts
from cleanctl.embed.provenance import EncoderInfo
from cleanctl.embed.stamps import current_stamps, known_stamps, stamps_while_embedding
from cleanctl.embed.summary import EmbedSummary, SplitSummary
from cleanctl.errors import InterruptedRun, StoreError
from cleanctl.progress import SILENT, Progress, Task
from cleanctl.records import Dataset, SplitManifest, TextEmbeddings
from cleanctl.runtime import Choice, StopFlag, choose_device, choose_precision, stop_requests
from cleanctl.store import SplitWriter, Store

__all__ = ["EmbedSummary", "SplitSummary", "embed_dataset"]

SHOWN_FAILURES = 5


def embed_dataset(
    dataset: Dataset, store_path: Path, config: EmbedConfig, *, progress: Progress = SILENT
) -> EmbedSummary:
    """Embeds every pending image of `dataset` and the prompts of its classes into the store at `store_path`.

    Raises UsageError, InputError (weights, prompts), StoreError, InterruptedRun.
    """
    started = time.monotonic()
    source = resolve_model(config.model, config.pretrained, download=config.download)
    prompts = resolve_prompts(config.prompts, dataset.classes)
    for text in (*source.notes, *prompts.notes):
        progress.note(text)
    machine = _Machine(source, config, progress)
    with stop_requests() as stop:
        store = _open_store(store_path, dataset, config, machine, progress)
        prompts_embedded = _embed_prompts(store, prompts, machine, progress)
        splits = []
        for manifest in dataset.splits:
            splits.append(_embed_split(store, dataset, manifest, config, machine, stop, progress))
    info = machine.info
    return EmbedSummary(
        store=store_path,
        splits=tuple(splits),
        classes=len(dataset.classes),
        model=str(info),
        prompts=prompts.name,
        num_prompts=len(prompts.prompts),
        prompts_embedded=prompts_embedded,
        dim=info.dim,
        device=machine.device.value,
        precision=info.precision,
        seconds=time.monotonic() - started,
    )


# ---- the encoder, built when it is needed


class _Machine:
    """Device, precision and, once something is to be encoded, the encoder."""

    def __init__(self, source: ModelSource, config: EmbedConfig, progress: Progress) -> None:
        self.source = source
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device.value)
        self._asked = config.precision != "auto"
        self._progress = progress
        self._conflict: StoreError | None = None

    @property
    def info(self) -> EncoderInfo:
        return self.source.info(self.precision.value)

    @cached_property
    def encoder(self) -> Encoder:
        """Raises StoreError if it would not compute as the store's embeddings were computed."""
        if self._conflict is not None:
            raise self._conflict
        self._progress.note(
            f"Encoder {self.info.model}: {self.device.value} ({self.device.reason}), "
            f"{self.precision.value} ({self.precision.reason})."
        )
        return load_encoder(
            self.source, device=self.device.value, precision=self.precision.value, progress=self._progress
        )

    def join(self, made: EncoderInfo, path: Path) -> None:
        """Goes on in the precision of an existing store, if that was left to us and this device can."""
        if made.precision == self.precision.value:
            return
        if not self._asked and not (made.precision == "fp16" and self.device.value == "cpu"):
            self.precision = Choice(value=made.precision, reason="as the store's other embeddings")
            return
        self._conflict = StoreError(
            f"The embeddings of {path} were made in {made.precision}; this run would make them in "
            f"{self.precision.value} ({self.precision.reason}).",
            so="Mixed precisions shift selections near their thresholds.",
            do=f"Use --precision {made.precision} where the device can, another --store, or --replace to start anew.",
        )


# ---- the store


def _open_store(path: Path, dataset: Dataset, config: EmbedConfig, machine: _Machine, progress: Progress) -> Store:
    """The store to fill: an existing one that agrees with the request, or a new one."""
    if Store.exists(path):
        try:
            store = Store.open(path)
            _require_agreement(store, dataset, machine)
        except StoreError as exc:
            if not config.replace:
                raise
            progress.note(f"The store is made anew (--replace): {exc.found}")
            Store.remove(path)
        else:
            if config.replace:
                progress.note("--replace changes nothing: the store was made by this model, for these classes.")
            _annotate(store, dataset, config)
            return store
    store = Store.create(path, classes=dataset.classes, encoder=machine.info.to_json())
    _annotate(store, dataset, config)
    return store


def _require_agreement(store: Store, dataset: Dataset, machine: _Machine) -> None:
    """StoreError, naming both sides, unless the store's model, classes and source are the request's."""
    remedy = "Choose another store with --store PATH, or make this one anew with --replace."
    made = _encoder_of(store, remedy)
    mine = machine.info
    if made.identity() != mine.identity():
        differs = [key for key, value in mine.identity().items() if made.identity().get(key) != value]
        raise StoreError(
            f"{store.path} was made with {made}; this run asks for {mine} (they differ in: {', '.join(differs)}).",
            so="Embeddings of two models cannot stand in one store.",
            do=remedy,
        )
    if store.classes != tuple(dataset.classes):
        raise StoreError(
            f"{store.path} has {_classes(store.classes)}; this source has {_classes(dataset.classes)}.",
            so="Labels are numbers in that order, so they would change their meaning.",
            do="Give the same order with --classes FILE, another --store, or --replace.",
        )
    _require_same_source(store, dataset, remedy)
    machine.join(made, store.path)


def _encoder_of(store: Store, remedy: str) -> EncoderInfo:
    try:
        return EncoderInfo.from_json(store.encoder)
    except (KeyError, TypeError) as exc:
        kind = store.encoder.get("kind", "unknown")
        raise StoreError(
            f"The embeddings of {store.path} were not made by cleanctl embed (they are of kind {kind!r}).",
            so="New ones would not fit them.",
            do=remedy,
        ) from exc


def _require_same_source(store: Store, dataset: Dataset, remedy: str) -> None:
    """A folder that moved is welcome; another dataset, of which the store knows next to nothing, is a slip."""
    root = store.source.get("root")
    if root in (None, dataset.files.location):
        return
    for manifest in dataset.splits:
        if manifest.split not in store.split_names():
            continue
        here = set(store.split(manifest.split).keys())
        shared = len(here.intersection(manifest.keys))
        if 2 * shared < len(here):
            raise StoreError(
                f"{store.path} holds split {manifest.split!r} of {root}; {dataset.files.location} has {shared:,} of "
                f"its {len(here):,} images.",
                so="Going on would drop the others from the store.",
                do=remedy,
            )


def _annotate(store: Store, dataset: Dataset, config: EmbedConfig) -> None:
    """Where the images and labels came from."""
    values: dict[str, Any] = {
        "root": dataset.files.location,
        "layout": dataset.layout,
        "labels": None if config.labels is None else location(config.labels),
        "noise": config.noise,
        "seed": config.seed if config.noise else None,
    }
    if store.source != values:
        with store.lock():
            store.annotate(source=values)


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{len(names)} classes ({shown})"


# ---- prompts


def _embed_prompts(store: Store, prompts: PromptSet, machine: _Machine, progress: Progress) -> bool:
    """Writes the text embeddings if the prompts are others than those of the store; True if it did."""
    if store.text_attributes().get("digest") == prompts.digest:
        return False
    text = machine.encoder.encode_text(prompts.prompts)
    cut = int(np.count_nonzero(text.cut_P))
    if cut:
        first = prompts.prompts[int(np.argmax(text.cut_P))]
        progress.warn(f"{cut} prompts fill the model's context and may have lost their end, e.g. {first!r}.")
    progress.note(f"Prompts {prompts.name}: {len(prompts.prompts)} sentences for {len(store.classes)} classes.")
    embeddings = TextEmbeddings(embedding_PD=text.embedding_PD, class_P=prompts.class_P, prompts=prompts.prompts)
    with store.lock():
        store.write_text(embeddings, {"name": prompts.name, "digest": prompts.digest})
    return True


# ---- one split


def _embed_split(
    store: Store,
    dataset: Dataset,
    manifest: SplitManifest,
    config: EmbedConfig,
    machine: _Machine,
    stop: StopFlag,
    progress: Progress,
) -> SplitSummary:
    dropped = _count_dropped(store, manifest)
    now = current_stamps(dataset.files, manifest, known_stamps(store, manifest), progress)
    writing = store.write_split(manifest, dim=machine.source.dim, stamps=now, retry_failures=config.retry_failures)
    started, loader_name, embedded = time.monotonic(), None, 0
    with writing as writer:
        pending_N = writer.pending_rows()
        if len(pending_N) and not stop:
            encoder = machine.encoder
            with _loader(dataset, manifest, store.path, config, encoder, stop, progress) as loader:
                loader_name, started = loader.name, time.monotonic()
                done = len(manifest) - len(pending_N)
                with progress.track(
                    f"embedding {manifest.split}", total=len(manifest), unit="images", done=done
                ) as task:
                    embedded = embed_rows(
                        pending_N,
                        loader=loader,
                        encoder=encoder,
                        writer=writer,
                        stamps_of=stamps_while_embedding(loader, now),
                        batch_size=batch_size_for(
                            config.batch_size, size=encoder.info.pixels.size, device=encoder.device
                        ),
                        stop=lambda: bool(stop),
                        task=task,
                    )
                    _raise_if_stopped(stop, writer, manifest)  # inside, or the task would pass for finished
        _raise_if_stopped(stop, writer, manifest)
        writer.finish()
    summary = _summarise(store, manifest, embedded, dropped, loader_name, time.monotonic() - started)
    _tell_failures(summary, progress)
    return summary


@contextmanager
def _loader(
    dataset: Dataset,
    manifest: SplitManifest,
    store_path: Path,
    config: EmbedConfig,
    encoder: Encoder,
    stop: StopFlag,
    progress: Progress,
) -> Iterator[SeededLoader]:
    loader = open_loader(
        config.loader,
        files=dataset.files,
        keys=manifest.keys,
        spec=encoder.info.pixels,
        beton=beton_path(store_path, manifest.split),
        workers=config.workers,
        retry_failed=config.retry_failures,
        progress=_Stoppable(progress, stop),
    )
    try:
        yield loader
    finally:
        loader.close()


class _Stoppable:
    """A Progress whose tasks end with InterruptedRun after a stop signal: for long work that does not know of stops."""

    def __init__(self, progress: Progress, stop: StopFlag) -> None:
        self._stop = stop
        self.note, self.warn = progress.note, progress.warn
        self._track = progress.track

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        with self._track(title, total=total, unit=unit, done=done) as task:
            yield _StoppableTask(title, task, self._stop)


class _StoppableTask:
    def __init__(self, title: str, task: Task, stop: StopFlag) -> None:
        self._title, self._task, self._stop = title, task, stop
        self.describe = task.describe

    def advance(self, amount: int = 1) -> None:
        self._task.advance(amount)
        if self._stop:
            raise InterruptedRun(
                f"Stopped on request while {self._title}.",
                so="Everything embedded so far is in the store.",
                do="Run the same command again to go on.",
            )


def _raise_if_stopped(stop: StopFlag, writer: SplitWriter, manifest: SplitManifest) -> None:
    left = len(writer.pending_rows())
    if stop and left:
        raise InterruptedRun(
            f"Stopped on request: {left:,} of {len(manifest):,} images of split {manifest.split!r} remain.",
            so="Everything embedded so far is in the store.",
            do="Run the same command again to go on.",
        )


def _count_dropped(store: Store, manifest: SplitManifest) -> int:
    if manifest.split not in store.split_names():
        return 0
    return len(set(store.split(manifest.split).keys()).difference(manifest.keys))


def _summarise(
    store: Store, manifest: SplitManifest, embedded: int, dropped: int, loader: str | None, seconds: float
) -> SplitSummary:
    failures = store.split(manifest.split).failures()
    return SplitSummary(
        split=manifest.split,
        images=len(manifest),
        ok=len(manifest) - len(failures),
        failed=len(failures),
        embedded=embedded,
        unchanged=len(manifest) - embedded,
        dropped=dropped,
        loader=loader,
        seconds=seconds,
        failures=tuple((manifest.keys[row], failures[row]) for row in sorted(failures)[:SHOWN_FAILURES]),
    )


def _tell_failures(summary: SplitSummary, progress: Progress) -> None:
    if summary.failed:
        key, reason = summary.failures[0]
        progress.warn(
            f"{summary.failed:,} of {summary.images:,} images of split {summary.split!r} could not be embedded, "
            f"e.g. {key}: {reason}. They are marked as failed and never selected."
        )
