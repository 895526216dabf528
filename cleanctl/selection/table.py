"""The selection table: one row a sample in store order, with fixed columns, as Arrow record batches.

    key, label, label_name, keep, suggested_label, suggested_name, p_label, p_max, then <rule>.score and <rule>.keep,
    and of a selection with a budget `review`: 1 for the label to look at first, 0 where the budget does not reach

Images that could not be read have `keep` and `<rule>.keep` false and nulls elsewhere. `cleanctl.export` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from cleanctl.store import Split

CHUNK_ROWS = 65_536


def selection_table(
    split: Split, arrays: dict[str, np.ndarray], classes: tuple[str, ...]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """arrays: those of the stored selection, length N in store order."""
    schema = _schema([name.removesuffix(".score") for name in arrays if name.endswith(".score")], "review" in arrays)
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
    import pyarrow as pa

    label_N, name_C = split.label_N(), pa.array(classes, pa.string())
    for start in range(0, split.num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, split.num_rows))
        label = pa.array(label_N[rows], pa.int32())
        suggested_B = arrays["suggested"][rows]
        suggested = pa.array(suggested_B, pa.int32(), mask=suggested_B < 0)
        known: dict[str, pa.Array] = {
            "key": pa.array(split.keys(rows), pa.string()),
            "label": label,
            "label_name": name_C.take(label),
            "suggested_label": suggested,
            "suggested_name": name_C.take(suggested),
        }
        columns = [
            known[field.name] if field.name in known else _column(arrays[field.name][rows], field.type)
            for field in schema
        ]
        yield pa.record_batch(columns, schema=schema)


def _column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, kind, mask=np.isnan(values) if values.dtype.kind == "f" else None)
