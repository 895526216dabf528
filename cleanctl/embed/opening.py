"""The store that a run fills: a new one, or an existing one that agrees with the request.

Raises StoreError (exit 4), naming both sides, where the store was made by another model, for other classes or from
another source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cleanctl.clip.provenance import EncoderInfo
from cleanctl.config import EmbedConfig
from cleanctl.embed.machine import Machine
from cleanctl.errors import StoreError
from cleanctl.paths import location
from cleanctl.progress import Progress
from cleanctl.records import Dataset
from cleanctl.store import Store
from cleanctl.store.files import DamageError


def open_to_fill(path: Path, dataset: Dataset, config: EmbedConfig, machine: Machine, progress: Progress) -> Store:
    """The store to fill, with `--replace` obeyed and the source written down."""
    if Store.exists(path):
        try:
            store = Store.open(path)
            require_agreement(store, dataset, machine)
        except StoreError as exc:
            if not config.replace:
                raise
            progress.note(f"The store is made anew (--replace): {exc.found}")
            Store.remove(path)
        else:
            if config.replace:
                progress.note("--replace changes nothing: the store was made by this model, for these classes.")
            return store
    return Store.create(path, classes=dataset.classes, encoder=machine.info.to_json())


def annotate(store: Store, dataset: Dataset, config: EmbedConfig) -> None:
    """Writes down where the images and labels came from. The caller holds the store's lock."""
    values: dict[str, Any] = {
        "root": dataset.files.location,
        "layout": dataset.layout,
        "labels": None if config.labels is None else location(config.labels),
        "noise": None if config.noise is None else str(config.noise),
        "seed": config.seed if config.noise else None,
    }
    if store.source != values:
        store.annotate(source=values)


def require_agreement(store: Store, dataset: Dataset, machine: Machine) -> None:
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
        try:
            here = set(store.split(manifest.split).keys())
        except DamageError:
            continue  # it is repaired before it is filled
        shared = len(here.intersection(manifest.keys))
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
