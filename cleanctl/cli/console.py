"""What a person sees: bars on a terminal, lines in a log, errors in three parts. All of it goes to stderr.

stdout belongs to results: tables for people, or with `--json` one JSON object and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import typer

from cleanctl.cli.streams import in_utf8, telling
from cleanctl.errors import CleanctlError
from cleanctl.progress import SILENT, Progress, Task

if TYPE_CHECKING:
    from rich.console import Console

LOG_SECONDS = 5.0


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 90:
        return f"{minutes} min {int(seconds % 60):02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(count: float, seconds: float, unit: str) -> str:
    per_second = count / max(seconds, 1e-9)
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{per_second:.1f} {unit}/s"


class _Counter:
    """What both reporters count of a task; `done` came from an earlier run and is left out of the rate."""

    def __init__(self, title: str, total: int | None, unit: str, done: int) -> None:
        self.title, self.total, self.unit, self.before = title, total, unit, done
        self.count = 0
        self.remark = ""
        self.started = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self.count += amount

    def describe(self, text: str) -> None:
        self.remark = text

    def grow(self, total: int, done: int) -> None:
        self.total = (self.total or 0) + total
        self.before += done

    def line(self) -> str:
        seconds = time.monotonic() - self.started
        here = self.before + self.count
        parts = [f"{self.title}: {here:,}" + (f" of {self.total:,}" if self.total else "") + f" {self.unit}"]
        if self.count:
            parts.append(rate(self.count, seconds, self.unit))
            if self.total and here < self.total:
                parts.append(f"{duration((self.total - here) * seconds / self.count)} left")
        if self.remark:
            parts.append(self.remark)
        return ", ".join(parts)

    def closing(self) -> str:
        seconds = time.monotonic() - self.started
        text = f"{self.title}: {self.before + self.count:,} {self.unit} in {duration(seconds)}"
        if self.before:
            text += f" ({self.before:,} were there)"
        if self.count and seconds > 0.5:
            text += f", {rate(self.count, seconds, self.unit)}"
        return text + (f", {self.remark}" if self.remark else "")


class _LogTask(_Counter):
    """A line every few seconds."""

    def __init__(self, title: str, total: int | None, unit: str, done: int, console: Console) -> None:
        super().__init__(title, total, unit, done)
        self._console = console
        self._last = self.started

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            self._console.print(self.line(), soft_wrap=True)


class _BarTask(_Counter):
    """A bar of rich."""

    def __init__(self, title: str, total: int | None, unit: str, done: int, bar: Any) -> None:
        super().__init__(title, total, unit, done)
        self._bar = bar
        self._id = bar.add_task(title, total=total, completed=done, text="")

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        seconds = time.monotonic() - self.started
        text = rate(self.count, seconds, self.unit)
        if self.total:
            text += f", {duration((self.total - self.before - self.count) * seconds / max(self.count, 1))} left"
        self._bar.update(self._id, completed=self.before + self.count, text=text)

    def grow(self, total: int, done: int) -> None:
        super().grow(total, done)
        self._bar.update(self._id, total=self.total, completed=self.before + self.count)

    def describe(self, text: str) -> None:
        super().describe(text)
        self._bar.update(self._id, description=f"{self.title} [dim]{text}[/dim]")


class ConsoleProgress:
    """Reports to a console; bars if it is a terminal, else lines."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def track(self, title: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        task = None
        mark = "[yellow]…[/yellow]"  # stays if an exception cuts the work short
        try:
            with self._task(title, total, unit, done) as task:
                yield task
            mark = "[green]✓[/green]"
        finally:
            if task is not None:
                self._console.print(f"{mark} {task.closing()}", soft_wrap=True, highlight=False)

    @contextmanager
    def _task(self, title: str, total: int | None, unit: str, done: int) -> Iterator[_Counter]:
        if not self._console.is_terminal:
            yield _LogTask(title, total, unit, done, self._console)
            return
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("[dim]{task.fields[text]}"))
        with RichProgress(*columns, console=self._console, transient=True, expand=True) as bar:
            yield _BarTask(title, total, unit, done, bar)

    def note(self, text: str) -> None:
        self._console.print(f"[dim]· {_plain(text)}[/dim]", soft_wrap=not self._console.is_terminal, highlight=False)

    def warn(self, text: str) -> None:
        self._console.print(
            f"[yellow]![/yellow] {_plain(text)}", soft_wrap=not self._console.is_terminal, highlight=False
        )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


