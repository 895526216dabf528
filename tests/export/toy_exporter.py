"""An exporter as somebody else would write it, in one file: a JSON object a line."""

from __future__ import annotations

import json

from cleanctl.export.exporter import Exporter


class JsonLines(Exporter):
    suffix = ".jsonl"

    def write(self, path, schema, batches):
        with path.open("w") as file:
            for batch in batches:
                file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
