"""`cleanctl doctor`: what this machine can run, and what to type where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cleanctl.cli.console import Run, out_console
from cleanctl.cli.streams import telling
from cleanctl.errors import MissingPackageError

if TYPE_CHECKING:
    from cleanctl.doctor.examine import Finding, Report

_MARKS = {"ok": "[green]✓[/green]", "absent": "[dim]–[/dim]", "broken": "[red]✗[/red]", "odd": "[yellow]![/yellow]"}


def doctor(
    store: Path,
    run: Run,
    models: Annotated[bool, typer.Option("--models", help="List the encoders that need no network.")] = False,
) -> None:
    """Try what is installed; say what to type if it is not.

    Ends with 0 if every needed thing is usable, else with 5. What is absent but only makes runs faster does not count.

    Examples

      cleanctl doctor
      cleanctl doctor --models
    """
    from cleanctl.doctor.examine import examine

    console = out_console()
    silent = models or run.as_json or run.quiet
    with telling():
        report = examine(store, told=lambda finding: None if silent else console.print(_line(finding), highlight=False))
    run.result(report, shown=_model_table(report) if models else _remedies(report))
    if not report.usable:
        raise typer.Exit(MissingPackageError.exit_code)


def _line(finding: Finding) -> Any:
    """What was found, shown when it was found; the columns stand below those of the line before."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(width=1)
    table.add_column(width=12, style="bold")
    table.add_column(max_width=60, overflow="fold")
    table.add_row(_MARKS[finding.state], finding.name, escape(finding.says))
    return table


def _remedies(report: Report) -> list[Any]:
    """Commands on lines of their own, never wrapped, so that they can be copied."""
    from rich.markup import escape

    from cleanctl.cli.tables.shared import Summary

    lines = [line for finding in report.findings if finding.type for line in _remedy(finding, escape(finding.type))]
    if not report.usable:
        return ["\n[red]Something that every run needs is unusable.[/red]", *lines]
    more = ["\nTo have more:", *lines] if lines else []
    return [*more, Summary(("[green]Ready.[/green]",), ("cleanctl demo", "cleanctl embed SOURCE"))]


def _remedy(finding: Finding, command: str) -> tuple[str, str]:
    return f"  {finding.name}" + (f" – {finding.why}" if finding.why else ""), f"    [cyan]{command}[/cyan]"


def _model_table(report: Report) -> list[Any]:
    from rich.table import Table

    if not report.models:
        return ["No encoder's weights are on this disk. Fetch some once with: cleanctl embed SOURCE --download"]
    table = Table(box=None, padding=(0, 1))
    for title in ("--model", "--pretrained"):
        table.add_column(title, no_wrap=True)
    table.add_column("MB", justify="right")
    for model in report.models:
        table.add_row(model["model"], model["pretrained"] or "", f"{model['bytes'] / 1e6:,.0f}")
    return [table]
