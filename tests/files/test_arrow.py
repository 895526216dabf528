"""Columns laid out by hand are what pyarrow makes of the same values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cleanctl.files.arrow import batch_of, column_of, names_of, numpy_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(-4, 9, dtype=np.int64), pa.int32()),
        (np.array([0.5, np.nan, -0.0, np.inf], np.float32), pa.float32()),
        (np.arange(21) % 3 == 0, pa.bool_()),
        (np.array([0, 1, 1, 0], np.uint8), pa.bool_()),
        (["a", None, "", "Zoë ☃", "b"], pa.string()),
        ([], pa.string()),
        (np.zeros(0, np.float32), pa.float32()),
        (np.arange(40, dtype=np.int16)[::3], pa.int32()),
    ],
    ids=["narrowed", "NaN is null", "bool", "bool of uint8", "texts", "no texts", "no numbers", "every third"],
)
def test_a_column_is_what_pyarrow_makes(values, kind):
    nulls = np.isnan(values) if getattr(values, "dtype", None) == np.float32 else None
    plain = values.astype(bool) if kind == pa.bool_() else values
    expected = pa.array(plain, kind, mask=nulls) if len(values) else pa.array([], kind)
    found = column_of(values, kind)
    found.validate(full=True)
    assert found.equals(expected)
    assert found.null_count == expected.null_count


def test_a_batch_holds_masked_numbers_and_their_names_as_nulls():
    number = np.array([2, -1, 0], np.int32)
    schema = pa.schema([("label", pa.int32()), ("name", pa.string())])
    batch = batch_of([np.ma.masked_less(number, 0), names_of(number, ("cat", "dog", "owl"))], schema)
    batch.validate(full=True)
    assert batch.to_pylist() == [
        {"label": 2, "name": "owl"},
        {"label": None, "name": None},
        {"label": 0, "name": "cat"},
    ]


def test_a_column_too_few_is_refused():
    with pytest.raises(ValueError, match="zip"):
        batch_of([["a"]], pa.schema([("a", pa.string()), ("b", pa.string())]))


@pytest.mark.parametrize("values", [[], [1, 0, 3], [True, False, True] * 5])
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.bool_(), pa.float32()])
def test_numbers_come_back_from_a_column_however_it_is_cut(values, kind):
    wanted = np.array(values, dtype=kind.to_pandas_dtype())
    array = column_of(wanted, kind)
    assert np.array_equal(numpy_of(array), wanted)
    assert np.array_equal(numpy_of(pa.chunked_array([array[:1], array[1:]], kind)), wanted)
    assert numpy_of(pa.chunked_array([], kind)).dtype == wanted.dtype
