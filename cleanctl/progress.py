"""How long work reports itself, without knowing who listens.

A stage takes a `Progress` and calls `track` around its loop and `note` for what a person should know (which path was
taken and why, what was skipped). Libraries never print: the command line passes a reporter that draws bars on a
terminal and lines in a log (`cleanctl.cli.console`), everything else gets `SILENT`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: int = 1) -> None: ...

    def describe(self, text: str) -> None:
        """A short changing remark beside the bar, e.g. `loss 1.21`."""

    def grow(self, total: int, done: int) -> None:
        """More work came to light: `total` units, `done` of which an earlier run left behind."""


class Progress(Protocol):
    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """Work of `total` units (None if unknown), `done` of which an earlier run left behind.

        The rate shown counts only what this run does.
        """
        ...

    def note(self, text: str) -> None:
        """A fact about the run: which path it took and why."""

    def warn(self, text: str) -> None:
        """Something a person should look at; the run goes on."""


class _SilentTask:
    def advance(self, amount: int = 1) -> None:
        pass

    def describe(self, text: str) -> None:
        pass

    def grow(self, total: int, done: int) -> None:
        pass


class _SilentProgress:
    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        yield _SilentTask()

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


SILENT: Progress = _SilentProgress()
