"""What a store holds is Zarr v3: the zarr library reads what is written here, and what it writes is read here."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, ZstdCodec

from cleanctl.errors import StoreError
from cleanctl.store.arrays import create_group, create_sharded, open_group, read, write_chunk, write_column
from cleanctl.store.codecs import BYTES, CRC32C, TEXTS, ZSTD, decode, encode
from cleanctl.store.files import DurableStore

KINDS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def numbers(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    return (np.random.default_rng(0).integers(0, 2, shape) * 3.5).astype(kind)


@pytest.fixture
def group(tmp_path):
    return create_group(DurableStore(tmp_path / "g"), {"of": ["α", 1.5, None]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (10,), (10, 3)])
def test_a_column_written_here_is_read_by_zarr(group, kind, shape):
    values = numbers(kind, shape)
    write_column(group, "a", values, kind, chunk_rows=4)
    assert zarr.open_group(str(group.store.root), mode="r").attrs["of"] == ["α", 1.5, None]
    theirs = zarr.open_array(str(group.store.root / "a"), mode="r")
    assert (theirs.shape, theirs.dtype) == (shape, np.dtype(kind))
    np.testing.assert_array_equal(theirs[...], values)
    ours = read(group, "a")
    assert ours.dtype == values.dtype
    np.testing.assert_array_equal(ours, values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codecs", [[], [ZstdCodec()], [ZstdCodec(), Crc32cCodec()], [ZstdCodec(checksum=True)]])
def test_a_column_written_by_zarr_is_read_here(group, kind, codecs):
    values = numbers(kind, (10, 2))
    array = zarr.create_array(
        str(group.store.root / "a"), shape=(10, 2), chunks=(4, 2), dtype=kind, compressors=codecs or None
    )
    array[...] = values
    np.testing.assert_array_equal(read(group, "a", sparse=True), values)
    np.testing.assert_array_equal(read(group, "a", slice(3, 9), sparse=True), values[3:9])
    np.testing.assert_array_equal(read(group, "a", 9), values[9])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_as_they_were(texts):
    values = np.array([*texts, None], object)[:-1]
    assert (
        decode(encode(values, [TEXTS, ZSTD, CRC32C]), [TEXTS, ZSTD, CRC32C], values.dtype, len(texts)).tolist() == texts
    )


def test_texts_are_those_of_zarr(group):
    texts = ["", "a", "δοκιμή", "a" * 5000, "line\nline", "no\0nul", "🦊"]
    write_column(group, "ours", texts, "string", chunk_rows=3)
    assert list(zarr.open_array(str(group.store.root / "ours"), mode="r")[...]) == texts
    array = zarr.create_array(str(group.store.root / "theirs"), shape=(7,), chunks=(3,), dtype="string")
    array[...] = np.array(texts, dtype=object)
    assert read(group, "theirs", slice(2, 7)).tolist() == texts[2:]


def test_shards_are_those_of_zarr(group):
    """Two and a half shards of two and a half chunks of rows, one of them and one whole shard without any values."""
    values = np.random.default_rng(0).standard_normal((25, 3)).astype(np.float16)
    values[4:8] = values[10:20] = np.nan
    create_sharded(group, "ours", (25, 3), "float16", 4, 12)
    for number in range(3):
        write_chunk(group, "ours", number, values[12 * number : 12 * number + 12])
    np.testing.assert_array_equal(zarr.open_array(str(group.store.root / "ours"), mode="r")[...], values)
    array = zarr.create_array(
        str(group.store.root / "theirs"),
        shape=(25, 3),
        dtype="float16",
        chunks=(4, 3),
        shards=(12, 3),
        compressors=[Crc32cCodec()],
        fill_value=float("nan"),
    )
    array[...] = values
    for name in ("ours", "theirs"):
        for rows in (slice(None), slice(3, 5), slice(7, 21), slice(24, 25)):
            np.testing.assert_array_equal(read(group, name, rows), values[rows])


def test_every_byte_of_a_chunk_is_checked():
    data = encode(np.arange(50, dtype=np.int32), [BYTES, ZSTD, CRC32C])
    for at in range(len(data)):
        with pytest.raises(ValueError, match="does not have its checksum"):
            decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], [BYTES, ZSTD, CRC32C], np.dtype(np.int32), 50)
        with pytest.raises(ValueError, match="does not have its checksum"):
            decode(data[:at], [BYTES, ZSTD, CRC32C], np.dtype(np.int32), 50)


@pytest.mark.parametrize("codecs", [[BYTES], [BYTES, ZSTD], [TEXTS], [TEXTS, ZSTD]])
def test_a_chunk_without_a_checksum_is_refused_where_it_is_cut(codecs):
    """As stores of older versions have them: each cut is noticed by the length of what is left."""
    texts = codecs[0] == TEXTS
    values = np.array(["ab", "c", "def"], object) if texts else np.arange(3, dtype=np.int32)
    data = encode(values, codecs)
    for at in range(len(data)):
        with pytest.raises(ValueError, match=r"chunk|buffer|ZSTD|Truncated|Corrupt"):
            decode(data[:at], codecs, values.dtype, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"codecs": [{"name": "bytes"}, {"name": "blosc"}]},
        {"codecs": []},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 1]}}},
        {"data_type": "complex999"},
        {"node_type": "group"},
        {"shape": [10]},
    ],
)
def test_an_array_of_another_make_is_refused_by_its_name(group, changed):
    write_column(group, "a", numbers("int32", (10, 2)), "int32", chunk_rows=4)
    meta = group.store.read_meta("a/zarr.json")
    group.store.write_meta("a/zarr.json", meta | changed)
    with pytest.raises(StoreError, match=r"g/a is damaged: "):
        read(open_group(group.store), "a")
