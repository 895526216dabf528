"""The index of a source's tars, beside the store: `cleanctl.zarr` → `cleanctl.tars.parquet`.

One row a sample: its tar, name, offset, size and what its label members said. What it says of a tar is believed as
long as the tar has the size and time that it had; a file that is damaged or of another kind counts as none.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from cleanctl.files.atomic import replacing
from cleanctl.files.sealed_table import read_table, write_table
from cleanctl.files.storage import Tar
from cleanctl.files.tar_index import LABEL_COLUMNS, LabelFields, TarIndex

FORMAT = "1"


def write_indices(path: Path, indices: list[TarIndex], fields: LabelFields) -> list[str]:
    """Returns a note if it could not be written: the run goes on without."""
    columns: dict[str, Any] = {
        "tar": pa.array([number for number, index in enumerate(indices) for _ in index.names], pa.int32()),
        "name": pa.array([name for index in indices for name in index.names], pa.string()),
        "offset": pa.array([offset for index in indices for offset in index.offset], pa.int64()),
        "size": pa.array([size for index in indices for size in index.size], pa.int64()),
    }
    for column in LABEL_COLUMNS:
        values = [value for index in indices for value in getattr(index, column)]
        columns[column] = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
    about = {"format": FORMAT, "fields": json.dumps(asdict(fields)), "tars": json.dumps(list(map(_about, indices)))}
    try:
        with replacing(path) as temporary:
            write_table(temporary, columns, about)
    except OSError as exc:
        return [f"The index of the tars was not kept ({exc.strerror or exc}); the next run walks them again."]
    return []


def _about(index: TarIndex) -> dict[str, Any]:
    return {"tar": list(index.tar), "others": index.others, "json_fields": index.json_fields, "damage": index.damage}


def read_indices(path: Path, fields: LabelFields | None) -> dict[str, TarIndex]:
    """tar → its index; empty where there is none. fields None: whatever labels were looked at."""
    try:
        table = read_table(path)
        about = table.schema.metadata or {}
        if about.get(b"format") != FORMAT.encode():
            return {}
        if fields is not None and json.loads(about[b"fields"]) != asdict(fields):
            return {}
        return _indices(table, json.loads(about[b"tars"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return {}


def _indices(table: pa.Table, about: list[dict[str, Any]]) -> dict[str, TarIndex]:
    rows = {name: table[name].to_pylist() for name in ("tar", "name", "offset", "size", *LABEL_COLUMNS)}
    words: dict[str, Any] = {}
    for column in LABEL_COLUMNS:
        rows[column] = [None if text is None else words.setdefault(text, json.loads(text)) for text in rows[column]]
    indices, start = {}, 0
    for number, one in enumerate(about):
        stop = start
        while stop < len(rows["tar"]) and rows["tar"][stop] == number:
            stop += 1
        index = TarIndex(
            tar=Tar(*one["tar"]),
            names=rows["name"][start:stop],
            offset=rows["offset"][start:stop],
            size=rows["size"][start:stop],
            others=one["others"],
            json_fields=tuple(one["json_fields"]),
            damage=one["damage"],
            **{column: rows[column][start:stop] for column in LABEL_COLUMNS},
        )
        indices[index.tar.name] = index
        start = stop
    if start != len(rows["tar"]):
        raise ValueError("rows of no tar")
    return indices
