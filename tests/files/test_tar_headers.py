"""Tar headers: every member that the standard library finds, its place and size; what is damaged is told."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import labelled, walk, walk_until_damage, write_tar

from cleanctl.config import EmbedConfig
from cleanctl.datasets.source import open_source
from cleanctl.files.tar_headers import NO_FILE

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def by_tarfile(data: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, m.offset_data, m.size if m.isreg() else NO_FILE) for m in tar.getmembers()]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.text("abé雪. -", min_size=1, max_size=60).filter(lambda name: name.strip(". ") == name), max_size=9
    ),
    folder=st.sampled_from(["", "a/", "x" * 80 + "/", "y" * 120 + "/" + "z" * 120 + "/"]),
    sizes=st.lists(st.sampled_from([0, 1, 511, 512, 513, 20_000]), min_size=1, max_size=9),
    step=st.sampled_from([512, 1024, 8192, 1 << 20]),
)
def test_members_are_those_that_the_standard_library_finds(format, names, folder, sizes, step):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(folder + name)
            info.size = sizes[number % len(sizes)]
            try:
                tar.addfile(info, io.BytesIO(bytes([65 + number % 20]) * info.size))
            except ValueError:
                assert format == tarfile.USTAR_FORMAT, "only ustar cannot hold every name"
    assert walk(buffer.getvalue(), step) == by_tarfile(buffer.getvalue())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_is_wrong_with_a_tar_the_walk_ends_with_whole_members_or_its_damage(data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=data.draw(st.sampled_from(list(FORMATS.values())))) as tar:
        for name in ("a.jpg", "x" * 90 + ".jpg", "b.cls"):
            info = tarfile.TarInfo(name)
            info.size = 600
            tar.addfile(info, io.BytesIO(bytes(600)))
    spoilt = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at : at + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    kept, _ = walk_until_damage(bytes(spoilt))
    assert all(at + max(size, 0) <= len(spoilt) for _, at, size in kept)


def test_links_devices_and_sizes_in_base_256_are_understood(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind in (("device", tarfile.CHRTYPE), ("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "l" * 150
            tar.addfile(info)
        info = tarfile.TarInfo("after.jpg")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"12345"))
    data = bytearray(buffer.getvalue())
    at = walk(bytes(data))[-1][1] - 512
    data[at + 124 : at + 136] = b"\x80" + (5).to_bytes(11, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    found = walk(bytes(data))
    assert found == by_tarfile(bytes(data))
    assert [size for _, _, size in found] == [NO_FILE, NO_FILE, NO_FILE, 5]


def test_concatenated_tars_are_read_to_their_end(tmp_path):
    first = write_tar(tmp_path / "1.tar", labelled(2)).read_bytes()
    second = write_tar(tmp_path / "2.tar", labelled(2, start=2)).read_bytes()
    (tmp_path / "both").mkdir()
    (tmp_path / "both/b.tar").write_bytes(first + second)
    (split,) = open_source(EmbedConfig(source=tmp_path / "both")).splits
    assert split.keys == [f"b/{number:05d}" for number in range(4)]
