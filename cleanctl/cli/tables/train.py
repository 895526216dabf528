"""What `train` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import Summary, new_table, percent
from cleanctl.results import SeedsResult, Spread, TrainResult


def train_table(record: TrainResult) -> list[Any]:
    """What the run ended with, and where it lies."""
    table = new_table(f"Run {escape(record.name)}", "", "")
    table.show_header = False
    rows = [
        ("network", record.network),
        ("recipe, epochs", f"{record.recipe}, {record.epochs}"),
        ("selected", f"{record.selected:,}"),
        ("members at the end", f"{record.members:,}"),
        ("  absorbed", _counted(record.absorbed, record.absorbed_right)),
        ("  relabelled", _counted(record.relabelled, record.relabelled_right)),
        ("  with the true label", percent(record.label_accuracy)),
        ("images a second", f"{record.images_per_second:,.0f}"),
    ]
    if record.test_split is not None:
        rows.append((f"top-1 on {record.test_split}, last epoch", percent(record.last_top1)))
        seen = (
            "looked at the test" if record.chosen_on in (None, record.test_split) else f"chosen on {record.chosen_on}"
        )
        rows.append((f"  best epoch ({record.best_epoch}; {seen})", percent(record.best_top1)))
    for name, value in rows:
        if value != "–":
            table.add_row(name, str(value))
    said = f"Run [bold]{escape(record.name)}[/bold]: " + (
        f"{percent(record.last_top1)} top-1 on {escape(record.test_split)}, last epoch."
        if record.test_split is not None
        else f"trained on {record.members:,} samples; no split tests it."
    )
    return [table, Summary((said, f"Checkpoints and metrics: {escape(record.folder)}"), ("cleanctl eval",))]


def _counted(count: int, right: int | None) -> str:
    return f"{count:,}" if right is None else f"{count:,} ({right:,} right)"


def seeds_table(record: SeedsResult) -> list[Any]:
    """A line a run, then mean and deviation."""
    table = new_table(f"Runs {escape(record.name)}", "seed", "last", "best", "true labels", "members")
    for run in record.runs:
        rates = (percent(value) for value in (run.last_top1, run.best_top1, run.label_accuracy))
        table.add_row(str(run.seed), *rates, f"{run.members:,}")
    table.add_section()
    rates = (_spread(record.spreads[key], 100, 1) for key in ("last_top1", "best_top1", "label_accuracy"))
    table.add_row("mean ± deviation", *rates, _spread(record.spreads["members"], 1, 0), style="bold")
    said = f"{len(record.runs)} runs, each in a folder of its own beside {escape(record.runs[0].folder)}"
    return [table, Summary((said,), ("cleanctl eval --run all",))]


def _spread(found: Spread | None, scale: float, digits: int) -> str:
    if found is None:
        return "–"
    deviation = "" if found.deviation is None else f" ± {scale * found.deviation:,.{digits}f}"
    return f"{scale * found.mean:,.{digits}f}{deviation}" + (" %" if scale == 100 else "")
