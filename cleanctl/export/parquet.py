"""Tables as Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.export.exporter import Exporter

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetExporter(Exporter):
    suffix = ".parquet"

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
