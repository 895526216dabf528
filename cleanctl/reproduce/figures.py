"""Figures 3 and 4 of CLIPCleaner, drawn from the values of a report: a CSV, a PNG and an SVG each.

matplotlib comes with the extra `figures`; it draws into files, without a display.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cleanctl.errors import MissingPackageError
from cleanctl.files.atomic import write_file
from cleanctl.results import Cell
from cleanctl.results.reproduce import statistics

FORMATS = ("png", "svg")
_SWEEP = re.compile(r"r([\d.]+)-rr([\d.]+)")


def require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError.of("matplotlib", extra="figures", needed_for="drawing figures")


def draw_sweep(cells: tuple[Cell, ...], folder: Path) -> list[Path]:
    """Figure 3: top-1 by θ_r and θ_r′, a panel a noise rate; published values above, measured ones below."""
    rows = []
    for cell in cells:
        found = _SWEEP.fullmatch(cell.row)
        assert found is not None
        rows.append([cell.column, float(found[1]), float(found[2]), *_numbers(cell)])
    file = _write_csv(folder / "figure3.csv", ["setting", "theta_r", "theta_r_prime", *NUMBERS], rows)
    return [file, *_draw("figure3", folder, lambda plot: _sweep_panels(plot, cells))]


def draw_auc(cells: tuple[Cell, ...], folder: Path) -> list[Path]:
    """Figure 4: the ROC-AUC of each scorer, mechanism and encoder, a panel a setting."""
    rows = [[cell.column, *(part.strip() for part in cell.row_title.split(",")), *_numbers(cell)] for cell in cells]
    header = ["setting", "encoder", "scorer", "mechanism", *NUMBERS]
    file = _write_csv(folder / "figure4.csv", header, rows)
    return [file, *_draw("figure4", folder, lambda plot: _auc_panels(plot, cells))]


NUMBERS = ["published", "last", "last_deviation", "best", "best_deviation", "seeds", "state"]


def _numbers(cell: Cell) -> list[Any]:
    """A value that is not there stays empty."""
    if cell.measured is None:
        return [cell.published, None, None, None, None, 0, cell.state]
    found = [*statistics(cell.measured, "last"), *statistics(cell.measured, "best")]
    return [cell.published, *found, len(cell.measured.seeds), cell.state]


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    write_file(path, text.getvalue().encode())
    return path


def _draw(name: str, folder: Path, panels: Any) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    panels(figure)
    files = []
    for kind in FORMATS:
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        write_file(folder / f"{name}.{kind}", data.getvalue())
        files.append(folder / f"{name}.{kind}")
    return files


def _sweep_panels(figure: Any, cells: Sequence[Cell]) -> None:
    """A heat map for each noise rate and source; a value that is not there is blank."""
    import numpy as np

    columns = list(dict.fromkeys((cell.column, cell.column_title) for cell in cells))
    low, high = (sorted({_SWEEP.fullmatch(cell.row)[part] for cell in cells}) for part in (1, 2))  # type: ignore[index]
    figure.set_size_inches(3.2 * len(columns), 6)
    axes = figure.subplots(2, len(columns), squeeze=False)
    for place, (column, title) in enumerate(columns):
        grids = [np.full((len(low), len(high)), np.nan) for _ in range(2)]
        for cell in (cell for cell in cells if cell.column == column):
            found = _SWEEP.fullmatch(cell.row)
            assert found is not None
            at = low.index(found[1]), high.index(found[2])
            measured = None if cell.measured is None else statistics(cell.measured, "last")[0]
            for grid, value in zip(grids, (cell.published, measured)):
                grid[at] = np.nan if value is None else 100 * value
        for line, (grid, source) in enumerate(zip(grids, ("published", "measured, last epoch"))):
            panel = axes[line][place]
            panel.imshow(grid, cmap="viridis", aspect="auto")
            for (i, j), value in np.ndenumerate(grid):
                panel.text(j, i, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color="white",
                           bbox={"facecolor": "black", "alpha": 0.4, "linewidth": 0, "pad": 1.5})  # fmt: skip
            panel.set_title(f"{title}\n{source}", fontsize=9)
            panel.set_xticks(range(len(high)), high)
            panel.set_yticks(range(len(low)), low)
            panel.set_xlabel("θ_r′ (relabel)")
            panel.set_ylabel("θ_r (absorb)")


def _auc_panels(figure: Any, cells: Sequence[Cell]) -> None:
    """Horizontal bars in the order of the rows; the axis starts where chance is."""
    columns = list(dict.fromkeys((cell.column, cell.column_title) for cell in cells))
    rows = list(dict.fromkeys(cell.row_title for cell in cells))
    figure.set_size_inches(7, 0.28 * len(rows) * len(columns) + 1.5)
    axes = figure.subplots(len(columns), 1, squeeze=False)
    for panel, (column, title) in zip(axes[:, 0], columns):
        found = {cell.row_title: cell.measured.last[0] for cell in cells if cell.column == column and cell.measured}
        for place, name in enumerate(rows):
            value = found.get(name)
            if value is not None:
                panel.barh(place, value, color="tab:blue")
            panel.text(0.01, place, "not measured" if value is None else f"{value:.3f}", va="center", fontsize=7)
        panel.set_yticks(range(len(rows)), rows, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlim(0, 1)
        panel.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
        panel.set_xlabel("ROC-AUC, right labels against wrong ones (0.5: chance)")
        panel.set_title(title, fontsize=10)
