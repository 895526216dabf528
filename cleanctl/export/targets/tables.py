"""The selection table of the chosen samples, as Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cleanctl.export.chosen import Chosen
from cleanctl.export.csv import CsvExporter
from cleanctl.export.exporter import Exporter
from cleanctl.export.parquet import ParquetExporter
from cleanctl.export.targets.target import Target, Written
from cleanctl.progress import Progress
from cleanctl.store.standing import WORDS

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 65_536


class TableTarget(Target):
    """Columns: key, label, label_name, given_label, given_name, keep, suggested_label, suggested_name, p_label, p_max,
    verdict.

    label is the one to use (--relabel, or a person's verdict), given_label the one that came. verdict: keep, drop,
    relabel, or null.
    """

    exporter: type[Exporter]

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        self.exporter().write(place, _schema(), _batches(chosen))
        return Written(examples=tuple(chosen.keys[:3]))

    def names(self, chosen: Chosen) -> Sequence[str]:
        return chosen.keys[:3]


class ParquetTarget(TableTarget):
    exporter = ParquetExporter


class CsvTarget(TableTarget):
    exporter = CsvExporter


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number, share = pa.string(), pa.int32(), pa.float32()
    columns = [("key", text), ("label", number), ("label_name", text), ("given_label", number), ("given_name", text)]
    columns += [("keep", pa.bool_()), ("suggested_label", number), ("suggested_name", text)]
    return pa.schema([*columns, ("p_label", share), ("p_max", share), ("verdict", text)])


def _batches(chosen: Chosen) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    name_C, schema, text = pa.array(chosen.classes, pa.string()), _schema(), pa.string()
    for start in range(0, max(len(chosen), 1), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        label, given, suggested = (
            pa.array(values[part], pa.int32()) for values in (chosen.label_M, chosen.given_M, chosen.suggested_M)
        )
        columns = [pa.array(chosen.keys[part], pa.string()), label, name_C.take(label), given, name_C.take(given)]
        columns += [pa.array(chosen.keep_M[part]), suggested, name_C.take(suggested)]
        columns += [pa.array(values[part], pa.float32()) for values in (chosen.p_label_M, chosen.p_max_M)]
        columns.append(pa.array([WORDS[code] or None for code in chosen.verdict_M[part].tolist()], text))
        yield pa.record_batch(columns, schema=schema)
