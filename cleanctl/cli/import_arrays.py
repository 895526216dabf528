"""`cleanctl import`: embeddings made elsewhere → store."""

from __future__ import annotations

from pathlib import Path

from cleanctl.cli.console import Run
from cleanctl.config import ImportConfig


def import_arrays(config: ImportConfig, store: Path, run: Run) -> None:
    """Bring embeddings made elsewhere into a store.

    Example

      cleanctl import --image-embeddings X.npy --labels y.npy
      cleanctl import --image-embeddings X.npy --labels y.npy --text-embeddings T.npy --text-classes c.npy
    """
    from cleanctl import api
    from cleanctl.cli.tables.embed import embed_table

    summary = api.import_arrays(config, store=store, progress=run.progress)
    run.result(summary, shown=embed_table(summary))
