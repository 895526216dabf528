"""What a worker process tracks and notes, as messages that another process shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cleanctl.progress import Task

SEND_SECONDS = 0.2


class Sender:
    """A Progress whose listener is elsewhere. send: takes (kind, content), from any thread:

    ("note" | "warn", text), ("start", (title, total, unit, done)) and ("advance", (title, amount)).
    """

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        self._send = send

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        shared = title.partition(" ")[0] + " images" if title.startswith("packing") else title
        self._send("start", (shared, total or 0, unit, done))
        task = _SendingTask(self._send, shared)
        try:
            yield task
        finally:
            task.flush()

    def note(self, text: str) -> None:
        self._send("note", text)

    def warn(self, text: str) -> None:
        self._send("warn", text)


class _SendingTask:
    def __init__(self, send: Callable[[str, Any], None], title: str) -> None:
        self._send, self._title = send, title
        self._count, self._since = 0, time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._count += amount
        if time.monotonic() - self._since >= SEND_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._send("advance", (self._title, self._count))
        self._count, self._since = 0, time.monotonic()

    def describe(self, text: str) -> None:
        pass

    def grow(self, total: int, done: int) -> None:
        self._send("start", (self._title, total, "", done))
