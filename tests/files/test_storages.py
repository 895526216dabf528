"""The contract of a storage, run against each: a folder, a URL, tars in either. And files that are none."""

from __future__ import annotations

import os
import pickle
import random
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tars import write_tar

from cleanctl.errors import InputError
from cleanctl.files.fingerprints import digest_of, fingerprint_files
from cleanctl.files.locate import locate
from cleanctl.files.storage import CHANGED, Span
from cleanctl.files.tar_index import LabelFields, index_tar
from cleanctl.files.tar_storage import TarStorage

CONTENTS = {
    f"{folder}/{number}": bytes(np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8))
    for folder in ("a", "b")
    for number, size in enumerate((0, 1, 511, 512, 70_000, 3))
}
KINDS = ["folder", "memory", "s3", "tars", "tars in memory", "tars in s3"]


@dataclass
class Source:
    """`storage` of the files in `contents`; `key(name)` is its key there, `rewrite` changes what lies there."""

    kind: str
    root: Path
    url: str
    system: object

    @property
    def in_tars(self) -> bool:
        return self.kind.startswith("tars")

    def key(self, name: str) -> str:
        return name if self.in_tars else f"{name}.jpg"

    def rewrite(self, contents: dict[str, bytes]) -> None:
        """Makes `contents` what the source holds."""
        for path in [path for path in self.root.rglob("*") if path.is_file()]:
            path.unlink()
        if self.in_tars:
            for shard in {name.split("/")[0] for name in contents}:
                members = [(f"{name[2:]}.jpg", data) for name, data in contents.items() if name.startswith(shard)]
                write_tar(self.root / f"{shard}.tar", members)
        else:
            for name, data in contents.items():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / f"{name}.jpg").write_bytes(data)
        if self.system is not None:
            if self.system.exists(self.url):
                self.system.rm(self.url, recursive=True)
            for path in self.root.rglob("*"):
                if path.is_file():
                    self.system.pipe_file(f"{self.url}/{path.relative_to(self.root).as_posix()}", path.read_bytes())

    def open(self):
        located = locate(self.url or str(self.root))
        if not self.in_tars:
            return located.storage
        tree = located.storage
        fields = LabelFields(read=False)
        return TarStorage.of(located.location, tree, [index_tar(tree, tree.tar(t), fields) for t in located.scan.tars])[
            0
        ]


@pytest.fixture(params=KINDS)
def source(request, tmp_path) -> Source:
    system, url = None, ""
    if "memory" in request.param:
        system, url = pytest.importorskip("fsspec").filesystem("memory"), f"memory://{tmp_path.name}"
    elif "s3" in request.param:
        s3 = request.getfixturevalue("s3")
        system, url = s3.system, s3.fill(tmp_path)  # an empty bucket
    made = Source(request.param, tmp_path / "in", url, system)
    made.root.mkdir()
    made.rewrite(CONTENTS)
    return made


def test_stat_read_and_head_agree_in_any_order_and_in_another_process(source):
    storage = source.open()
    names = [*CONTENTS, "a/4", "b/0"]  # twice
    random.Random(0).shuffle(names)
    keys = [source.key(name) for name in names]
    for one in (storage, pickle.loads(pickle.dumps(storage))):
        contents = list(one.read(keys))
        assert [content.reason for content in contents] == [""] * len(keys)
        assert [content.data for content in contents] == [CONTENTS[name] for name in names]
        stat = one.stat(keys)
        assert stat.size_N.tolist() == [len(CONTENTS[name]) for name in names] == [c.size for c in contents]
        assert stat.mtime_ns_N.tolist() == [content.mtime_ns for content in contents]
        assert not stat.digest_N16.any()
        for count in (0, 1, 64, 1 << 20):
            assert [one.head(key, count) for key in keys] == [CONTENTS[name][:count] for name in names]
        digests = fingerprint_files(one, keys).digest_N16
        assert [row.tobytes() for row in digests] == [digest_of(CONTENTS[name]) for name in names]
    assert storage.location == (source.url or str(source.root))


def test_what_is_not_there_is_a_row_with_a_reason_among_the_others(source):
    storage = source.open()
    keys = [source.key(name) for name in ("a/9", "a/4", "zz/1")]
    assert storage.stat(keys).size_N.tolist() == [-1, 70_000, -1]
    contents = list(storage.read(keys))
    assert [content.reason for content in contents] == ["file not found", "", "file not found"]
    assert [(content.data, content.size) for content in contents[::2]] == [(b"", -1)] * 2
    assert contents[1].data == CONTENTS["a/4"]
    assert storage.head(keys[0], 8) == b""
    assert list(storage.read([])) == []
    assert len(storage.stat([]).size_N) == 0


