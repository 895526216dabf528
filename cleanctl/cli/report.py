"""`cleanctl report`: a store and its runs as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import ReportConfig


def report(
    config: ReportConfig,
    store: Path,
    run: Run,
    open_it: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.", rich_help_panel="Run")
    ] = False,
) -> None:
    """Write one HTML file that shows what was kept, why, and with which images.

    It opens without a server or a network. A file that no report wrote is not overwritten.

    Examples

      cleanctl report --open
      cleanctl report --selection joint --against intersection --out joint.html
      cleanctl report --images folder
    """
    from cleanctl import api
    from cleanctl.cli.tables.report import report_lines

    made = api.report(config, store=store, progress=run.progress)
    for text in made.notes:
        run.progress.note(text)
    run.result(made, shown=report_lines(made))
    if open_it:
        import webbrowser

        if not webbrowser.open(Path(made.out).absolute().as_uri()):
            run.progress.warn("No browser was found to open it in.")
