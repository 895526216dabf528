"""The index of a source's tars, beside the store: `cleanctl.zarr` → `cleanctl.tars.parquet`.

One row a sample: its tar, name, offset, size and what its label members said. What it says of a tar is believed as
long as the tar has the size and time that it had; a file that is damaged or of another kind counts as none.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cleanctl.files.arrow import column_of, numpy_of
from cleanctl.files.atomic import replacing
from cleanctl.files.keys import Keys
from cleanctl.files.sealed_table import each_column, read_about, write_table
from cleanctl.files.storage import Tar
from cleanctl.files.tar_index import LABEL_COLUMNS, LabelFields, TarIndex

FORMAT = "1"


def write_indices(path: Path, indices: list[TarIndex], fields: LabelFields) -> list[str]:
    """Returns a note if it could not be written: the run goes on without."""
    tar_N = np.repeat(np.arange(len(indices), dtype=np.int32), [len(index.names) for index in indices])
    columns: dict[str, Any] = {
        "tar": column_of(tar_N, pa.int32()),
        "name": pa.chunked_array([chunk for one in indices for chunk in one.names.string_chunks()], pa.string()),
        "offset": pa.chunked_array([column_of(index.offset_N, pa.int64()) for index in indices], pa.int64()),
        "size": pa.chunked_array([column_of(index.size_N, pa.int64()) for index in indices], pa.int64()),
    }
    for name in LABEL_COLUMNS:
        texts = [index.labels[name].cast(pa.string()) for index in indices]
        columns[name] = pa.chunked_array(texts, pa.string())
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
        about = read_about(path)
        if about.get(b"format") != FORMAT.encode():
            return {}
        if fields is not None and json.loads(about[b"fields"]) != asdict(fields):
            return {}
        return _indices(path, json.loads(about[b"tars"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return {}


def _indices(path: Path, about: list[dict[str, Any]]) -> dict[str, TarIndex]:
    numbers, names, labels = {}, Keys.of(()), {}
    nothing = None  # of all columns without a value the same one
    for name, column in each_column(path):
        if name == "name":
            names = Keys.of_arrow(column)
        elif name not in LABEL_COLUMNS:
            numbers[name] = numpy_of(column).copy()
        elif column.null_count == len(column) and nothing is not None:
            labels[name] = nothing
        else:
            labels[name] = column.dictionary_encode().unify_dictionaries().combine_chunks()
            nothing = labels[name] if column.null_count == len(column) else nothing
        del column
    tar_N, offset_N, size_N = (numbers[name] for name in ("tar", "offset", "size"))
    start_T1 = np.searchsorted(tar_N, np.arange(len(about) + 1))
    if (np.diff(tar_N) < 0).any() or start_T1[0] != 0 or start_T1[-1] != len(tar_N):
        raise ValueError("rows of no tar")
    indices = {}
    for number, one in enumerate(about):
        start, stop = start_T1[number : number + 2].tolist()
        index = TarIndex(
            tar=Tar(*one["tar"]),
            names=names[start:stop],
            offset_N=offset_N[start:stop],
            size_N=size_N[start:stop],
            labels={name: column.slice(start, stop - start) for name, column in labels.items()},
            others=one["others"],
            json_fields=tuple(one["json_fields"]),
            damage=one["damage"],
        )
        indices[index.tar.name] = index
    return indices
