"""What `reproduce` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.text import Text

from cleanctl.cli.tables.shared import Summary, new_table
from cleanctl.results import Cell, ReproduceReport
from cleanctl.results.reproduce import statistics

IN_SHARES = ("auc", "auc-scaled")  # shown as 0.950, others in per cent


def reproduce_tables(record: ReproduceReport) -> list[Any]:
    """A table a column of the published one; below them what is missing, grouped by reason."""
    shown: list[Any] = [Text(f"{record.table}: {record.title}  ({record.source})", style="bold")]
    for column in dict.fromkeys(cell.column for cell in record.cells):
        shown.append(_column([cell for cell in record.cells if cell.column == column]))
    if any(cell.measured and cell.measured.best and cell.measured.best_on_test for cell in record.cells):
        shown.append(Text("* best chosen on the test set, which flatters", style="yellow"))
    for state, title in (("failed", "Failed"), ("missing", "Missing"), ("not-run", "Not run here")):
        shown += _reasons(title, [cell for cell in record.cells if cell.state == state])
    shown += [Text(f"Note: {note}", style="dim") for note in record.notes]
    return [*shown, _summary(record)]


def _summary(record: ReproduceReport) -> Summary:
    states = [cell.state for cell in record.cells]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    said = [f"{escape(record.table)}: {', '.join(counts)}."]
    said += [f"Written: {escape(str(file))}" for file in record.files]
    run = f"cleanctl reproduce {record.table} --data DIR --models DIR"
    return Summary(tuple(said), (run,) if {"missing", "ready"} & set(states) else ())


def _column(cells: list[Cell]) -> Any:
    first, measures = cells[0], {cell.measure for cell in cells}
    table = new_table(
        f"{first.column_title}, {' or '.join(sorted(measures))} on {first.split}",
        "row",
        "published",
        "last",
        "best",
        "runs",
    )
    for cell in cells:
        published = "–" if cell.published is None else _value(cell, cell.published, cell.spread)
        table.add_row(Text(cell.row_title), published, *_ours(cell))
    return table


def _ours(cell: Cell) -> tuple[str, str, str]:
    """(last, best, number of runs); a word where there is no number."""
    measured = cell.measured
    if measured is None:
        return {"not-run": "not run here", "ready": "ready"}.get(cell.state, cell.state), "", ""
    last, best = (statistics(measured, which) for which in ("last", "best"))
    star = "*" if measured.best_on_test else ""
    shown = "–" if best[0] is None else _value(cell, *best) + star
    return _value(cell, *last), shown, f"{len(measured.seeds)}"


def _value(cell: Cell, value: float | None, deviation: float | None) -> str:
    if value is None:
        return "–"
    digits, factor = (3, 1) if cell.measure in IN_SHARES else (2, 100)
    return f"{factor * value:.{digits}f}" + ("" if deviation is None else f" ±{factor * deviation:.{digits}f}")


def _reasons(title: str, cells: list[Cell]) -> list[Any]:
    """Each reason once, with the cells that share it."""
    by_reason: dict[str, list[str]] = {}
    for cell in cells:
        by_reason.setdefault(cell.reason, []).append(cell.name)
    return [
        Text(f"{title}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}: {reason}")
        for reason, names in by_reason.items()
    ]
