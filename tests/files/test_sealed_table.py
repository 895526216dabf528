"""A table of ours is read as it was written, or not at all."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cleanctl.files.sealed_table import read_table, write_table

COLUMNS = {
    "key": pa.array([f"cat/{number:02d}.jpg" for number in range(20)]),
    "reason": pa.array([None, "truncated", *[None] * 18], pa.string()),
    "digest": pa.array([bytes([number] * 16) for number in range(20)], pa.binary(16)),
    "size": pa.array(range(1000, 1020), pa.int64()),
}
ABOUT = {"format": "1", "limit": "512"}


def content(table: pa.Table):
    meta = table.schema.metadata or {}
    about = {key: meta[key] for key in (b"format", b"limit")}  # which whoever reads such a table asks for
    return about, table.select(list(COLUMNS)).to_pydict()


def test_a_cut_or_a_flipped_byte_is_never_believed(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, COLUMNS, ABOUT)
    expected, whole = content(read_table(path)), path.read_bytes()
    assert expected[1] == {name: column.to_pylist() for name, column in COLUMNS.items()}
    noticed = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            there = content(read_table(path))
        except (OSError, ValueError, KeyError, pa.ArrowException):
            noticed += 1
            continue
        assert there == expected, at
    assert noticed > len(whole) // 3
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at])
        with pytest.raises((OSError, ValueError)):
            read_table(path)


def test_a_table_in_many_parts_has_the_same_checksum(tmp_path):
    path = tmp_path / "t.parquet"
    parts = {name: pa.chunked_array([column[:7], column[7:8], column[8:]]) for name, column in COLUMNS.items()}
    write_table(path, parts, ABOUT)
    assert content(read_table(path))[1] == {name: column.to_pylist() for name, column in COLUMNS.items()}
    empty = {name: column[:0] for name, column in COLUMNS.items()}
    write_table(path, empty, ABOUT)
    assert read_table(path).num_rows == 0


def test_a_table_without_a_checksum_is_believed(tmp_path):
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table(COLUMNS).replace_schema_metadata(ABOUT), path)
    assert content(read_table(path))[1]["key"] == COLUMNS["key"].to_pylist()
