"""Stop signals in work that does not know of them: a Progress whose tasks end the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cleanctl.errors import InterruptedRun
from cleanctl.progress import Progress, Task
from cleanctl.runtime import StopFlag


class Stoppable:
    """A Progress whose tasks end with InterruptedRun after a stop signal: for long work that does not know of stops."""

    def __init__(self, progress: Progress, stop: StopFlag) -> None:
        self._stop = stop
        self.note, self.warn = progress.note, progress.warn
        self._track = progress.track

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        with self._track(title, total=total, unit=unit, done=done) as task:
            yield _StoppableTask(title, task, self._stop)


class _StoppableTask:
    def __init__(self, title: str, task: Task, stop: StopFlag) -> None:
        self._title, self._task, self._stop = title, task, stop
        self.describe, self.grow = task.describe, task.grow

    def advance(self, amount: int = 1) -> None:
        self._task.advance(amount)
        if self._stop:
            raise InterruptedRun(
                f"Stopped on request while {self._title}.",
                so="Everything embedded so far is in the store.",
                do="Run the same command again to go on.",
            )
