"""`cleanctl embed SOURCE`: images → store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run, duration, running
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
from cleanctl.config import EmbedConfig
from cleanctl.errors import UsageError
from cleanctl.paths import store_path


def embed(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images, a sub-folder a class; of WebDataset tars; one tar; or the URL of one.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The dataset's layout by name (default: recognised).", show_default=False, rich_help_panel="Data"
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="A split to embed; may repeat (default: all found).", show_default=False, rich_help_panel="Data"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="CSV or Parquet: path relative to SOURCE (in tars: shard/name), label as number or name.",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None,
    label_column: Annotated[
        str,
        typer.Option(help="The label's column in --labels, or its field in the tars' .json.", rich_help_panel="Data"),
    ] = "label",
    truth_column: Annotated[
        str | None,
        typer.Option(
            help="The true label's column or field, if it is known.", show_default=False, rich_help_panel="Data"
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Class names in label order, a name a line.",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:RATE", help="Label noise to add: symmetric:0.4.", show_default=False, rich_help_panel="Data"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of --noise.", rich_help_panel="Data")] = EmbedConfig.seed,
    model: Annotated[
        str, typer.Option(help="An open_clip architecture, or local-dir:DIR.", rich_help_panel="Model")
    ] = EmbedConfig.model,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="The weights: an open_clip tag or a file (default: openai).",
            show_default=False,
            rich_help_panel="Model",
        ),
    ] = EmbedConfig.pretrained,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch weights that are not on this disk.", rich_help_panel="Model")
    ] = False,
    prompts: Annotated[
        str, typer.Option(help="A prompt set by name, or a file of prompts by class.", rich_help_panel="Model")
    ] = EmbedConfig.prompts,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: Annotated[
        int, typer.Option(help="Images encoded at a time.", rich_help_panel="Run")
    ] = EmbedConfig.batch_size,
    workers: WorkersOption = None,
    retry_failures: Annotated[
        bool,
        typer.Option(
            "--retry-failures", help="Try the images again that could not be read.", rich_help_panel="Failures"
        ),
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%", help="End the run if more images fail.", show_default=False, rich_help_panel="Failures"
        ),
    ] = None,
    show_failures: Annotated[
        bool,
        typer.Option(
            "--show-failures", help="List the store's failed images; embed nothing.", rich_help_panel="Failures"
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Embed the I-th of N parts, the first is 0/N: one of N processes that fill one store.",
            show_default=False,
            rich_help_panel="Many processes",
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Check that all shards ended, and join them.", rich_help_panel="Many processes"),
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="0,1,…",
            help="Embed on several CUDA devices of this machine at once.",
            show_default=False,
            rich_help_panel="Many processes",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make anew a store that another model made.", rich_help_panel="Run")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Embed the images of SOURCE with CLIP into the store.

    Images already in the store are not embedded again; a run that was stopped goes on where it stopped.

    [bold]Examples[/bold]

      cleanctl embed webvision/
      cleanctl embed photos/ --labels labels.csv --truth-column checked
      cleanctl embed photos/ --model ViT-L-14 --pretrained openai --download
      cleanctl embed webvision/ --shard $SLURM_ARRAY_TASK_ID/8   (of --array=0-7)
    """
    with running(as_json=as_json, quiet=quiet, debug=debug) as run:
        if show_failures:
            _show_failures(store, run)
            return
        if source is None:
            raise UsageError("SOURCE is missing.", do="Name the folder that holds the images: cleanctl embed SOURCE")
        config = EmbedConfig(
            source=source,
            dataset=dataset,
            splits=tuple(split or ()),
            labels=labels,
            label_column=label_column,
            truth_column=truth_column,
            classes=classes,
            noise=noise,
            seed=seed,
            model=model,
            pretrained=pretrained,
            download=download,
            prompts=prompts,
            loader=loader,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            retry_failures=retry_failures,
            max_failures=max_failures,
            shard=shard,
            finish=finish,
            devices=tuple(name.strip() for name in devices.split(",")) if devices else (),
            replace=replace,
        )
        from cleanctl import api
        from cleanctl.cli.tables import embed_table

        record = api.embed(config, store=store_path(store), progress=run.progress).to_json()
        following = "cleanctl select" if record["complete"] else "the other shards, then cleanctl select"
        took = f"Store: {record['store']}   ({duration(record['seconds'])})   Next: {following}"
        run.result(record, shown=[*embed_table(record), took])


def _show_failures(store: Path | None, run: Run) -> None:
    from cleanctl import api
    from cleanctl.cli.tables import failure_tables

    record = api.failures(store=store_path(store)).to_json()
    run.result(record, shown=failure_tables(record))
