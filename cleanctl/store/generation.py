"""Which folder of a store a split is filled in: one generation for each list of keys.

Another list of keys makes another generation: `.<split>.next` is filled beside the old split, unchanged rows are
carried over by key and file fingerprint, and the two folders change places at the end.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cleanctl.files.atomic import sync_folder
from cleanctl.records import SplitManifest
from cleanctl.store import schema
from cleanctl.store.files import DurableStore, swap_in
from cleanctl.store.schema import ATTRIBUTE


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
    fingerprint = schema.manifest_fingerprint(manifest)
    final = store_path / manifest.split
    following = store_path / f".{manifest.split}.next"
    if _fingerprint_of(final) == fingerprint:
        shutil.rmtree(following, ignore_errors=True)
        return Generation(final, None)
    if _fingerprint_of(following) != fingerprint:
        shutil.rmtree(staging_folder(store_path, manifest.split), ignore_errors=True)
        shutil.rmtree(following, ignore_errors=True)
        _create(store_path / f".{manifest.split}.making", following, manifest, dim, fingerprint)
    if final.exists():
        return Generation(following, final)
    following.rename(final)
    sync_folder(store_path)
    return Generation(final, None)


def find_generation(store_path: Path, manifest: SplitManifest) -> Generation | None:
    """The generation of these keys, if it was made; nothing is changed."""
    fingerprint = schema.manifest_fingerprint(manifest)
    final = store_path / manifest.split
    following = store_path / f".{manifest.split}.next"
    if _fingerprint_of(final) == fingerprint:
        return Generation(final, None)
    if _fingerprint_of(following) == fingerprint:
        return Generation(following, final if final.exists() else None)
    return None


def write_labels(group: zarr.Group, manifest: SplitManifest) -> bool:
    """Writes labels and truth; True if other labels were there."""
    changed = "label" in group and not np.array_equal(schema.read(group, "label"), manifest.label_N)
    columns = {"label": manifest.label_N}
    if manifest.truth_N is not None:
        columns["truth"] = manifest.truth_N
    elif "truth" in group:
        del group["truth"]
    for name, values in columns.items():
        if name not in group or not np.array_equal(schema.read(group, name), values):
            schema.write_column(group, name, values, "int32")
    return changed


def mark_selections_stale(path: Path) -> None:
    """For a split some of whose images or labels are others now."""
    for entry in sorted((path / "selections").glob("[!.]*/zarr.json")):
        group = zarr.open_group(store=DurableStore(entry.parent), mode="r+")
        if not group.attrs.get("stale"):
            group.attrs["stale"] = True


def mark(group: zarr.Group, **values: Any) -> None:
    """Sets attributes of a split in one atomic write, if they change; None takes one away."""
    before: Any = dict(group.attrs[ATTRIBUTE])  # type: ignore[arg-type]
    after = {key: value for key, value in {**before, **values}.items() if value is not None}
    if after != before:
        group.attrs[ATTRIBUTE] = after


def carry_plan(old: Path, manifest: SplitManifest, dim: int) -> np.ndarray | None:
    """(N,) int64: the row of the older generation that has the same key, or -1."""
    group = schema.open_read_only(old)
    if schema.column(group, "embedding").shape[1] != dim:
        return None
    where = {str(key): row for row, key in enumerate(schema.read(group, "key"))}
    return np.array([where.get(key, -1) for key in manifest.keys], dtype=np.int64)


def carry_selections(old: Path, new: Path, manifest: SplitManifest) -> None:
    """Selections made before rows came or went: kept by key, marked stale. Scores are cheap and dropped."""
    if not (old / "selections").exists():
        return
    where = {key: row for row, key in enumerate(manifest.keys)}
    old_keys = schema.read(schema.open_read_only(old), "key")
    new_row = np.array([where.get(str(key), -1) for key in old_keys], dtype=np.int64)
    for entry in sorted((old / "selections").iterdir()):
        if entry.name.startswith(".") or not (entry / "zarr.json").exists():
            continue
        source = schema.open_read_only(entry)
        target = zarr.create_group(
            DurableStore(new / "selections" / entry.name),
            attributes={**dict(source.attrs), "stale": True},
            overwrite=True,
        )
        for name, array in source.arrays():
            values = np.asarray(array[...])
            moved = np.full(len(manifest), np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
            moved[new_row[new_row >= 0]] = values[new_row >= 0]
            schema.write_column(target, name, moved, values.dtype.name)


def _create(making: Path, target: Path, manifest: SplitManifest, dim: int, fingerprint: str) -> None:
    """The group with its keys and empty arrays appears under its name in one rename."""
    shutil.rmtree(making, ignore_errors=True)
    attributes = {"keys_sha256": fingerprint, "rows": len(manifest), "complete": False}
    group = zarr.create_group(DurableStore(making), attributes={ATTRIBUTE: attributes})
    schema.create_split_arrays(group, len(manifest), dim)
    schema.write_column(group, "key", manifest.keys, "string")
    write_labels(group, manifest)
    swap_in(making, target)


def _fingerprint_of(path: Path) -> str | None:
    if not (path / "zarr.json").exists():
        return None
    attributes: Any = schema.open_read_only(path).attrs.get(ATTRIBUTE, {})
    return attributes.get("keys_sha256")
