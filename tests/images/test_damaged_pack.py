"""A packed file or row table that is not what was written: packed again, or read from the image files, row by row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from loading import collect

from cleanctl.files.local import LocalStorage
from cleanctl.images.packed.beton import BetonFile
from cleanctl.images.packed.pack import Limit, pack
from cleanctl.images.packed.rows import read_rows, table_path, write_rows
from cleanctl.records import PixelSpec

SPEC = PixelSpec(size=32)
ROWS = np.arange(9)


def keys_of(root) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def run(root):
    path = root.parent / "s.train.beton"
    return path, pack(files=LocalStorage.of(root), keys=keys_of(root), path=path, limit=Limit(512))


def flip(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def sample_place(path, row: int) -> int:
    """Inside the row's coded pixels, behind the tables of its JPEG."""
    beton = BetonFile(path)
    return int(beton.sample[row]["data_ptr"]) + 3 * int(beton.size_N[row]) // 4


@pytest.mark.parametrize("place", ["header", "field", "samples", "allocation"])
def test_a_flipped_byte_of_the_files_own_tables_packs_it_again(source, place):
    path, former = run(source)
    data = path.read_bytes()
    at = {"header": 9, "field": 700, "samples": 1100, "allocation": len(data) - 40}[place]
    flip(path, at)
    assert run(source)[1].token != former.token
    assert [bytes(BetonFile(path)[row].data) for row in ROWS] == [
        (source / key).read_bytes() for key in keys_of(source)
    ]


def test_a_flipped_byte_of_the_row_table_packs_it_again(source):
    path, former = run(source)
    digest = former.fingerprints.digest_N16[4].tobytes()
    table = table_path(path)
    flip(table, table.read_bytes().index(digest[:4]) + 2)
    assert run(source)[1].token != former.token


def test_a_damaged_row_is_not_copied_into_a_new_file(source):
    path, _ = run(source)
    flip(path, sample_place(path, 3))
    (source / "0.jpg").write_bytes((source / "1.jpg").read_bytes())
    run(source)
    assert [bytes(BetonFile(path)[row].data) for row in ROWS] == [
        (source / key).read_bytes() for key in keys_of(source)
    ]


def test_a_damaged_sample_is_read_from_its_image_file(source, opened, tmp_path):
    pytest.importorskip("ffcv")
    path = tmp_path / "s.train.beton"
    whole = collect(opened("ffcv", source, keys_of(source), SPEC, beton=path), ROWS, batch_size=4)
    flip(path, sample_place(path, 5))
    again = collect(opened("ffcv", source, keys_of(source), SPEC, beton=path), ROWS, batch_size=4)
    assert np.array_equal(again[1], whole[1])
    assert again[2].all()


def test_a_damaged_sample_whose_image_cannot_be_read_fails_with_its_reason(source, opened, tmp_path):
    pytest.importorskip("ffcv")
    path = tmp_path / "s.train.beton"
    loader = opened("ffcv", source, keys_of(source), SPEC, beton=path)
    flip(path, sample_place(path, 5))
    (source / "5.jpg").unlink()
    _, _, ok, reason = collect(loader, ROWS, batch_size=4)
    assert np.flatnonzero(~ok).tolist() == [5]
    assert "packed file is damaged" in reason[5]
    assert "cleanctl embed" in reason[5]


def test_a_pair_without_checksums_still_serves(source):
    path, table = run(source)
    write_rows(dataclasses.replace(table, crc_N=None, checksum=None), table_path(path))
    assert read_rows(table_path(path)).crc_N is None
    assert run(source)[1].token == table.token
