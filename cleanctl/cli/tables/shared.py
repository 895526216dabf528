"""What all tables share: their look at 80 columns, and numbers as text."""

from __future__ import annotations

from rich.table import Table

SHOWN_CLASSES = 40


def new_table(title: str, *columns: str) -> Table:
    """The first column is text on the left, the others are numbers on the right."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", overflow="fold", no_wrap=place > 0)
    return table


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
