"""What a shell may give instead of a terminal: closed streams, full disks, encodings without our letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cleanctl.api import import_arrays
from cleanctl.config import ImportConfig
from cleanctl.store import Store

KEYS = ("épée.jpg", "hund.jpg", "=1+1.jpg", "猫.jpg")
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def work(tmp_path):
    """A store of sixty vectors of two classes, in a folder of its own."""
    rng = np.random.default_rng(0)
    image_ND = rng.normal(size=(60, 8)).astype("float32")
    np.save(tmp_path / "x.npy", image_ND)
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    np.save(tmp_path / "t.npy", image_ND[:2])
    np.save(tmp_path / "c.npy", np.arange(2))
    (tmp_path / "names.txt").write_text("épée\nhund\n", encoding="utf-8")
    (tmp_path / "keys.txt").write_text("\n".join([*KEYS, *(f"{n}.jpg" for n in range(56))]), encoding="utf-8")
    import_arrays(
        ImportConfig(
            image_embeddings=tmp_path / "x.npy", labels=tmp_path / "y.npy", text_embeddings=tmp_path / "t.npy",
            text_classes=tmp_path / "c.npy", classes=tmp_path / "names.txt", keys=tmp_path / "keys.txt",
        ),
        store=tmp_path / "cleanctl.zarr",
    )  # fmt: skip
    return tmp_path


def shell(line, cwd, **more):
    """The line with $C for the command."""
    environment = {**os.environ, "C": f"{sys.executable} -m cleanctl", **more}
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment, capture_output=True)


SELECT = "$C select --strategy zeroshot.match --name one"


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_of_the_work(closed, work):
    done = shell(f"{SELECT} {closed}", work)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert "one" in Store.open(work / "cleanctl.zarr").split("train").results("selections")


@pytest.mark.parametrize("words", [SELECT, f"{SELECT} --json", "$C --help"])
def test_a_full_stdout_is_told_in_words(words, work):
    done = shell(f"{words} > /dev/full", work)
    assert done.returncode == 4
    assert b"Standard output cannot be written: No space left on device." in done.stderr
    assert b"Traceback" not in done.stderr
    if "select --s" in words:
        assert "one" in Store.open(work / "cleanctl.zarr").split("train").results("selections")


def test_a_log_on_a_full_disk_ends_no_work(work):
    done = shell(f"{SELECT} 2> /dev/full", work)
    assert done.returncode == 0
    assert b"Selection one keeps" in done.stdout


def test_a_result_is_shown_in_the_letters_that_the_stream_has(work):
    done = shell(f"{SELECT} && $C status", work, **ASCII)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert done.stderr.isascii()
    assert b"\\xe9p\\xe9e" in done.stdout, "a class name in escapes"
    assert b"+ zero-shot" in done.stderr, "a mark by a letter that is there"


def test_json_is_json_in_any_encoding(work):
    plain = shell(f"{SELECT} --json", work, **ASCII)
    wide = shell(f"{SELECT} --json", work, PYTHONIOENCODING="utf-8")
    assert plain.stdout.isascii()
    assert "épée" in wide.stdout.decode()
    one, other = json.loads(plain.stdout), json.loads(wide.stdout)
    assert one["classes"] == other["classes"]
    wrong = shell("$C status --json --store é.zarr", work, **ASCII)
    assert wrong.returncode == 4
    assert json.loads(wrong.stdout)["error"]["found"].startswith("There is no store at")
