"""`cleanctl train`: selection → model."""

from __future__ import annotations

from typing import Annotated

import typer

from cleanctl.cli.console import running
from cleanctl.cli.options import (
    DebugOption,
    DeviceOption,
    JsonOption,
    LoaderOption,
    PrecisionOption,
    QuietOption,
    StoreOption,
    WorkersOption,
)
from cleanctl.config import TrainConfig
from cleanctl.paths import store_path


def train(
    selection: Annotated[
        str | None, typer.Option(help="The selection to train on, or all (default: the newest).", show_default=False)
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="mixfix|cross-entropy", help="mixfix absorbs and relabels the rest every epoch.")
    ] = TrainConfig.method,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A recipe by name or a TOML file (default: by image size).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split to train on.")] = TrainConfig.split,
    name: Annotated[
        str | None,
        typer.Option(help="The run's name (default: method and selection).", show_default=False, rich_help_panel="Run"),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="A network of cleanctl or of timm by name (default: the recipe's).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Pixels of a side (default: the recipe's).", show_default=False, rich_help_panel="Recipe"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="(default: the recipe's)", show_default=False, rich_help_panel="Recipe")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="(default: the recipe's)", show_default=False, rich_help_panel="Recipe")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="(default: the recipe's)", show_default=False, rich_help_panel="Recipe")
    ] = None,
    theta_absorb: Annotated[
        float | None,
        typer.Option(
            help="Confidence that absorbs a sample (default: the recipe's).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    theta_relabel: Annotated[
        float | None,
        typer.Option(
            help="Confidence that relabels a sample (default: the recipe's).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    absorb: Annotated[
        bool | None,
        typer.Option(help="Take in samples that were left out.", show_default=False, rich_help_panel="Recipe"),
    ] = None,
    relabel: Annotated[
        bool | None,
        typer.Option(help="Relabel where the network is sure.", show_default=False, rich_help_panel="Recipe"),
    ] = None,
    relabel_scope: Annotated[
        str | None,
        typer.Option(
            metavar="all|unselected",
            help="Whose labels may change (default: the recipe's).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    mixup_beta: Annotated[
        float | None,
        typer.Option(help="Beta of mixup, 0 for none.", show_default=False, rich_help_panel="Recipe"),
    ] = None,
    network_weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|download|none",
            help="Pretrained weights of the network (default: the recipe's).",
            show_default=False,
            rich_help_panel="Recipe",
        ),
    ] = None,
    cache: Annotated[
        str,
        typer.Option(metavar="auto|gpu|ram|none", help="Where images stay between epochs.", rich_help_panel="Machine"),
    ] = TrainConfig.cache,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.", rich_help_panel="Run")] = True,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", rich_help_panel="Run")] = TrainConfig.seed,
    store: StoreOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a classifier on the selection with MixFix.

    [bold]Examples[/bold]

      cleanctl train
      cleanctl train --recipe webvision
      cleanctl train --method cross-entropy --selection all
    """
    with running(as_json=as_json, quiet=quiet, debug=debug) as run:
        config = TrainConfig(
            selection=selection,
            method=method,
            recipe=recipe,
            split=split,
            name=name,
            network=network,
            image_size=image_size,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            theta_absorb=theta_absorb,
            theta_relabel=theta_relabel,
            absorb=absorb,
            relabel=relabel,
            relabel_scope=relabel_scope,
            mixup_beta=mixup_beta,
            network_weights=network_weights,
            cache=cache,
            loader=loader,
            device=device,
            precision=precision,
            workers=workers,
            seed=seed,
            resume=resume,
        )
        from cleanctl import api
        from cleanctl.cli.tables import train_table

        record = api.train(config, store=store_path(store), progress=run.progress).to_json()
        run.result(record, shown=train_table(record))
