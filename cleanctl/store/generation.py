"""Which folder of a store a split is filled in: one generation for each list of keys.

Another list of keys makes another generation: `.<split>.next` is filled beside the old split, unchanged rows are
carried over by key and file fingerprint, and the two folders change places at the end.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cleanctl.files.atomic import sync_folder
from cleanctl.files.keys import Keys
from cleanctl.records import SplitManifest
from cleanctl.store import schema
from cleanctl.store.arrays import (
    column,
    is_checked,
    open_group,
    read,
    read_keys,
    replace_column,
    replace_keys,
    write_keys,
)
from cleanctl.store.files import (
    EMBED_AGAIN,
    SELECT_AGAIN,
    DamageError,
    DurableStore,
    discard,
    finish_swap,
    fresh_path,
    swap_in,
)
from cleanctl.store.schema import ATTRIBUTE, BLOCK_ROWS
from cleanctl.store.stored import create_result, read_result


@dataclass(frozen=True)
class Generation:
    """`path` is filled; `old`, if there is one, is the split as it was, to carry rows over from."""

    path: Path
    old: Path | None


def staging_folder(store_path: Path, split: str) -> Path:
    """Where the journal of a split lies."""
    return store_path / ".staging" / split


def choose_generation(store_path: Path, manifest: SplitManifest, dim: int) -> Generation:
    """The generation of these keys, made if it is not there. The caller holds the store's lock alone."""
    fingerprint = schema.keys_fingerprint(manifest.keys)
    final = store_path / manifest.split
    following = fresh_path(final)
    if _fingerprint_of(final) == fingerprint:
        discard(following)
        return Generation(final, None)
    if _fingerprint_of(following) != fingerprint:
        discard(staging_folder(store_path, manifest.split))
        discard(following)
        _create(store_path / f".{manifest.split}.making", following, manifest, dim, fingerprint)
    if final.exists():
        return Generation(following, final)
    following.rename(final)
    sync_folder(store_path)
    return Generation(final, None)


def find_generation(store_path: Path, manifest: SplitManifest) -> Generation | None:
    """The generation of these keys, if it was made; nothing is changed."""
    fingerprint = schema.keys_fingerprint(manifest.keys)
    final = store_path / manifest.split
    following = fresh_path(final)
    if _fingerprint_of(final) == fingerprint:
        return Generation(final, None)
    if _fingerprint_of(following) == fingerprint:
        return Generation(following, final if final.exists() else None)
    return None


def repair(path: Path, manifest: SplitManifest, dim: int) -> None:
    """Writes again what is damaged of a split beside its blocks: attribute files and keys. Blocks show by their digests
    that they are, labels when they are compared. What cannot be repaired is dropped: its images are embedded again."""
    if not path.is_dir():
        return
    try:
        _repair_attributes(path)
        group = open_group(DurableStore(path))
        attributes: Any = group.attrs[ATTRIBUTE]
        mine = attributes["keys_sha256"] == schema.keys_fingerprint(manifest.keys)
        keys = Keys.of(manifest.keys)
        if mine and not _holds_keys(group, keys):
            replace_keys(group, "key", keys, chunk_rows=BLOCK_ROWS)
        _repair_arrays(group, path, dim)
    except DamageError:
        discard(path)


def _repair_attributes(path: Path) -> None:
    """A split whose own attributes are lost is as good as its keys."""
    try:
        open_group(DurableStore(path))
    except DamageError:
        group = zarr.create_group(DurableStore(path / ".repair"), attributes={})
        (path / ".repair" / "zarr.json").replace(path / "zarr.json")
        discard(path / ".repair")
        group = open_group(DurableStore(path))
        keys = read_keys(group, "key", chunk_rows=BLOCK_ROWS)
        fingerprint = keys.fingerprint()
        group.attrs[ATTRIBUTE] = {"keys_sha256": fingerprint, "rows": len(keys), "complete": False}


def _repair_arrays(group: zarr.Group, path: Path, dim: int) -> None:
    """Damaged attribute files of the arrays that blocks are written to. Raises DamageError if it cannot be done."""
    lost = [name for name in (*schema.BLOCK_ARRAYS, "block_digest") if not _opens(group, name)]
    if not lost:
        return
    rows = column(group, "key").shape[0]
    if not all(is_checked(column(group, name)) for name in ("key", "status", "size") if name not in lost):
        raise DamageError.of(path, "it was written by an older version", EMBED_AGAIN)
    template = zarr.create_group(DurableStore(path / ".repair"), overwrite=True)
    schema.create_split_arrays(template, rows, dim)
    for name in lost:
        (path / name).mkdir(exist_ok=True)
        (path / ".repair" / name / "zarr.json").replace(path / name / "zarr.json")
    discard(path / ".repair")


