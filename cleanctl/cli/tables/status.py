"""What `status` tells."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from cleanctl.cli.tables.shared import Summary, new_table, percent
from cleanctl.results import StatusReport


def status_tables(record: StatusReport) -> list[Any]:
    """The store, its splits, selections and runs; then what is stale, and what to type."""
    shown: list[Any] = [_heading(record), _split_table(record)]
    if any(split.selections for split in record.splits):
        shown.append(_selection_table(record))
    if record.runs:
        shown.append(_run_table(record))
    shown += _verdict_lines(record)
    for text in (*record.damaged, *_stale(record)):
        shown.append(f"[yellow]![/yellow] {escape(text)}")
    if not record.source_here and record.source:
        shown.append(f"[yellow]![/yellow] The images are not at {escape(record.source)} any more.")
    if record.following:
        said = "This command comes next." if len(record.following) == 1 else "These commands come next."
    else:
        said = "Nothing is missing and nothing is stale."
    return [*shown, Summary((said,), record.following or ("cleanctl report --open",))]


def size(count: int) -> str:
    """`812 B`, `4.1 kB`, `1.9 GB`: powers of 1,000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:,.0f} {unit}" if unit == "B" or value >= 100 else f"{value:,.1f} {unit}"
        value /= 1000
    raise AssertionError


def _heading(record: StatusReport) -> str:
    prompts = f", prompts {record.prompts}" if record.prompts else ", no prompts"
    return (
        f"[bold]{escape(record.store)}[/bold]: {size(record.store_bytes)}, {record.classes:,} classes, "
        f"{escape(record.model)}{escape(prompts)}"
    )


def _split_table(record: StatusReport) -> Table:
    table = new_table("Splits", "split", "images", "ok", "failed", "pending", "truth", "scores", "FFCV file")
    for split in record.splits:
        counts = (split.images, split.ok, split.failed, split.pending)
        packed = size(split.packed_bytes) if split.packed_bytes else "–"
        truth = "yes" if split.truth else "–"
        table.add_row(escape(split.split), *(f"{n:,}" for n in counts), truth, str(len(split.scores)), packed)
    return table


def _selection_table(record: StatusReport) -> Table:
    table = new_table("Selections", "selection", "split", "kept", "share", "made", "")
    for split in record.splits:
        for one in split.selections:
            share = percent(one.kept / one.count if one.count else None)
            mark = "[yellow]stale[/yellow]" if one.stale else "new verdicts" if one.newer_verdicts else ""
            table.add_row(escape(one.name), escape(split.split), f"{one.kept:,}", share, one.made, mark)
    return table


def _run_table(record: StatusReport) -> Table:
    table = new_table("Runs", "run", "state", "epochs", "top-1", "")
    for run in record.runs:
        mark = "[yellow]stale[/yellow]" if run.stale else ""
        epochs = f"{run.epochs_done} of {run.epochs}"
        table.add_row(escape(run.name), run.state, epochs, percent(run.top1), mark)
    return table


def _verdict_lines(record: StatusReport) -> list[str]:
    """What people decided of each split."""
    lines = []
    for split in record.splits:
        if (found := split.verdicts) is None:
            continue
        counts = f"keep {found.keep:,}, drop {found.drop:,}, relabel {found.relabel:,}; undecided {found.skip:,}"
        lines.append(f"Verdicts on {escape(split.split)}: {counts}.")
        lines += [f"[yellow]![/yellow] Not in force: {escape(found.idle)}."] if found.idle else []
        if found.contradictions:
            lines.append(
                f"[yellow]![/yellow] {found.contradictions:,} images have verdicts that contradict each other: "
                "cleanctl review list --contradictions"
            )
    return lines


def _stale(record: StatusReport) -> list[str]:
    selections = [
        f"Selection {one.name} of {split.split} is stale: {one.stale}."
        for split in record.splits
        for one in split.selections
        if one.stale
    ]
    selections += [
        f"Selection {one.name} of {split.split} does not know {one.newer_verdicts:,} verdicts that came later."
        for split in record.splits
        for one in split.selections
        if one.newer_verdicts
    ]
    return selections + [f"Run {run.name} is stale: {run.stale}." for run in record.runs if run.stale]
