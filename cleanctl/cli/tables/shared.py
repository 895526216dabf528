"""What all tables share: their look at 80 and 40 columns, numbers as text, and the summary that a verb ends with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from cleanctl.cli.complete import came_as_arrays
from cleanctl.cli.folding import fold
from cleanctl.paths import store_path

SHOWN_CLASSES = 40
LEAST_TEXT = 16  # columns that a column of text keeps beside those of numbers; with less the table becomes a list
WIDEST_RULE = 100


class FittedTable(Table):
    """A table that becomes a list, a row under another, where its numbers would be cut off.

    Its title has the whole width; rich would fold it at the table's own.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        if self.title:
            yield _text(self.title, "bold")
        if self._least_width() <= options.max_width:
            untitled = copy(self)
            untitled.title = None
            yield from Table.__rich_console__(untitled, console, options)
            return
        for row in zip(*(list(column.cells) for column in self.columns)):
            yield _text(row[0], "bold" if len(self.columns) > 2 else "")
            for column, cell in zip(self.columns[1:], row[1:]):
                header = str(column.header)
                if cell != "":
                    yield _text(f"  {header}: {cell}" if header else f"  {cell}")

    def _least_width(self) -> int:
        widths = []
        for column in self.columns:
            width = max((cell_len(_text(cell).plain) for cell in (column.header, *column.cells)), default=0)
            widths.append(width if column.no_wrap else min(width, LEAST_TEXT))
        return sum(widths) + 2 * (len(widths) - 1)


def _text(content: Any, style: str = "") -> Text:
    return content if isinstance(content, Text) else Text.from_markup(str(content), style=style)


def new_table(title: str, *columns: str) -> Table:
    """The first column is text on the left, the others are numbers on the right."""
    table = FittedTable(title=title, header_style="dim", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", overflow="fold", no_wrap=place > 0)
    return table


@dataclass(frozen=True)
class Summary:
    """The end of what a verb tells: what came of it, in a few lines of rich's markup, and what to type next.

    Between two lines on a terminal; a log and a pipe get the words alone. Commands can be copied: a terminal that is
    narrower than one gets it folded by backslashes, and everything else on one line.
    """

    said: tuple[str, ...]
    following: tuple[str, ...] = ()

    def for_store(self, store: str | None) -> Summary:
        """The same where a person named the store by --store: what follows needs it again."""
        if store is None:
            return self
        more = f" --store {shlex.quote(store)}"
        named = (f"{one}{more}" if _takes_store(one) else one for one in self.following)
        return replace(self, following=tuple(named))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        rule = Text("─" * min(options.max_width, WIDEST_RULE), style="dim", no_wrap=True, overflow="crop")
        if console.is_terminal:
            yield rule
        for line in self.said:
            yield Text.from_markup(line)
        if self.following:
            yield from self._commands(options.max_width if console.is_terminal else None)
        if console.is_terminal:
            yield rule

    def _commands(self, width: int | None) -> Iterator[Text]:
        alone = len(self.following) == 1
        if not alone:
            yield Text("Next:")
        for command in self.following:
            indent = "Next: " if alone else "  "
            pieces = [command] if width is None else fold(command, width=width - len(indent))
            for number, piece in enumerate(pieces):
                before = indent if number == 0 else "    "
                yield Text(before, no_wrap=True, overflow="ignore").append(piece, style="bold cyan")


def closed(shown: Any, *, store: str | None, of_store: bool) -> list[Any]:
    """What a verb shows, with a Summary at its end; a verb that works on a store and names nothing goes to status."""
    items = list(shown) if isinstance(shown, list | tuple) else [shown]
    if items and isinstance(items[-1], str):
        said, _, following = items.pop().partition("Next: ")
        items.append(Summary((said.strip(),), (following.strip(),) if following else ()))
    if items and isinstance(items[-1], Summary):
        summary = items.pop()
        if of_store and came_as_arrays(store_path(store)):
            possible = [one for one in summary.following if not one.startswith("cleanctl train")]
            changed = len(possible) < len(summary.following)
            summary = replace(
                summary, following=(*possible, "cleanctl export clean.csv") if changed else tuple(possible)
            )
        if of_store and not summary.following:
            summary = replace(summary, following=("cleanctl status",))
        items.append(summary.for_store(store))
    return items


def _takes_store(command: str) -> bool:
    words = command.split()
    return words[:1] == ["cleanctl"] and words[1:2] != ["prompts"] and "--store" not in words


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
