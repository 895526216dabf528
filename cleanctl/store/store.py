"""A store on disk: what it was made from, its text embeddings, its splits.

Opening reads one small JSON file. `Store.create` makes an empty store; images come in through `Store.write_split`
(`cleanctl.store.writer`), everything read per split is in `cleanctl.store.split`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cleanctl.errors import StoreError
from cleanctl.files.atomic import remove_partials, reporting_disk_errors
from cleanctl.meant import meant
from cleanctl.records import BlockPart, Fingerprints, Shard, SplitManifest, TextEmbeddings
from cleanctl.store.absent import absent
from cleanctl.store.arrays import column, open_group, read, write_column
from cleanctl.store.decisions import FOLDER as DECISIONS
from cleanctl.store.decisions import keep_decisions
from cleanctl.store.files import (
    RECREATE,
    DamageError,
    DurableStore,
    discard,
    finish_swap,
    fresh_path,
    pinned_exists,
    swap_in,
)
from cleanctl.store.generation import Generation, choose_generation, find_generation, mark, repair
from cleanctl.store.locks import lock_path, remove_shard_locks, writer_lock
from cleanctl.store.schema import ATTRIBUTE, BLOCK_ROWS, RESERVED, SCHEMA_VERSION, require_split_name
from cleanctl.store.split import Split
from cleanctl.store.writer import SplitWriter
from cleanctl.strategy import WITHOUT_PROMPTS

_OF_SPLIT = ("zarr.json", "status", "key")


class Store:
    """An existing store; `create` or `open` it.

    Raises StoreError (exit 4) wherever the store is missing, of another kind, damaged or written by someone else.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group

    # ---- opening

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Also of a damaged one. StoreError if there can be none at this place."""
        _require_place(path)
        return (path / "zarr.json").exists() or any(path.glob("*/zarr.json"))

    @classmethod
    def open(cls, path: Path) -> Store:
        path = Path(path)
        if not cls.exists(path):
            raise absent(path)
        store = cls(path, open_group(DurableStore(path, read_only=True, do=RECREATE)))
        kinds = (("classes", list), ("encoder", dict), ("source", dict))
        if not all(isinstance(store._attributes.get(name), kind) for name, kind in kinds):
            raise DamageError.of(path / "zarr.json", "it does not describe a store of cleanctl", RECREATE)
        version = store._attributes.get("schema")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path} has schema version {version!r}; this cleanctl reads version {SCHEMA_VERSION}.",
                do=RECREATE,
            )
        return store

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        classes: Sequence[str],
        encoder: Mapping[str, Any],
        source: Mapping[str, Any] | None = None,
    ) -> Store:
        """An empty store for these class names, in label order, and this encoder (JSON values)."""
        path = Path(path)
        _require_place(path)
        keep_decisions(_removed(path), path)
        if path.exists() and not all(_is_left_by_a_beginning(entry) for entry in path.iterdir()):
            raise StoreError(
                f"{path} exists already and is not empty.",
                do="Choose another --store, or recreate this one with --replace.",
            )
        attributes = {
            "schema": SCHEMA_VERSION,
            "classes": list(classes),
            "encoder": dict(encoder),
            "source": dict(source or {}),
        }
        with reporting_disk_errors(path):
            group = zarr.create_group(DurableStore(path), attributes={ATTRIBUTE: attributes}, overwrite=False)
        return cls(path, group)

    @staticmethod
    def remove(path: Path) -> None:
        """Deletes a store and nothing else: a folder that does not look like one is refused. What people decided of
        its labels stays, and holds again in a store of the same images that is made there.

        It is out of the way at once; a kill while it is deleted leaves a hidden folder, which the next removal deletes.
        """
        path = Path(path)
        doomed = _removed(path)
        keep_decisions(doomed, path)  # a kill came before this below
        shutil.rmtree(doomed, ignore_errors=True)
        if not path.exists():
            return
        if not Store.exists(path) and not all(_is_left_by_a_beginning(entry) for entry in path.iterdir()):
            raise StoreError(
                f"{path} is not a cleanctl store.",
                so="Replacing it would delete other files.",
                do="Choose another --store.",
            )
        with writer_lock(path):
            path.rename(doomed)
            keep_decisions(doomed, path)
            remove_shard_locks(path)
            lock_path(path).unlink()
        shutil.rmtree(doomed)

    # ---- what it is

    @property
    def _attributes(self) -> dict[str, Any]:
        value: Any = self._group.attrs.get(ATTRIBUTE, {})
        return value if isinstance(value, dict) else {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self._attributes["classes"])

    @property
    def encoder(self) -> dict[str, Any]:
        """The model, its weights' SHA-256, preprocessing, precision and package versions that made the embeddings."""
        return dict(self._attributes["encoder"])

    @property
    def source(self) -> dict[str, Any]:
        """Where the images lie (`root`, absolute) and how they were recognised; empty for imported arrays."""
        return dict(self._attributes["source"])

    def annotate(self, **values: Any) -> None:
        """Sets provenance entries (JSON values) in one atomic write."""
        self._group = open_group(DurableStore(self.path, do=RECREATE))
        self._group.attrs[ATTRIBUTE] = {**self._attributes, **values}

    # ---- parts

    def lock(self) -> Any:
        """A context in which this process alone may write; others get a StoreError."""
        return writer_lock(self.path)

    def split_names(self) -> tuple[str, ...]:
        """Also one whose attribute file is gone, which is damage, and one that a crash moved away."""
        found = set()
        for entry in self.path.iterdir():
            name = entry.name.removeprefix(".").removesuffix(".old") if entry.name.endswith(".old") else entry.name
            if name not in RESERVED and not name.startswith(".") and any((entry / one).exists() for one in _OF_SPLIT):
                found.add(name)
        return tuple(sorted(found))

    def split(self, name: str) -> Split:
        require_split_name(name)
        if name not in self.split_names():
            here = ", ".join(self.split_names()) or "none"
            raise StoreError(
                f"{self.path} has no split {name!r}; it has: {here}{meant(name, self.split_names())}",
                do=f"Name one of these with --split, or embed it with: cleanctl embed SOURCE --split {name}",
            )
        return Split(self.path, name)

    def text(self) -> TextEmbeddings:
        """The prompts' embeddings; StoreError if there are none (an import without --text-embeddings)."""
        if not self.has_text:
            raise StoreError(
                f"{self.path} holds no text embeddings.",
                so="Zero-shot rules cannot be computed.",
                do=f"Import with --text-embeddings, or type: cleanctl select --strategy {WITHOUT_PROMPTS}",
            )
        group = self._open_text()
        return TextEmbeddings(
            embedding_PD=read(group, "embedding"),
            class_P=read(group, "class"),
            prompts=tuple(read(group, "prompt").tolist()),
        )

    def text_attributes(self) -> dict[str, Any]:
        """Which prompt set the text embeddings were made from; empty if there are none."""
        return dict(self._open_text().attrs) if self.has_text else {}

    @property
    def has_text(self) -> bool:
        return pinned_exists(self.path / "text")

    def has_text_of(self, digest: str) -> bool:
        """Whether the text embeddings are those of this prompt set, and whole."""
        try:
            return self.has_text and self.text() is not None and self.text_attributes().get("digest") == digest
        except DamageError:
            return False

    def _open_text(self) -> zarr.Group:
        return open_group(DurableStore.pinned(self.path / "text"))

    def write_text(self, text: TextEmbeddings, attributes: Mapping[str, Any]) -> None:
        """Replaces the text embeddings, whole or not at all."""
        finish_swap(self.path / "text")
        fresh = fresh_path(self.path / "text")
        discard(fresh)
        group = zarr.create_group(DurableStore(fresh), attributes=dict(attributes))
        write_column(group, "embedding", text.embedding_PD, "float32", chunk_rows=BLOCK_ROWS)
        write_column(group, "class", text.class_P, "int32", chunk_rows=BLOCK_ROWS)
        write_column(group, "prompt", list(text.prompts), "string", chunk_rows=BLOCK_ROWS)
        swap_in(self.path / "text")

    @contextmanager
    def write_split(
        self,
        manifest: SplitManifest,
        *,
        dim: int,
        fingerprints: Fingerprints,
        retry_failures: bool = False,
    ) -> Iterator[SplitWriter]:
        """A writer of this split, holding the store's lock: see SplitWriter."""
        with self.lock():
            remove_shard_locks(self.path)
            generation = self._prepare(manifest, dim)
            writer = SplitWriter(
                self.path, manifest, generation, dim=dim, fingerprints=fingerprints, retry_failures=retry_failures
            )
            try:
                yield writer
            finally:
                writer.flush()

    # ---- several processes, a shard of the rows each

    def prepare_shards(self, manifest: SplitManifest, *, dim: int, count: int) -> None:
        """Makes ready what the processes of `count` shares write into; for one that holds the store's lock alone.

        count: 0 where an engine divides the rows.
        """
        generation = self._prepare(manifest, dim)
        mark(open_group(DurableStore(generation.path)), shares=count)

    @contextmanager
    def write_shard(
        self,
        manifest: SplitManifest,
        shard: Shard | BlockPart,
        *,
        dim: int,
        fingerprints: Fingerprints,
        retry_failures: bool = False,
    ) -> Iterator[SplitWriter]:
        """A writer of one shard, for a process that holds `shard_lock`. fingerprints: of the shard's rows alone."""
        generation = find_generation(self.path, manifest)
        if generation is None:
            raise StoreError(
                f"Other processes are filling split {manifest.split!r} of {self.path} from another list of images than "
                f"the {len(manifest):,} found here.",
                so="Images came or went between the starts, or the options differ.",
                do="Give every process the same SOURCE and options, and start when the images no longer change.",
            )
        writer = SplitWriter(
            self.path,
            manifest,
            generation,
            dim=dim,
            fingerprints=fingerprints,
            retry_failures=retry_failures,
            shard=shard.rows(len(manifest)),
            tag=shard.file_part,
        )
        try:
            yield writer
        finally:
            writer.flush()

    def finish_split(self, manifest: SplitManifest) -> np.ndarray | None:
        """Joins the shards of a split and completes it if no row is pending; gives the pending rows.

        None if the split was never begun from these keys. No image is looked at: a row counts as the process that
        committed it left it. Raises StoreError while another process writes.
        """
        with self.lock():
            self._tidy(manifest.split)
            remove_shard_locks(self.path)
            generation = find_generation(self.path, manifest)
            if generation is None:
                return None
            dim = int(column(open_group(DurableStore(generation.path, read_only=True)), "embedding").shape[1])
            writer = SplitWriter(self.path, manifest, generation, dim=dim, fingerprints=None)
            pending_N = writer.pending_rows()
            if not len(pending_N):
                writer.finish()
            return pending_N

    def join_shards(self, name: str) -> None:
        """Completes a split that several processes filled, if all its rows are committed and nobody writes any more."""
        split = self.split(name)
        if split.complete or "shares" not in split.attributes:
            return
        manifest = SplitManifest(split=name, keys=split.keys(), label_N=split.label_N(), truth_N=split.truth_N())
        with suppress(StoreError):  # another process is at work, and `require_complete` says what is missing
            self.finish_split(manifest)

    def _tidy(self, split: str) -> None:
        remove_partials(self.path)
        (self.path / ".lock").unlink(missing_ok=True)  # of an older version
        finish_swap(self.path / split)

    def repair(self, manifests: Sequence[SplitManifest], *, dim: int) -> None:
        """Repairs what can be repaired of splits that are to be filled. The caller holds the store's lock alone."""
        for manifest in manifests:
            require_split_name(manifest.split)
            self._tidy(manifest.split)
            for folder in (self.path / manifest.split, fresh_path(self.path / manifest.split)):
                repair(folder, manifest, dim)

    def _prepare(self, manifest: SplitManifest, dim: int) -> Generation:
        self.repair([manifest], dim=dim)
        self._require_dim(manifest.split, dim)
        return choose_generation(self.path, manifest, dim)

    def _require_dim(self, split: str, dim: int) -> None:
        if split in self.split_names() and (here := Split(self.path, split).dim) != dim:
            raise StoreError(
                f"Split {split!r} of {self.path} holds embeddings of size {here}; these have size {dim}.",
                do="Choose another --store, or recreate this one with --replace.",
            )


