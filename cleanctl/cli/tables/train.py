"""What `train` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import new_table, percent
from cleanctl.results import TrainResult


def train_table(record: TrainResult) -> list[Any]:
    """What the run ended with, and where it lies."""
    table = new_table(f"Run {escape(record.name)}", "", "")
    table.show_header = False
    rows = [
        ("network", record.network),
        ("recipe, epochs", f"{record.recipe}, {record.epochs}"),
        ("selected", f"{record.selected:,}"),
        ("members at the end", f"{record.members:,}"),
        ("  absorbed, relabelled", f"{record.absorbed:,}, {record.relabelled:,}"),
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
    return [table, f"Checkpoints and metrics: {escape(record.folder)}   Next: cleanctl eval"]
