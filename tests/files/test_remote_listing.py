"""A listing behind a URL is what lies there, asked for part by part, and no object is held for each file."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cleanctl.files.remote_listing import list_remote


class Tree:
    """fsspec's calls for a tree of files that exists in name only; remembers what was asked."""

    async_impl = False

    def __init__(self, classes, images, *, splits=("train", "val")):
        self.classes, self.images, self.splits = classes, images, splits
        self.asked = []

    def invalidate_cache(self, path=None):
        pass

    def exists(self, path):
        return bool(self.splits)

    def ls(self, path, *, detail):
        assert detail
        self.asked.append(("ls", path))
        below = {"b": self.splits, "b/train": self.classes, "b/val": self.classes[:1]}.get(path)
        if below is None:
            return list(self.files_of(path).values())
        folders = [{"name": f"{path}/{name}", "type": "directory", "size": 0} for name in (*below, ".hidden")]
        return [*folders, {"name": f"{path}/.x.jpg", "type": "file", "size": 3, "ETag": "1"}]

    def find(self, path, *, detail):
        assert detail
        self.asked.append(("find", path))
        return self.files_of(path)

    def files_of(self, path):
        names = [f"{path}/{number:09d}.jpg" for number in reversed(range(self.images))]
        return {
            name: {
                "name": name,
                "Key": name,
                "type": "file",
                "size": len(name),
                "ETag": f'"{name}"',
                "StorageClass": "S",
            }
            for name in names
        }


def prints(infos):
    return [(info["size"], int(re.sub(r"\D", "", info["ETag"]) or 0)) for info in infos.values()]


def names(count):
    return [f"n{number:05d}" for number in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("at_once", [False, True])
def test_classes_are_asked_for_whole_and_what_lies_above_them_alone(threads, at_once):
    tree = Tree(names(40), 5)
    tree.async_impl = at_once
    found = list_remote(tree, "b", prints, threads=threads)
    train = [f"train/n{k:05d}/{number:09d}.jpg" for k in range(40) for number in range(5)]
    val = [f"val/n00000/{number:09d}.jpg" for number in range(5)]
    assert found.keys.tolist() == train + val
    size_2, fingerprint_2 = found.of(["val/n00000/000000004.jpg", "train/none.jpg"])
    assert size_2.tolist() == [len("b/val/n00000/000000004.jpg"), -1]
    assert fingerprint_2.tolist() == [4, 0]
    assert {path for what, path in tree.asked if what == "ls"} == {"b", "b/train", "b/val", "b/val/n00000"}
    assert sorted(path for what, path in tree.asked if what == "find") == [f"b/train/{name}" for name in names(40)]


@pytest.mark.parametrize(("count", "whole"), [(15, False), (16, True)])
def test_few_folders_beside_one_another_are_looked_into_and_many_are_taken_whole(count, whole):
    tree = Tree(names(count), 2)
    assert len(list_remote(tree, "b", prints, threads=1).keys) == 2 * (count + 1)
    assert sum(what == "find" for what, _ in tree.asked) == (count if whole else 0)


class Chain(Tree):
    """A folder in a folder in a folder, one file in each."""

    def ls(self, path, *, detail):
        self.asked.append(("ls", path))
        return [{"name": f"{path}/f", "type": "directory", "size": 0}, *self.files_of(path).values()]


def test_folders_are_looked_into_three_levels_deep_and_what_lies_deeper_is_taken_whole():
    tree = Chain([], 1)
    found = list_remote(tree, "b", prints, threads=1)
    assert found.keys.tolist() == [f"{'f/' * level}000000000.jpg" for level in range(5)]
    assert tree.asked[-2:] == [("ls", "b/f/f/f"), ("find", "b/f/f/f/f")]


def test_nothing_there_is_told_from_an_empty_listing():
    with pytest.raises(FileNotFoundError, match="nothing at b"):
        list_remote(Tree([], 0, splits=()), "b", prints, threads=1)
    assert not list_remote(Tree([], 0, splits=("train",)), "b", prints, threads=1).keys


def peak_mib():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


CHILD = """
    import sys
    import pyarrow.compute
    sys.path.insert(0, {here!r})
    from test_remote_listing import Tree, names, peak_mib, prints
    from cleanctl.files.remote_listing import list_remote
    list_remote(Tree(names(20), 100), "b", prints, threads=2)
    before = peak_mib()
    found = list_remote(Tree(names(400), 1_000), "b", prints, threads=2)
    assert len(found.keys) == len(found.scan().keys) == 401_000
    print(peak_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_file_takes_its_name_and_some_numbers():
    child = textwrap.dedent(CHILD.format(here=str(Path(__file__).parent)))
    run = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # 32 bytes of a key, 24 of its numbers, as much again while they are sorted, and blocks of strings: 71 MiB. Dicts
    # took 234.
    assert float(run.stdout) < 115
