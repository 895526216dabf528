"""The store that a run fills, and what encodes into it: a new store, or an existing one that agrees with the request.

Raises StoreError (exit 4), naming both sides, where the store was made by another model, for other classes or from
another source.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from cleanctl.clip.encoder import Encoder, load_encoder
from cleanctl.clip.provenance import EncoderInfo, ModelSource
from cleanctl.errors import StoreError
from cleanctl.files.keys import Keys
from cleanctl.progress import Progress
from cleanctl.records import Dataset
from cleanctl.runtime import Choice, choose_device, choose_precision
from cleanctl.store import Store
from cleanctl.store.files import DamageError


class EncoderMachine:
    """Device, precision and encoder of a run; one with nothing to encode never builds `encoder`."""

    def __init__(self, source: ModelSource, *, device: str, precision: str, progress: Progress) -> None:
        self.source = source
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device.value)
        self._asked = precision != "auto"
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

    def adopt_precision(self, made: EncoderInfo, path: Path) -> None:
        """Takes the precision of an existing store where the request says `auto` and the device can."""
        if made.precision == self.precision.value:
            return
        if not self._asked and not (made.precision == "fp16" and self.device.value == "cpu"):
            self.precision = Choice(value=made.precision, reason="as the store's other embeddings")
            return
        self._conflict = StoreError(
            f"The embeddings of {path} were made in {made.precision}; this run would make them in "
            f"{self.precision.value} ({self.precision.reason}).",
            so="Mixed precisions shift selections near their thresholds.",
            do=f"Use --precision {made.precision} where the device can, another --store, or --replace to recreate it.",
        )


def open_to_fill(path: Path, dataset: Dataset, machine: EncoderMachine, *, replace: bool, progress: Progress) -> Store:
    """The store at `path`, created where there is none. replace: one that does not agree is removed first."""
    if Store.exists(path):
        try:
            store = Store.open(path)
            require_agreement(store, dataset, machine)
        except StoreError as exc:
            if not replace:
                raise
            progress.note(f"The store is recreated (--replace): {exc.found}")
            Store.remove(path)
        else:
            if replace:
                progress.note("--replace changes nothing: the store was made by this model, for these classes.")
            return store
    return Store.create(path, classes=dataset.classes, encoder=machine.info.to_json())


def require_agreement(store: Store, dataset: Dataset, machine: EncoderMachine) -> None:
    """StoreError, naming both sides, unless the store's model, classes and source are the request's."""
    remedy = "Choose another store with --store PATH, or recreate this one with --replace."
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
    _require_same_variant(store, dataset, remedy)
    _require_same_source(store, dataset, remedy)
    machine.adopt_precision(made, store.path)


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


def _require_same_variant(store: Store, dataset: Dataset, remedy: str) -> None:
    made = store.source.get("variant", "")
    if store.source.get("root") is not None and made != dataset.variant:
        raise StoreError(
            f"{store.path} holds {dataset.layout} {made or 'as a whole'}; this run asks for it "
            f"{dataset.variant or 'as a whole'}.",
            so="Going on would drop from the store what the other does not have.",
            do=f"Ask for the same --variant, and --seed where it is drawn. {remedy}",
        )


def _require_same_source(store: Store, dataset: Dataset, remedy: str) -> None:
    """Accepts a source that moved. Raises StoreError if it has less than half of the store's keys: another dataset."""
    root = store.source.get("root")
    if root in (None, dataset.files.location):
        return
    for manifest in dataset.splits:
        if manifest.split not in store.split_names():
            continue
        try:
            here = store.split(manifest.split).keys()
        except DamageError:
            continue  # it is repaired before it is filled
        shared = int(np.count_nonzero(Keys.of(manifest.keys).rows_of(here) >= 0))
        if 2 * shared < len(here):
            raise StoreError(
                f"{store.path} holds split {manifest.split!r} of {root}; {dataset.files.location} has {shared:,} of "
                f"its {len(here):,} images.",
                so="Going on would drop the others from the store.",
                do=remedy,
            )


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"{len(names)} classes ({shown})"
