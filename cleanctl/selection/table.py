"""The selection table: one row a sample in store order, as Parquet or CSV, with fixed columns.

    key, label, label_name, keep, suggested_label, suggested_name, p_label, p_max, then <rule>.score and <rule>.keep

Images that could not be read have `keep` and `<rule>.keep` false and nulls elsewhere. Written in chunks beside the
target and renamed at the end, so a table is whole or absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.errors import InputError, UsageError
from cleanctl.files.atomic import replacing

if TYPE_CHECKING:
    import pyarrow as pa

    from cleanctl.store import Split

CHUNK_ROWS = 65_536
FORMATS = (".parquet", ".csv")


def require_format(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--out is {str(path)!r}.", do="Let the name end in .parquet or .csv.")


def write_table(path: Path, split: Split, arrays: dict[str, np.ndarray], classes: tuple[str, ...]) -> None:
    """arrays: those of the stored selection, length N in store order."""
    require_format(path)
    schema = _schema([name.removesuffix(".score") for name in arrays if name.endswith(".score")])
    try:
        with replacing(path) as part, _writer(part, schema, parquet=path.suffix.lower() == ".parquet") as writer:
            for batch in _batches(split, arrays, classes, schema):
                writer.write_batch(batch)
    except OSError as exc:
        raise InputError(f"{path} cannot be written: {exc}.", do="Choose another --out.") from exc


def _schema(rules: list[str]) -> pa.Schema:
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
    return pa.schema(fields)


def _writer(path: Path, schema: pa.Schema, *, parquet: bool) -> Any:
    if parquet:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, schema)
    import pyarrow.csv as pc

    return pc.CSVWriter(path, schema)


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