def test_files_that_change_after_they_were_listed_give_a_reason_or_their_own_bytes_and_never_a_mixture(source):
    storage = source.open()
    before = storage.stat([source.key(name) for name in CONTENTS])
    changed = {**CONTENTS, "a/4": b"short", "a/3": CONTENTS["a/3"] + b"longer"}
    del changed["b/2"]
    source.rewrite(changed)
    for name, content in zip(CONTENTS, storage.read([source.key(name) for name in CONTENTS])):
        if content.reason:
            assert CHANGED in content.reason or "not found" in content.reason
            assert (content.data, content.size) == (b"", -1)
        else:
            assert content.data == changed[name]
            assert content.size == len(content.data)
        assert content.reason or name != "b/2"
    after = source.open().stat([source.key(name) for name in CONTENTS])
    differ = (after.size_N != before.size_N) | (after.mtime_ns_N != before.mtime_ns_N)
    assert differ[[list(CONTENTS).index(name) for name in ("a/3", "a/4", "b/2")]].all()


def test_a_file_above_the_limit_is_not_read(source, monkeypatch):
    monkeypatch.setattr("cleanctl.files.storage.READ_LIMIT", 600)
    storage = source.open()
    keys = [source.key(name) for name in ("a/3", "a/4", "a/5")]
    contents = list(storage.read(keys))
    assert [content.reason for content in contents] == ["", "too large: 70,000 bytes, the limit is 600", ""]
    assert [content.data for content in contents] == [CONTENTS["a/3"], b"", CONTENTS["a/5"]]
    assert storage.head(keys[1], 8) == CONTENTS["a/4"][:8]


def test_a_tree_lists_its_files_and_reads_spans_of_its_tars(source):
    tree = locate(source.url or str(source.root)).storage
    scan = tree.scan()
    if not source.in_tars:
        assert scan.keys == sorted(source.key(name) for name in CONTENTS)
        return
    assert (scan.keys, scan.tars) == ([], ("a.tar", "b.tar"))
    whole = {name: (source.root / name).read_bytes() for name in scan.tars}
    tars = {name: tree.tar(name) for name in scan.tars}
    assert {name: tar.size for name, tar in tars.items()} == {name: len(data) for name, data in whole.items()}
    draw = random.Random(0)
    spans = []
    for _ in range(40):
        name = draw.choice(scan.tars)
        start = draw.randrange(len(whole[name]) - 3000)
        spans.append(Span(tars[name], start, draw.randrange(1, 3000)))
    wanted = [whole[tar.name][start : start + size] for tar, start, size in spans]
    assert tree.read_spans(spans) == wanted
    with tree.open_tar(tars["a.tar"]) as pread:
        assert pread(512, 1000) == whole["a.tar"][512:1512]
    with pytest.raises((OSError, InputError)):
        tree.tar("c.tar")


# --- this machine's own oddities


@pytest.mark.timeout(120)
def test_a_pipe_a_socket_a_device_and_a_folder_are_reasons_and_nothing_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.jpg")
    Path("device.jpg").symlink_to("/dev/zero")
    Path("folder.jpg").mkdir()
    Path("fine.jpg").write_bytes(b"x")
    storage = locate(".").storage
    keys = ["pipe.jpg", "socket.jpg", "device.jpg", "folder.jpg", "fine.jpg", "nul\0.jpg"]
    reasons = [content.reason for content in storage.read(keys)]
    assert reasons[:3] == ["not a regular file"] * 3
    assert reasons[3:5] == ["a folder, not a file", ""]
    assert re.search("null (byte|character)", reasons[5])  # Python 3.13 calls it a character
    assert [storage.head(key, 4) for key in keys] == [b"", b"", b"", b"", b"x", b""]
    assert storage.stat(keys).size_N.tolist()[4:] == [1, -1]


def test_a_sparse_file_of_50_gb_is_a_failed_row(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(50 << 30)
    (content,) = locate(str(tmp_path)).storage.read(["x.jpg"])
    assert content.reason == "too large: 53,687,091,200 bytes, the limit is 1,073,741,824"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_says_so(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    (tmp_path / "x.jpg").chmod(0)
    (content,) = locate(str(tmp_path)).storage.read(["x.jpg"])
    assert content.reason == "no permission to read the file"
