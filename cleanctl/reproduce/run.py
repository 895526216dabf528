"""`reproduce`: a published table → each of its values beside what is measured here, and figures drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from cleanctl.config import ReproduceConfig
from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.reproduce.cells import Verbs, Workshop
from cleanctl.reproduce.figures import draw_auc, draw_sweep, require_matplotlib
from cleanctl.reproduce.tables import Column, Row, load_table
from cleanctl.results import Cell, ReproduceReport

FIGURES: dict[str, Callable[[tuple[Cell, ...], Path], list[Path]]] = {"figure3": draw_sweep, "figure4": draw_auc}


def reproduce_table(config: ReproduceConfig, verbs: Verbs, *, progress: Progress = SILENT) -> ReproduceReport:
    """Runs, or resumes, the rows whose data, weights and methods are here; the others say what they lack.

    Raises UsageError for rows that the table does not have, MissingPackageError for a figure without matplotlib.
    """
    drawing = FIGURES.get(config.table)
    if drawing is not None and not config.dry_run:
        require_matplotlib()
    table = load_table(config.table)
    chosen = _chosen(list(table.pairs()), config)
    shop = Workshop(config, verbs, progress)
    cells = []
    with progress.track(f"Reproducing {config.table}", total=len(chosen), unit="values") as task:
        for row, column in chosen:
            cells.append(shop.cell(row, column))
            task.advance()
    files = drawing(tuple(cells), config.out / config.scale) if drawing is not None and not config.dry_run else []
    notes = list(table.notes)
    if config.scale == "small":
        notes.insert(0, "--scale small: small copies, short runs, a small network; the measured numbers mean nothing.")
    if config.model is not None:
        notes.insert(0, f"The encoder of every row is {config.model}, not the published one.")
    return ReproduceReport(
        table=config.table,
        title=table.title,
        source=table.source,
        scale=config.scale,
        notes=tuple(notes),
        cells=tuple(cells),
        files=tuple(map(str, files)),
    )


def _chosen(pairs: list[tuple[Row, Column]], config: ReproduceConfig) -> list[tuple[Row, Column]]:
    """Those that a pattern of `--rows` takes, by the row's name or by row/column."""
    for pattern in config.rows:
        if not any(_takes(pattern, row, column) for row, column in pairs):
            names = ", ".join(dict.fromkeys(row.id for row, _ in pairs))
            raise UsageError(f"--rows is {pattern!r}, which no row of {config.table} is.", do=f"Its rows are: {names}.")
    return [pair for pair in pairs if not config.rows or any(_takes(pattern, *pair) for pattern in config.rows)]


def _takes(pattern: str, row: Row, column: Column) -> bool:
    wanted, _, place = pattern.lower().partition("/")
    return fnmatchcase(row.id.lower(), wanted) and fnmatchcase(column.id.lower(), place or "*")
