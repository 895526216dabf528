"""`cleanctl review apply|serve|list|remove`: what people decide of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import ReviewApplyConfig, ReviewListConfig, ReviewRemoveConfig, ReviewServeConfig
from cleanctl.errors import UsageError


def apply(config: ReviewApplyConfig | None, store: Path, run: Run) -> None:
    """Put files of verdicts into the store, by key and content, with who and when.

    FILE is what the review page saved, or a CSV or Parquet with key, verdict (keep, drop, relabel, skip) and, with
    relabel, label. select, train, export and eval obey verdicts from then on. Contradictions between people or files
    are shown and stop the whole, unless --prefer settles them. The same file twice adds nothing.

    Examples

      cleanctl review apply verdicts.json
      cleanctl review apply ann.json bob.json --dry-run
      cleanctl review apply ann.json bob.json --prefer latest
    """
    if config is None:
        raise UsageError("FILE is missing.", do="Name what was saved: cleanctl review apply verdicts.json")
    from cleanctl import api
    from cleanctl.cli.tables.review import applied_lines

    result = api.apply_review(config, store=store, progress=run.progress)
    run.result(result, shown=applied_lines(result))


def serve(config: ReviewServeConfig, store: Path, run: Run) -> None:
    """Review in the browser: the report's page, served on this machine alone; every verdict is stored at once.

    The address holds a random token: who has it, and works on this machine, can look and decide. Ctrl-C ends it.
    For a page on another machine give --port, and on your own: ssh -L 8080:127.0.0.1:8080 SERVER

    Examples

      cleanctl review serve --by ann --open
      cleanctl review serve --port 8080
    """
    from cleanctl import api
    from cleanctl.cli.tables.review import served_lines

    def ready(url: str) -> None:
        typer.echo(f"Review at {url}   (Ctrl-C ends)", err=True)
        if config.open:
            import webbrowser

            webbrowser.open(url)

    result = api.serve_review(config, store=store, ready=ready, progress=run.progress)
    run.result(result, shown=served_lines(result))


def show(
    config: ReviewListConfig,
    store: Path,
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the verdicts as a file that review apply reads.",
            show_default=False,
            rich_help_panel="Run",
        ),
    ] = None,
) -> None:
    """Show what people decided, what of it does not hold any more and why, and where they contradict each other.

    Examples

      cleanctl review list
      cleanctl review list --contradictions
      cleanctl review list --by ann --out ann.json
    """
    from cleanctl import api
    from cleanctl.cli.tables.review import list_lines

    result = api.list_review(config, store=store, out=out)
    run.result(result, shown=list_lines(result))


def remove(config: ReviewRemoveConfig | None, store: Path, run: Run) -> None:
    """Take verdicts back. The log keeps that they were given: nothing is deleted.

    Examples

      cleanctl review remove cat/0001.jpg cat/0002.jpg
    """
    if config is None:
        raise UsageError("KEY is missing.", do="Name images by their keys: cleanctl review list shows them.")
    from cleanctl import api
    from cleanctl.cli.tables.review import removed_lines

    result = api.remove_review(config, store=store)
    run.result(result, shown=removed_lines(result))
