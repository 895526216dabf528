"""Tables as CSV, with a line of column names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.export.exporter import Exporter

if TYPE_CHECKING:
    import pyarrow as pa


class CsvExporter(Exporter):
    suffix = ".csv"

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        import pyarrow.csv as pc

        with pc.CSVWriter(path, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
