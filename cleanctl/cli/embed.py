"""`cleanctl embed SOURCE`: images → store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import Run
from cleanctl.config import EmbedConfig
from cleanctl.errors import UsageError


def embed(
    config: EmbedConfig | None,
    store: Path,
    run: Run,
    show_failures: Annotated[
        bool,
        typer.Option(
            "--show-failures", help="List the store's failed images; embed nothing.", rich_help_panel="Failures"
        ),
    ] = False,
) -> None:
    """Embed the images of SOURCE with CLIP into the store.

    Images already in the store are not embedded again; a run that was stopped goes on where it stopped.

    Examples

      cleanctl embed webvision/
      cleanctl embed photos/ --labels labels.csv --truth-column checked
      cleanctl embed photos/ --model ViT-L-14 --pretrained openai --download
      cleanctl embed webvision/ --shard $SLURM_ARRAY_TASK_ID/8
    """
    if not show_failures and config is None:
        raise UsageError("SOURCE is missing.", do="Name the folder that holds the images: cleanctl embed SOURCE")
    from cleanctl import api
    from cleanctl.cli.tables.embed import embed_table, failure_tables

    if show_failures or config is None:
        report = api.failures(store=store)
        run.result(report, shown=failure_tables(report))
        return
    summary = api.embed(config, store=store, progress=run.progress)
    run.result(summary, shown=embed_table(summary))