def _require_place(path: Path) -> None:
    """StoreError where no folder can be: a file, a place below a file, a link to nothing, a name that is too long."""
    try:
        above = next((place for place in (path, *path.parents) if place.exists() or place.is_symlink()), path)
        wrong = "has no name" if path.name in ("", "..") or "\0" in path.name else ""
        if not wrong and not above.is_dir() and (above != path or path.exists() or path.is_symlink()):
            wrong = "is not a folder" if above.exists() else "is a link to a place that does not exist"
            wrong = wrong if above == path else f"lies below {above}, which {wrong}"
    except (OSError, ValueError) as exc:
        wrong = f"cannot be used: {getattr(exc, 'strerror', None) or exc}"
    if wrong:
        shown = str(path) if len(str(path)) < 200 else f"{str(path)[:200]}…"
        raise StoreError(f"The store {shown!r} {wrong}.", do="Choose another place with --store.")


def _removed(path: Path) -> Path:
    """Where a store is while it is deleted."""
    return path.with_name(f".{path.name}.removed")


def _is_left_by_a_beginning(entry: Path) -> bool:
    """Whether a process that is creating the store, or was killed while it did, has made this file in its folder; also
    the verdicts of a store that was removed."""
    return entry.name in (".lock", DECISIONS) or (entry.name.startswith(".zarr.json.") and entry.suffix == ".partial")
