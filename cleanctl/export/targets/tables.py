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
from cleanctl.files.arrow import Values, batch_of, names_of
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
        return chosen.keys[:3].tolist()


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
    schema = _schema()
    for start in range(0, max(len(chosen), 1), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        columns: list[Values] = [chosen.keys[part]]
        for number in (chosen.label_M[part], chosen.given_M[part]):
            columns += [number, names_of(number, chosen.classes)]
        suggested = chosen.suggested_M[part]
        columns += [chosen.keep_M[part], suggested, names_of(suggested, chosen.classes)]
        columns += [chosen.p_label_M[part], chosen.p_max_M[part]]
        columns.append([WORDS[code] or None for code in chosen.verdict_M[part].tolist()])
        yield batch_of(columns, schema)
