"""`Keys` behaves as the list of str that it stands for, in little memory, and finds rows without a dict of them."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.files import keys as module
from cleanctl.files.keys import Keys, KeysBuilder

# Letters of one to four bytes, a zero byte, and what a name that is not UTF-8 becomes.
LETTERS = st.sampled_from(["a", "b", "/", "0", "é", "字", "\U0001f600", "\0", "\udc80", "\uffff"])
TEXTS = st.lists(st.text(LETTERS, max_size=6), max_size=40)
DISTINCT = st.lists(st.text(LETTERS, max_size=6), max_size=40, unique=True)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few keys, so that short lists cross them."""
    for name, value in (("BLOCK_KEYS", 4), ("_WINDOW_KEYS", 8), ("FEW", 2)):
        monkeypatch.setattr(module, name, value)


@given(TEXTS, st.slices(40), st.data())
@settings(max_examples=40, deadline=None)
def test_is_the_list_it_was_made_of(texts, part, data):
    keys = Keys.of(texts)
    assert (len(keys), list(keys), keys.tolist()) == (len(texts), texts, texts)
    assert keys == texts
    assert texts == keys
    assert keys == Keys.of(texts)
    assert Keys.of(keys) is keys
    assert keys[part].tolist() == texts[part]
    assert [text for _, block in keys[part].blocks(3) for text in block] == texts[part]
    rows = data.draw(st.lists(st.integers(-len(texts), len(texts) - 1), max_size=20)) if texts else []
    assert keys[np.array(rows, np.int64)].tolist() == [texts[row] for row in rows]
    assert [keys[row] for row in rows] == [texts[row] for row in rows]
    again = pickle.loads(pickle.dumps(keys[part]))
    assert again == texts[part]
    assert again[1:].tolist() == texts[part][1:]


@given(TEXTS, TEXTS)
@settings(max_examples=40, deadline=None)
def test_is_equal_to_what_holds_the_same_texts_in_the_same_order(one, other):
    assert (Keys.of(one) == Keys.of(other)) is (one == other)
    assert (Keys.of(one) == other) is (one == other)
    assert Keys.of(["ab", "c"]) != Keys.of(["a", "bc"])


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_sorts_as_python_sorts_str(texts):
    keys, order_N = Keys.of(texts).sorted()
    assert keys == sorted(texts)
    assert [texts[row] for row in order_N] == keys.tolist()
    repeated = next((row for row in range(1, len(keys)) if keys[row] == keys[row - 1]), None)
    assert keys.first_repeated() == repeated
    assert keys.increasing is (repeated is None)


@given(DISTINCT, TEXTS, st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_finds_the_row_of_each_key(texts, wanted, mine_sorted, its_sorted):
    texts = sorted(texts) if mine_sorted else texts
    wanted = wanted + texts[::2]
    wanted = sorted(wanted) if its_sorted else wanted
    rows = {text: row for row, text in enumerate(texts)}
    expected = [rows.get(text, -1) for text in wanted]
    assert Keys.of(texts).rows_of(wanted).tolist() == expected
    assert Keys.of(texts).rows_of(Keys.of(wanted)).tolist() == expected
    assert all((text in Keys.of(texts)) is (text in rows) for text in wanted)


def test_a_key_that_is_there_twice_has_no_row():
    with pytest.raises(ValueError, match="'b' is there twice"):
        Keys.of(["b", "a", "b"]).rows_of(["a"])


@pytest.mark.parametrize("texts", [[], ["a"], [f"n{row:03d}/é{row}.jpg" for row in range(11)]])
def test_the_fingerprint_is_the_one_that_stores_hold_of_older_versions(texts):
    assert Keys.of(texts).fingerprint() == hashlib.sha256(b"".join(b"%s\0" % one.encode() for one in texts)).hexdigest()


def test_parts_of_arrow_columns_are_taken_without_python_strings():
    import pyarrow as pa

    column = pa.chunked_array([pa.array(["x", "yé", ""]), pa.array(["z"]), pa.array([], pa.string())])
    assert Keys.of_arrow(column) == ["x", "yé", "", "z"]
    assert Keys.of_arrow(pa.array(["a", "b", "c"])[1:]) == ["b", "c"]
    assert Keys.of_arrow(pa.array(["a", "bc"], pa.large_string())) == ["a", "bc"]


def test_tables_get_the_keys_block_by_block_from_any_part_of_them(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_KEYS", 3)
    texts = ["a", "", "βeta", "longer", "x", "yz", "é", "last"]
    chunks = list(Keys.of(texts)[1:].string_chunks())
    assert [chunk.to_pylist() for chunk in chunks] == [texts[1:4], texts[4:7], texts[7:]]


def test_many_bytes_lie_in_a_file_that_nobody_sees(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "SPILL_BYTES", 1_000)
    builder = KeysBuilder()
    for start in range(0, 1000, 100):
        builder.extend([f"key {row}" for row in range(start, start + 100)])
    keys = builder.keys()
    assert isinstance(keys._byte_T, np.memmap)
    assert isinstance(keys._offset_N1, np.memmap)
    assert keys == [f"key {row}" for row in range(1000)]
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_written_they_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(module, "SPILL_BYTES", 1_000)
    assert Keys.of(f"key {row}" for row in range(1000))[999] == "key 999"
