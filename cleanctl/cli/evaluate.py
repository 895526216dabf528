"""`cleanctl eval`: numbers for the selection, the zero-shot classifier and the trained model."""

from __future__ import annotations

from typing import Annotated

import typer

from cleanctl.cli.console import running
from cleanctl.cli.options import (
    DebugOption,
    DeviceOption,
    JsonOption,
    LoaderOption,
    QuietOption,
    StoreOption,
    WorkersOption,
)
from cleanctl.config import EvalConfig
from cleanctl.paths import store_path


def evaluate(
    split: Annotated[
        list[str] | None,
        typer.Option(help="A split to evaluate on; may repeat (default: all there are).", show_default=False),
    ] = None,
    selection: Annotated[
        str | None, typer.Option(help="The selection to judge (default: the newest).", show_default=False)
    ] = None,
    run_name: Annotated[
        str | None,
        typer.Option("--run", help="The training run to judge, or all (default: the newest).", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Images classified at a time.", rich_help_panel="Run")
    ] = EvalConfig.batch_size,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Judge the selection and the trained network.

    The selection against the truth where it is known, zero-shot accuracy, and top-1 and top-5 of the newest run.

    [bold]Example[/bold]

      cleanctl eval --json > numbers.json
    """
    with running(as_json=as_json, quiet=quiet, debug=debug) as run:
        config = EvalConfig(
            splits=tuple(split or ()),
            selection=selection,
            run=run_name,
            loader=loader,
            device=device,
            batch_size=batch_size,
            workers=workers,
        )
        from cleanctl import api
        from cleanctl.cli.tables import eval_tables

        record = api.evaluate(config, store=store_path(store), progress=run.progress).to_json()
        run.result(record, shown=eval_tables(record))
