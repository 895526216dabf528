"""The table of `conflicts --out`: a row for each image of a group, and for each copy in another split.

group              number, 0 the largest
kinds              of the group, joined by blanks
role               centre, copy, or leak: a copy in another split
split, key         the image
label, label_name  as given
similarity         to the centre; of a leak to the image that it is a copy of
keep               the one of the group that `~conflict.duplicate` leaves; false for leaks
leak_of            of a leak the key of the image that it is a copy of, else null
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cleanctl.conflicts.read import ConflictGroup, read_conflicts
from cleanctl.errors import StoreError
from cleanctl.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

GROUPS_AT_ONCE = 4_096


def conflicts_table(store: Store, name: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Of a split by its name. Raises StoreError where conflicts were not looked for."""
    import pyarrow as pa

    split = store.split(name)
    found, classes = read_conflicts(store, split), store.classes
    if found is None:
        raise StoreError(f"Split {name!r} of {store.path} has no conflicts stored.", do="Find them: cleanctl conflicts")

    kinds = {"group": pa.int32(), "label": pa.int32(), "similarity": pa.float32(), "keep": pa.bool_()}
    names = ("group", "kinds", "role", "split", "key", "label", "label_name", "similarity", "keep", "leak_of")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    keys = split.keys()

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(found.groups), GROUPS_AT_ONCE):
            some = found.groups[start : start + GROUPS_AT_ONCE]
            rows = [row for group in some for row in _rows(group, split.name, keys, classes)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return schema, batches()


def _rows(group: ConflictGroup, split: str, keys: Sequence[str], classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    shared = {"group": group.number, "kinds": " ".join(group.kinds)}
    for place, row in enumerate(group.row_K.tolist()):
        label = int(group.label_K[place])
        yield shared | {
            "role": "copy" if place else "centre",
            "split": split,
            "key": keys[row],
            "label": label,
            "label_name": classes[label],
            "similarity": float(group.similarity_K[place]),
            "keep": row == group.kept,
            "leak_of": None,
        }
    for leak in group.leaks:
        yield shared | {
            "role": "leak",
            "split": leak.split,
            "key": leak.other_key,
            "label": leak.other_label,
            "label_name": classes[leak.other_label],
            "similarity": leak.similarity,
            "keep": False,
            "leak_of": keys[leak.row],
        }
