"""What the folders alone say: which files are in which split, and the class folder of each.

In: sorted keys. Out: a `FolderSplit` a split. Pure: strings in, strings out.

    <class>/…/x.jpg                  one split, `train`
    train|training/<class>/…/x.jpg   splits by name, with test|testing and val|valid|validation beside it
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cleanctl.files.keys import Keys

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


def split_name(folder: str) -> str:
    """The split a folder or a table's value stands for: `Validation` → `val`; other words stand for themselves."""
    return SPLIT_NAMES.get(folder.lower(), folder)


class FolderSplit(NamedTuple):
    """keys sorted, and beside each its class folder ("" where it lies in none), each name once in memory."""

    keys: Keys
    folders: list[str]


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """`layout` is "class folders", "split folders" or "flat"; `others` are keys outside every split folder."""

    layout: str
    splits: dict[str, FolderSplit]
    others: Keys


def recognise(keys: Sequence[str]) -> FolderLayout:
    """Reads splits and class folders from paths.

    A folder named like a split is one only if none of its images lies directly in it: a class may be called `train`.
    """
    tops, keys, known = split_tops(keys), Keys.of(keys), {"": ""}
    if not tops:
        first = (key.partition("/")[0] if "/" in key else "" for key in keys)
        folders = [known.setdefault(folder, folder) for folder in first]
        layout = "class folders" if len(known) > 1 else "flat"
        return FolderLayout(layout=layout, splits={"train": FolderSplit(keys, folders)}, others=keys[:0])
    rows: dict[str | None, array[int]] = {}
    folders_of: dict[str, list[str]] = {}
    for row, key in enumerate(keys):
        top, _, rest = key.partition("/")
        split = split_name(top) if rest and top in tops else None
        rows.setdefault(split, array("q")).append(row)
        if split is not None:
            folder = rest.partition("/")[0]
            folders_of.setdefault(split, []).append(known.setdefault(folder, folder))
    splits = {split: FolderSplit(keys[_rows(rows[split])], folders) for split, folders in folders_of.items()}
    return FolderLayout(layout="split folders", splits=splits, others=keys[_rows(rows.get(None, array("q")))])


def _rows(rows: array[int]) -> np.ndarray:
    return np.frombuffer(rows, np.int64) if rows else np.zeros(0, np.int64)


def split_tops(keys: Iterable[str]) -> set[str]:
    """First path parts that are split folders."""
    shallow: Counter[str] = Counter()
    deep: Counter[str] = Counter()
    for key in keys:
        parts = key.split("/", 2)
        if len(parts) > 1:
            (shallow if len(parts) == 2 else deep)[parts[0]] += 1
    return {top for top in deep if top.lower() in SPLIT_NAMES and not shallow[top]}


def class_folder(key: str, tops: set[str]) -> str:
    """The class folder of one key, after a split folder if it begins with one; "" if there is none."""
    parts = key.split("/")
    if len(parts) > 1 and parts[0] in tops:
        parts = parts[1:]
    return parts[0] if len(parts) > 1 else ""