def _opens(group: zarr.Group, name: str) -> bool:
    try:
        column(group, name)
    except DamageError:
        return False
    return True


def write_labels(group: zarr.Group, path: Path, manifest: SplitManifest) -> None:
    """Writes labels and truth where they are others, damaged or not there; selections of other labels become stale."""
    for name, values in (("label", manifest.label_N), ("truth", manifest.truth_N)):
        finish_swap(path / name)
        if values is None:
            discard(path / name)
        elif not (path / name).is_dir() or not _holds(group, name, values):
            replace_column(group, name, values, "int32", chunk_rows=BLOCK_ROWS)
            if name == "label":
                mark_selections_stale(path, except_of=schema.label_fingerprint(values))


def _holds(group: zarr.Group, name: str, values: np.ndarray) -> bool:
    try:
        return np.array_equal(read(group, name), values)
    except DamageError:
        return False


def _holds_keys(group: zarr.Group, keys: Keys) -> bool:
    try:
        return read_keys(group, "key", chunk_rows=BLOCK_ROWS) == keys
    except DamageError:
        return False


def mark_selections_stale(path: Path, *, except_of: str | None = None) -> None:
    """For a split whose images or labels changed. except_of: fingerprint of labels whose selections are not stale."""
    for entry in sorted((path / "selections").glob("[!.]*/")):
        with suppress(DamageError):  # it is found damaged when it is read
            group = open_group(DurableStore(entry, do=SELECT_AGAIN))
            if not group.attrs.get("stale") and group.attrs.get("labels") != (except_of or ""):
                group.attrs["stale"] = True


def mark(group: zarr.Group, **values: Any) -> None:
    """Sets attributes of a split in one atomic write, if they change; None takes one away."""
    before: Any = dict(group.attrs[ATTRIBUTE])  # type: ignore[arg-type]
    after = {key: value for key, value in {**before, **values}.items() if value is not None}
    if after != before:
        group.attrs[ATTRIBUTE] = after


def carry_plan(old: Path, manifest: SplitManifest, dim: int) -> np.ndarray | None:
    """(N,) int64: the row of the older generation that has the same key, or -1. None if nothing can be carried over."""
    try:
        group = open_group(DurableStore(old, read_only=True))
        if column(group, "embedding").shape[1] != dim:
            return None
        keys = read_keys(group, "key", chunk_rows=BLOCK_ROWS)
    except DamageError:
        return None
    return keys.rows_of(manifest.keys)


def carry_selections(old: Path, new: Path, manifest: SplitManifest) -> None:
    """Selections made before rows came or went: kept by key, marked stale. Scores are cheap and dropped."""
    folders = sorted((old / "selections").glob("[!.]*/"))
    if not folders:
        return
    old_keys = read_keys(open_group(DurableStore(old, read_only=True)), "key", chunk_rows=BLOCK_ROWS)
    new_row = Keys.of(manifest.keys).rows_of(old_keys)
    for folder in folders:
        arrays, attributes = read_result(DurableStore(folder, read_only=True, do=SELECT_AGAIN))
        for name, values in arrays.items():
            moved = np.full(len(manifest), np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
            moved[new_row[new_row >= 0]] = values[new_row >= 0]
            arrays[name] = moved
        create_result(new / "selections" / folder.name, arrays, {**attributes, "stale": True})


def _create(making: Path, target: Path, manifest: SplitManifest, dim: int, fingerprint: str) -> None:
    """The group with its keys and empty arrays appears under its name in one rename."""
    discard(making)
    attributes = {"keys_sha256": fingerprint, "rows": len(manifest), "complete": False}
    group = zarr.create_group(DurableStore(making), attributes={ATTRIBUTE: attributes})
    schema.create_split_arrays(group, len(manifest), dim)
    write_keys(group, "key", Keys.of(manifest.keys), chunk_rows=BLOCK_ROWS)
    write_labels(group, making, manifest)
    swap_in(target, making)


def _fingerprint_of(path: Path) -> str | None:
    if not (path / "zarr.json").exists():
        return None
    attributes: Any = open_group(DurableStore(path, read_only=True)).attrs.get(ATTRIBUTE, {})
    return str(attributes.get("keys_sha256"))
