"""Tables as JSON: one array of objects, one a line, so that a large one can be read line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.export.exporter import Exporter

if TYPE_CHECKING:
    import pyarrow as pa


class JsonExporter(Exporter):
    suffix = ".json"

    def write(self, path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        with path.open("w", encoding="utf-8") as file:
            separator = "[\n"
            for batch in batches:
                for row in batch.to_pylist():
                    file.write(separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
                    separator = ",\n"
            file.write("\n]\n" if separator == ",\n" else "[]\n")