class Showable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Run:
    """One invocation of a verb: where progress goes and how its result is shown.

    store: what --store said, if it did: the commands that the summary names go on with it. of_store: the verb works on
    a store.
    """

    progress: Progress
    as_json: bool
    quiet: bool
    store: str | None = None
    of_store: bool = False

    def result(self, record: Showable, *, shown: Any) -> None:
        """The verb's result: `record` as JSON, or the rich renderables of `shown` for a person.

        The last of them is the summary: a Summary, or a text, of which `Next: COMMAND` at its end is what to type next.
        """
        with telling():
            if self.as_json:
                _print_json(record.to_json())
            elif not self.quiet:
                self._show(shown)

    def _show(self, shown: Any) -> None:
        from cleanctl.cli.tables.shared import closed

        console = out_console()
        for item in closed(shown, store=self.store, of_store=self.of_store):
            console.print(item, highlight=False)


def _print_json(values: dict[str, Any]) -> None:
    """One line on stdout; what the stream's encoding lacks becomes a JSON escape, as do bytes of a file's name that are
    no text (lone surrogates)."""
    text = json.dumps(values, default=str, ensure_ascii=not in_utf8(sys.stdout))
    print(text.encode(errors="backslashreplace").decode())  # noqa: T201  stdout is the result's place


def out_console() -> Console:
    from rich.console import Console

    class Out(Console):
        def on_broken_pipe(self) -> None:
            """rich would end the process with 1; whoever reads no further, as `| head` does, is content."""
            raise BrokenPipeError

    return Out(soft_wrap=not sys.stdout.isatty())


def err_console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def fail(error: CleanctlError, *, as_json: bool) -> None:
    """The error for a person on stderr, and with --json as one object on stdout."""
    _show_error(err_console(), error)
    if as_json:
        parts = {"found": error.found, "so": error.so, "do": error.do, "exit_code": error.exit_code}
        with suppress(OSError):  # stdout may be what failed
            _print_json({"error": parts})


@contextmanager
def running(
    *, as_json: bool, quiet: bool, debug: bool, store: str | None = None, of_store: bool = False
) -> Iterator[Run]:
    """A verb's body: errors become their three parts and an exit code, never a traceback unless `debug`."""
    console = err_console()
    progress: Progress = SILENT if quiet else ConsoleProgress(console)
    try:
        yield Run(progress, as_json, quiet, store, of_store)
    except CleanctlError as error:
        if debug:
            traceback.print_exc()
        fail(error, as_json=as_json)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        console.print("[bold red]interrupted[/bold red]: what was finished is kept; run the same command to go on.")
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        sys.stderr.close()  # the reader of our pipe went away, as `| head` does
        raise typer.Exit(0) from error


def _show_error(console: Console, error: CleanctlError) -> None:
    """Indented on a terminal, as far as it is wide; in a log each part is one line."""
    from rich.padding import Padding

    word, on_terminal = "stopped" if error.exit_code == 130 else "error", console.is_terminal
    console.print(f"[bold red]{word}[/bold red]: {_plain(error.found)}", highlight=False, soft_wrap=not on_terminal)
    for part in filter(None, (error.so, error.do)):
        if on_terminal:
            console.print(Padding(_plain(part), (0, 0, 0, 2)), highlight=False)
        else:
            console.print(f"  {_plain(part)}", highlight=False, soft_wrap=True)
