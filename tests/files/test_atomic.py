"""Promises of the one atomic writer, with real files, processes and kills."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading

import pytest

from cleanctl.errors import StoreError
from cleanctl.files import atomic
from cleanctl.files.atomic import replacing, write_file

KILLED = """
import itertools, os, sys
from pathlib import Path
from cleanctl.files.atomic import {name}
path = Path(sys.argv[1])
for number in itertools.count():
    data = str(number % 10).encode() * 100_000
    if "{name}" == "write_file":
        write_file(path, data)
    else:
        with replacing(path) as part:
            part.write_bytes(data)
    print(number, flush=True)
"""


@pytest.mark.parametrize("name", ["write_file", "replacing"])
def test_a_file_is_whole_while_its_writer_is_killed_again_and_again(tmp_path, name):
    path = tmp_path / "a.bin"
    for kill in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED.format(name=name), str(path)], stdout=subprocess.PIPE
        ) as child:
            for _ in range(4 + kill):
                child.stdout.readline()
                data = path.read_bytes()
                assert len(data) == 100_000
                assert len(set(data)) == 1
            child.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == 100_000
        assert len(set(data)) == 1


def test_the_next_writer_removes_what_dead_processes_of_this_host_left_and_nothing_else(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host, dead = platform.node(), done.stdout.strip()
    gone = [f".a.csv.{host}.{dead}.00.partial", f".a.csv.{host}.{os.getpid()}.00.partial"]
    kept = [
        f".a.csv.{host}.{os.getppid()}.00.partial",
        f".a.csv.elsewhere.{dead}.00.partial",
        f".b.csv.{host}.{dead}.00.partial",
    ]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"rest")
    with replacing(tmp_path / "a.csv") as outer:
        outer.write_bytes(b"outer")
        with replacing(tmp_path / "a.csv") as inner:
            inner.write_bytes(b"inner")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "a.csv"])
    assert (tmp_path / "a.csv").read_bytes() == b"outer"


def test_writers_of_one_file_at_the_same_time_do_not_disturb_each_other(tmp_path):
    errors = []

    def write(letter):
        try:
            for _ in range(30):
                with replacing(tmp_path / "a") as part:
                    part.write_bytes(letter * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (tmp_path / "a").read_bytes() in (b"a" * 1000, b"b" * 1000, b"c" * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_file(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_bytes(b"half" * (1 // 0))
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(StoreError, match=r"No space left .* Free some space"):
        write_file(path, b"new")
    with pytest.raises(OSError, match="No space left"), replacing(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_exclusive_never_replaces(tmp_path):
    write_file(tmp_path / "a", b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", b"second", exclusive=True)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    write_file(tmp_path / ("n" * 255), b"data")
    with replacing(tmp_path / ("ü" * 127)) as part:
        part.write_bytes(b"data")
    assert all(path.read_bytes() == b"data" for path in tmp_path.iterdir())
