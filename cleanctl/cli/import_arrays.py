"""`cleanctl import`: embeddings made elsewhere → store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cleanctl.cli.console import running
from cleanctl.cli.options import DebugOption, JsonOption, QuietOption, StoreOption
from cleanctl.config import ImportConfig
from cleanctl.paths import store_path


def import_arrays(
    image_embeddings: Annotated[
        Path, typer.Option(help="(N,D) .npy, any float type; normalised on the way in.", show_default=False)
    ],
    labels: Annotated[Path, typer.Option(help="(N,) .npy, or a file with a label a line.", show_default=False)],
    text_embeddings: Annotated[
        Path | None, typer.Option(help="(P,D) .npy, for zero-shot rules.", show_default=False)
    ] = None,
    text_classes: Annotated[
        Path | None, typer.Option(help="(P,) .npy of integers: the class of each prompt.", show_default=False)
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Class names in label order, a name a line.", show_default=False)
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="A key a line, one for each row.", show_default=False)] = None,
    truth: Annotated[
        Path | None, typer.Option(help="(N,) .npy of true labels, -1 where unknown.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="The split to fill.")] = "train",
    replace: Annotated[bool, typer.Option("--replace", help="Make an existing store anew.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Bring embeddings made elsewhere into a store.

    [bold]Example[/bold]

      cleanctl import --image-embeddings X.npy --labels y.npy
      cleanctl import --image-embeddings X.npy --labels y.npy --text-embeddings T.npy --text-classes c.npy
    """
    with running(as_json=as_json, quiet=quiet, debug=debug) as run:
        config = ImportConfig(
            image_embeddings=image_embeddings,
            text_embeddings=text_embeddings,
            text_classes=text_classes,
            labels=labels,
            classes=classes,
            keys=keys,
            truth=truth,
            split=split,
            replace=replace,
        )
        from cleanctl import api
        from cleanctl.cli.tables import embed_table

        record = api.import_arrays(config, store=store_path(store), progress=run.progress).to_json()
        run.result(record, shown=[*embed_table(record), f"Store: {record['store']}   Next: cleanctl select"])
