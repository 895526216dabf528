"""The row table beside an FFCV file: what each of its rows is, and which file content it was made from.

`cleanctl.train.beton` has `cleanctl.train.beton.parquet`: key, status, reason, digest, size, mtime_ns, height,
width, crc. It carries the FFCV file's token, so that a table and a file from different runs are never taken for a pair,
and checksums of both: what is damaged is packed again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cleanctl.files.fingerprints import DIGEST_BYTES
from cleanctl.files.keys import Keys
from cleanctl.files.sealed_table import read_table, write_table
from cleanctl.records import Fingerprints

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class RowTable:
    """One item a row, in manifest order.

    status_N: int8 Status; of PENDING rows, which are not packed yet, nothing else is to be believed. reason: row → why,
    for failed rows. shape_N2: int32 (N, 2), height and width of the upright image, before any reduction to the limit.
    limit: the resolution limit in force (`pack.Limit.short_side`). token: that of the FFCV file.
    crc_N: uint32, CRC-32 of each sample's bytes; checksum: that of the FFCV file's own tables. Both None in tables
    of earlier versions.
    """

    keys: Keys
    status_N: np.ndarray
    reason: dict[int, str]
    fingerprints: Fingerprints
    shape_N2: np.ndarray
    limit: int
    token: bytes
    crc_N: np.ndarray | None = None
    checksum: int | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def has(self, row: int, data: bytes | memoryview) -> bool:
        """Whether these are the bytes that were packed."""
        return self.crc_N is None or zlib.crc32(data) == self.crc_N[row]


def table_path(beton: Path) -> Path:
    return beton.with_name(f"{beton.name}.parquet")


def write_rows(table: RowTable, path: Path) -> None:
    """Writes to a temporary `path`; synchronising and renaming it are the caller's."""
    reason = [table.reason.get(row) for row in range(len(table))]
    digest = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES), len(table), [None, pa.py_buffer(np.ascontiguousarray(table.fingerprints.digest_N16))]
    )
    columns = {
        "key": pa.chunked_array(list(table.keys.string_chunks()), pa.string()),
        "status": pa.array(table.status_N, pa.int8()),
        "reason": pa.array(reason, pa.string()),
        "digest": digest,
        "size": pa.array(table.fingerprints.size_N),
        "mtime_ns": pa.array(table.fingerprints.mtime_ns_N),
        "height": pa.array(table.shape_N2[:, 0]),
        "width": pa.array(table.shape_N2[:, 1]),
    }
    meta = {"format": FORMAT, "limit": str(table.limit), "token": table.token.hex()}
    if table.crc_N is not None:
        columns["crc"] = pa.array(table.crc_N)
        meta["beton"] = str(table.checksum)
    write_table(path, columns, meta)


def read_rows(path: Path) -> RowTable:
    """Raises OSError, or ValueError if the file is not such a table."""
    try:
        table = read_table(path)
        meta = table.schema.metadata or {}
        if meta.get(b"format") != FORMAT.encode():
            raise ValueError("the row table has another format")
        reason = table["reason"].to_pylist()
        return RowTable(
            keys=Keys.of_arrow(table["key"]),
            status_N=table["status"].to_numpy(),
            reason={row: why for row, why in enumerate(reason) if why is not None},
            fingerprints=Fingerprints(
                digest_N16=_digests(table["digest"]),
                size_N=table["size"].to_numpy().copy(),
                mtime_ns_N=table["mtime_ns"].to_numpy().copy(),
            ),
            shape_N2=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1),
            limit=int(meta[b"limit"]),
            token=bytes.fromhex(meta[b"token"].decode()),
            crc_N=table["crc"].to_numpy() if "crc" in table.column_names else None,
            checksum=int(meta[b"beton"]) if b"beton" in meta else None,
        )
    except (pa.ArrowException, KeyError) as exc:
        raise ValueError(f"the row table cannot be read: {exc}") from exc


def usual_side(beton: Path) -> int | None:
    """Median short side of the images of an FFCV file, in pixels; None without a row table that says so."""
    try:
        table = read_table(table_path(beton)).select(["height", "width"])
    except (OSError, ValueError, pa.ArrowException, KeyError):
        return None
    side_N = np.minimum(table["height"].to_numpy(), table["width"].to_numpy())
    return int(np.median(side_N[side_N > 1])) if (side_N > 1).any() else None


def _digests(column: pa.ChunkedArray) -> np.ndarray:
    data = b"".join(column.to_pylist())
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, DIGEST_BYTES).copy()
