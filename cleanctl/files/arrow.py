"""Arrow columns from numpy arrays and texts, and back, without pandas.

pyarrow's own `array` and `to_numpy` import pandas wherever it is installed, to know its types: a second and 60 MiB for
a table that has none of them. Here the buffers are laid out by hand. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

Values = np.ndarray | Sequence[str | None]


def batch_of(columns: Iterable[Values], schema: pa.Schema) -> pa.RecordBatch:
    """One column a field. Texts: a sequence of str, None is null. Floats that are NaN are null; so is a masked array's
    masked value."""
    import pyarrow as pa

    arrays = [column_of(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def column_of(values: Values, kind: pa.DataType) -> pa.Array:
    """kind: string, bool or a number of fixed width."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        return _texts(list(values), kind)
    valid_N = ~np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    plain = np.asarray(values)
    if plain.dtype.kind == "f" and np.isnan(plain).any():
        valid_N = ~np.isnan(plain)
    if pa.types.is_boolean(kind):
        buffer = np.packbits(plain.astype(bool), bitorder="little")
    else:
        buffer = np.ascontiguousarray(plain, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(plain), [_validity(valid_N), pa.py_buffer(buffer)])


def numpy_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Numbers or booleans (N,) of a column without nulls; not to be written to."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_values_of(chunk) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([_values_of(pa.nulls(0, column.type)), *parts])


def _values_of(array: pa.Array) -> np.ndarray:
    import pyarrow as pa

    assert not array.null_count, "nulls have no number"
    data, rows = array.buffers()[1] or b"", slice(array.offset, array.offset + len(array))
    if pa.types.is_boolean(array.type):
        return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[rows].view(bool)
    return np.frombuffer(data, array.type.to_pandas_dtype())[rows]


def _texts(texts: list[str | None], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    missing = None in texts
    known = ["" if text is None else text for text in texts] if missing else texts
    whole = "".join(known)  # type: ignore[arg-type]
    parts = known if whole.isascii() else [text.encode() for text in known]  # type: ignore[union-attr]
    offset_N1 = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offset_N1[1:])  # type: ignore[arg-type]
    assert offset_N1[-1] < 2**31, "cut the table into batches"
    validity = _validity(np.array([text is not None for text in texts])) if missing else None
    buffers = [validity, pa.py_buffer(offset_N1.astype(np.int32)), pa.py_buffer(whole.encode())]
    return pa.Array.from_buffers(kind, len(texts), buffers)


def _validity(valid_N: np.ndarray | None) -> pa.Buffer | None:
    import pyarrow as pa

    return None if valid_N is None else pa.py_buffer(np.packbits(valid_N, bitorder="little"))


def names_of(number_N: np.ndarray, names: Sequence[str]) -> list[str | None]:
    """The name of each number, None of those below 0."""
    return [names[number] if number >= 0 else None for number in number_N.tolist()]
