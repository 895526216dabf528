"""Parquet tables of ours whose damage is noticed: every page has a checksum, and so has the content as a whole.

Tables of earlier versions have none and are believed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
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
    return pa.table(dict(each_column(path))).replace_schema_metadata(read_about(path))


def read_about(path: Path) -> dict[bytes, bytes]:
    """The metadata. Raises as `read_table`."""
    with pa.parquet.ParquetFile(path) as file:  # its read_table would import pandas
        return file.schema_arrow.metadata or {}


def each_column(path: Path) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """One column after the other, so that no two need to be in memory. Raises as `read_table`, perhaps only after the
    last one."""
    with pa.parquet.ParquetFile(path, page_checksum_verification=True) as file:
        meta = file.schema_arrow.metadata or {}
        crc = _start(meta)
        for name in file.schema_arrow.names:
            column = file.read(columns=[name]).column(0)
            crc = _with_column(crc, name, column)
            yield name, column
            del column
            pa.default_memory_pool().release_unused()  # or the next column would come on top of this one
    sealed = meta.get(CHECKSUM)
    if sealed not in (None, f"{crc:08x}".encode()):
        raise ValueError("its content does not have its checksum")


def _checksum(table: pa.Table) -> int:
    """The same however the table is cut into chunks, and whatever lies where a value is missing."""
    crc = _start(table.schema.metadata or {})
    for name, column in zip(table.column_names, table.columns):
        crc = _with_column(crc, name, column)
    return crc


def _start(about: Mapping[bytes, bytes]) -> int:
    return zlib.crc32(repr(sorted((key, value) for key, value in about.items() if key != CHECKSUM)).encode())


def _with_column(crc: int, name: str, column: pa.ChunkedArray) -> int:
    crc = zlib.crc32(f"{name} {column.type}".encode(), crc)
    crc = zlib.crc32(numpy_of(column.is_null()).tobytes(), crc)
    values = column.drop_null().combine_chunks()
    batches = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    for batch in batches:
        crc = zlib.crc32(pa.record_batch([batch], ["v"]).serialize(), crc)
    return crc
