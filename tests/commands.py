"""Whole commands as processes of their own, without the seconds in which each would load torch and open_clip.

They are forked from one process a test session (multiprocessing's fork server) that has loaded the libraries and never
computes. What a command does as it is imported is for tests that start a fresh interpreter: test_runtime.py,
cli/test_light.py, cli/test_ends.py.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("command_child.py")
LOADED = ["pytest", "torch", "torch._dynamo", "torchvision", "open_clip", "cleanctl.cli", "cleanctl.api"]
LOADED += ["cleanctl.embed.embed", "cleanctl.images.torch_loader", "cleanctl.train.run", "cleanctl.adapt.run"]


def fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


class Command:
    """As subprocess.Popen(["python", *words], text=True), both outputs being pipes, and no input."""

    def __init__(self, *words: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        context = fork_server()
        pipes = [os.pipe(), os.pipe()]
        theirs = [Connection(write, readable=False) for _, write in pipes]
        given = {
            "WORDS": [str(word) for word in words],
            "FOLDER": str(cwd or Path.cwd()),
            "ENVIRONMENT": dict(os.environ if env is None else env),
            "OUTPUTS": theirs,
        }
        self._process = context.Process(target=runpy.run_path, args=(str(CHILD), given))
        self._process.start()
        for one in theirs:
            one.close()
        self.stdout, self.stderr = (os.fdopen(read, encoding="utf-8") for read, _ in pipes)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("command", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        told = {}
        readers = [
            threading.Thread(target=lambda name=name: told.update({name: getattr(self, name).read()}), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return told["stdout"], told["stderr"]

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is not None:
            self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()


def run(*words: Any, timeout: float | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """As subprocess.run(["python", *words], capture_output=True, text=True)."""
    with Command(*words, **more) as command:
        out, err = command.communicate(timeout)
        return subprocess.CompletedProcess(list(words), command.wait(), out, err)
