"""The selection's table as Parquet beside the page: all rows, where the page may hold a part of them."""

from __future__ import annotations

from pathlib import Path

from cleanctl.errors import InputError
from cleanctl.files.atomic import replacing, reporting_disk_errors
from cleanctl.report.snapshot import Snapshot
from cleanctl.selection.table import selection_table
from cleanctl.store import Split

MARK = {b"written by": b"cleanctl report"}  # in the file's metadata


def table_beside(out: Path) -> Path:
    return out.with_suffix(".parquet")


def require_our_table(path: Path) -> None:
    """InputError unless there is nothing at `path`, or a table that a report wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        return
    try:
        meta = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        meta = {}
    if any(meta.get(name) != value for name, value in MARK.items()):
        raise InputError(
            f"{path} exists, and no report wrote it.",
            so="The report's table would overwrite it.",
            do="Choose another file with --out.",
        )


def write_table_file(split: Split, snapshot: Snapshot, path: Path) -> None:
    """Columns as in `cleanctl select --out` (docs/help.md); whole or not at all."""
    import pyarrow.parquet as pq

    require_our_table(path)
    schema, batches = selection_table(split, snapshot.selection.arrays, snapshot.classes)
    marked = schema.with_metadata(MARK)
    with reporting_disk_errors(path), replacing(path) as partial, pq.ParquetWriter(partial, marked) as writer:
        for batch in batches:
            writer.write_batch(batch)
