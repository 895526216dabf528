"""What `diff` tells."""

from __future__ import annotations

import shlex
from typing import Any

from rich.markup import escape

from cleanctl.cli.tables.shared import SHOWN_CLASSES, Summary, new_table
from cleanctl.results import SelectionDiff


def diff_tables(record: SelectionDiff) -> list[Any]:
    """How many differ, why, and in which classes."""
    changed = record.only_first + record.only_second
    first, second = escape(record.first), escape(record.second)
    said = (
        f"[bold]{first}[/bold] keeps {record.both + record.only_first:,} of {record.count:,}, [bold]{second}[/bold] "
        f"{record.both + record.only_second:,}; they differ in {changed:,}: {record.only_first:,} only in {first}, "
        f"{record.only_second:,} only in {second}."
    )
    if not changed:
        return [Summary((said,))]
    reasons = new_table("Why one drops what the other keeps", "dropped by", "reason", "samples", "for example")
    for column, left in enumerate((True, True, False, True)):
        reasons.columns[column].justify = "left" if left else "right"
        reasons.columns[column].no_wrap = not left
    for one in record.reasons[:SHOWN_CLASSES]:
        name = first if one.dropped_by == "first" else second
        reasons.add_row(name, escape(one.reason), f"{one.samples:,}", escape(one.examples[0]))
    classes = new_table("By class", "class", f"only {first}", f"only {second}")
    for one_class in record.classes[:SHOWN_CLASSES]:
        classes.add_row(escape(one_class.name), f"{one_class.only_first:,}", f"{one_class.only_second:,}")
    listed = (f"All of them: {escape(record.out)}",) if record.out else ()
    first, second = shlex.quote(record.first), shlex.quote(record.second)
    look = f"cleanctl report --selection {second} --against {first} --open"
    return [reasons, classes, Summary((said, *listed), (look, f"cleanctl train --selection {second}"))]
