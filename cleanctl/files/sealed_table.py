"""Parquet tables of ours whose damage is noticed: every page has a checksum, and so has the content as a whole.

Tables of earlier versions have none and are believed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from cleanctl.files.arrow import numpy_of

CHECKSUM = b"checksum"  # of the schema's metadata: CRC-32 over the columns and the rest of the metadata


def write_table(path: Path, columns: Mapping[str, object], about: Mapping[str, str]) -> None:
    """Writes columns and metadata to a temporary `path`; synchronising and renaming it are the caller's."""
    table = pa.table(dict(columns)).replace_schema_metadata(dict(about))
    meta = {**(table.schema.metadata or {}), CHECKSUM: f"{_checksum(table):08x}".encode()}
    pa.parquet.write_table(table.replace_schema_metadata(meta), path, write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Raises OSError, pyarrow's ArrowException, or ValueError where it is not what was written."""
    with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:  # its read_table would import pandas
        table = file.read()
    sealed = (table.schema.metadata or {}).get(CHECKSUM)
    if sealed not in (None, f"{_checksum(table):08x}".encode()):
        raise ValueError("its content does not have its checksum")
    return table


def _checksum(table: pa.Table) -> int:
    """The same however the table is cut into chunks, and whatever lies where a value is missing."""
    meta = {key: value for key, value in (table.schema.metadata or {}).items() if key != CHECKSUM}
    crc = zlib.crc32(repr(sorted(meta.items())).encode())
    for name, column in zip(table.column_names, table.columns):
        crc = zlib.crc32(f"{name} {column.type}".encode(), crc)
        crc = zlib.crc32(numpy_of(column.is_null()).tobytes(), crc)
        values = column.drop_null().combine_chunks()
        batches = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        for batch in batches:
            crc = zlib.crc32(pa.record_batch([batch], ["v"]).serialize(), crc)
    return crc
