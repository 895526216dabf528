"""The selection table: one row a sample in store order, with fixed columns, as Arrow record batches.

    key, label, label_name, keep, suggested_label, suggested_name, p_label, p_max, then <rule>.score and <rule>.keep,
    and of a selection with a budget `review`: 1 for the label to look at first, 0 where the budget does not reach;
    and of one that obeyed people's verdicts `verdict` (keep, drop, relabel, or null), `verdict_label`, `verdict_name`:
    `keep` is then by the verdict, the other columns are as without it

Images that could not be read have `keep` and `<rule>.keep` false and nulls elsewhere. `cleanctl.export` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.files.arrow import Values, batch_of, names_of
from cleanctl.store.standing import UNDECIDED, WORDS

if TYPE_CHECKING:
    import pyarrow as pa

    from cleanctl.store import Split

CHUNK_ROWS = 65_536


def selection_table(
    split: Split, arrays: dict[str, np.ndarray], classes: tuple[str, ...]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """arrays: those of the stored selection, length N in store order."""
    import pyarrow as pa

    schema = _schema([name.removesuffix(".score") for name in arrays if name.endswith(".score")], "review" in arrays)
    if "verdict" in arrays:
        for name, kind in (("verdict", pa.string()), ("verdict_label", pa.int32()), ("verdict_name", pa.string())):
            schema = schema.append(pa.field(name, kind))
    return schema, _batches(split, arrays, classes, schema)


def _schema(rules: list[str], reviewed: bool) -> pa.Schema:
    import pyarrow as pa

    fields = [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("keep", pa.bool_()),
        ("suggested_label", pa.int32()),
        ("suggested_name", pa.string()),
        ("p_label", pa.float32()),
        ("p_max", pa.float32()),
    ]
    for rule in rules:
        fields += [(f"{rule}.score", pa.float32()), (f"{rule}.keep", pa.bool_())]
    fields += [("review", pa.int32())] if reviewed else []
    return pa.schema(fields)


def _batches(
    split: Split, arrays: dict[str, np.ndarray], classes: tuple[str, ...], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    label_N = split.label_N()
    for start in range(0, split.num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, split.num_rows))
        label_B, suggested_B = label_N[rows], arrays["suggested"][rows]
        known: dict[str, Values] = {
            "key": split.keys(rows),
            "label": label_B,
            "label_name": names_of(label_B, classes),
            "suggested_label": np.ma.masked_less(suggested_B, 0),
            "suggested_name": names_of(suggested_B, classes),
        }
        known |= _verdict_columns(arrays, rows, classes)
        yield batch_of((known[name] if name in known else arrays[name][rows] for name in schema.names), schema)


def _verdict_columns(arrays: dict[str, np.ndarray], rows: slice, classes: tuple[str, ...]) -> dict[str, Values]:
    if "verdict" not in arrays:
        return {}
    code_B, label_B = arrays["verdict"][rows], arrays["verdict_label"][rows]
    return {
        "verdict": [None if code == UNDECIDED else WORDS[code] for code in code_B.tolist()],
        "verdict_label": np.ma.masked_less(label_B, 0),
        "verdict_name": names_of(label_B, classes),
    }
