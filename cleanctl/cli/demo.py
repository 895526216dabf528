"""`cleanctl demo`: all of it, on built-in data, offline."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from cleanctl.cli.console import Run, duration, err_console
from cleanctl.cli.folding import fold
from cleanctl.config import DemoConfig

if TYPE_CHECKING:
    from cleanctl.results import DemoResult


def demo(config: DemoConfig, run: Run) -> None:
    """Do the main job on drawn images: embed, select, train, eval, report.

    Draws a dataset of twelve shapes in which 40 % of the training labels are wrong, and runs each verb on it, offline,
    with a small encoder that the package ships. A few minutes on two cores.

    Examples

      cleanctl demo
      cleanctl demo --folder /tmp/demo --fresh
    """
    from cleanctl.demo.run import run_demo

    result = run_demo(config, announce=_silent if run.quiet else _announce, progress=run.progress)
    run.result(result, shown=_tables(result))


def _announce(line: str) -> None:
    """`$ cleanctl …` on stderr, long lines folded before an option as one would type them."""
    from rich.text import Text

    console = err_console()
    console.print()
    for number, part in enumerate(fold(line, width=min(console.width, 100) - 4)):
        prompt = Text("$ ", style="bold cyan") if number == 0 else Text("    ")
        console.print(prompt + Text(part, style="bold"), soft_wrap=True)


def _silent(line: str) -> None:
    pass


def _tables(result: DemoResult) -> list[Any]:
    from rich.table import Table

    from cleanctl.cli.tables.shared import Summary

    table = Table(box=None, padding=(0, 2), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    table.add_row("training labels", f"{result.images:,}", f"{result.wrong_labels:.1%} of them wrong")
    table.add_row("kept by the selection", f"{result.kept:,}", f"{result.kept / result.images:.1%} of all")
    table.add_row("precision", f"{result.precision:.1%}", "of the kept labels are right")
    table.add_row("recall", f"{result.recall:.1%}", "of the right labels are kept")
    table.add_row("the encoder, zero-shot", f"{result.zero_shot:.1%}", "test accuracy")
    table.add_row("cross-entropy, every label", f"{result.cross_entropy:.1%}", "test accuracy, last epoch")
    table.add_row("MixFix, on the selection", f"{result.mixfix:.1%}", "test accuracy, last epoch")
    store = shlex.quote(f"{result.folder}/cleanctl.zarr")
    following = (f"cleanctl status --store {store}", f"cleanctl export clean/ --to links --store {store}")
    return ["", table, "", *_leftovers(result), Summary((verdict(result),), following)]


def verdict(result: DemoResult) -> str:
    """One sentence, and an honest one."""
    points = 100 * (result.mixfix - result.cross_entropy)
    if result.mixfix_wins:
        return f"[green]MixFix on the selection beats cross-entropy on all labels by {points:.1f} points.[/green]"
    return (
        f"[red]MixFix did not beat cross-entropy: {-points:.1f} points behind.[/red] "
        "On this data, with this recipe, selecting did not pay; please report it with the output of --json."
    )


def _leftovers(result: DemoResult) -> list[str]:
    from rich.markup import escape

    spent = ", ".join(f"{name} {duration(seconds)}" for name, seconds in result.seconds.items())
    return [
        f"[dim]Time: {duration(sum(result.seconds.values()))} ({spent}).[/dim]",
        f"[dim]A picture of what was kept and what was not: {escape(result.sheet)}[/dim]",
        f"The report, to open in a browser: [bold]{escape(result.report)}[/bold]",
    ]
