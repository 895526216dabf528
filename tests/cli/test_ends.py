"""A command's process ends when its work is told: nothing that a library clears up keeps it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

TRIES = 3  # another process may hold up one of them, but not all
SHARE = 0.15  # of the time until the last line: on a busy machine everything takes longer


def seconds_after_the_last_line(command, cwd):
    """(those seconds, the seconds before)"""
    began = time.monotonic()
    started = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with started as process:
        told, last = b"", time.monotonic()
        while part := os.read(process.stdout.fileno(), 1 << 16):
            told, last = told + part, time.monotonic()
        process.wait(timeout=60)
        seconds = time.monotonic() - last
    assert process.returncode == 0, told.decode()
    assert told
    return seconds, last - began


@pytest.mark.parametrize("verb", ["--help", "doctor", "embed"])
def test_a_process_ends_within_a_second_of_its_last_line(verb, tmp_path, tiny_model, web_folder):
    words = [verb]
    if verb == "embed":
        words += [str(web_folder), "--model", f"local-dir:{tiny_model}", "--prompts", "photo"]
    seconds = []
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        after, before = seconds_after_the_last_line([sys.executable, "-m", "cleanctl", *words], folder)
        if after < max(1.0, SHARE * before):
            return
        seconds.append(after)
    raise AssertionError(f"{verb} took {seconds} s to end")
