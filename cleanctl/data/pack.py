"""Image files → one `.beton` file and its row table, each file read once.

In: the keys of a source. Out, on disk: `PATH` and `PATH.parquet`, first written under a temporary name, synchronised,
then renamed; a run that is killed leaves the former pair, or none. Row i is key i; a file that cannot be read is a
failed row with its reason, and a 1×1 placeholder keeps its place.

Plain JPEGs within the resolution limit are stored byte for byte: nothing is lost and packing runs at the speed of
reading. Everything else is decoded (`decode.py`), reduced to the limit if it exceeds it, and stored as pixels if
small, else as a JPEG of quality 97 without chroma subsampling.

The limit keeps memory bounded: a reader's scratch is sized by the largest stored image. It bounds the *short* side,
because that is what a model's input is scaled by; at twice the model's input size or more, the second resampling
stays within the promise on pixels (tests/data measures it), whatever the aspect ratio.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cleanctl.data.beton import JPEG, PAGE_SIZE, PLACEHOLDER, RAW, TOKEN_BYTES, BetonFile, BetonWriter, Sample
from cleanctl.data.decode import UnreadableImage, decode_reduced
from cleanctl.data.files import (
    DIGEST_BYTES,
    digest_of,
    in_chunks,
    no_stamps,
    same_content,
    same_file,
    stamp_files,
)
from cleanctl.data.jpeg import read_plain_header
from cleanctl.data.rows import RowTable, read_rows, table_path, write_rows
from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import FileContent, FileStamps, ImageFiles, Status
from cleanctl.runtime import cpu_count

JPEG_QUALITY = 97
RAW_UP_TO = 3 * 128 * 128  # bytes; such pixels are as cheap to store as to encode
AREA_LIMIT = 1 << 24
SIDE_LIMIT = 65_500  # a JPEG's own


# Told of every chunk of files read: how many, and which failed (key → reason). Called from several threads.
Watch = Callable[[int, Mapping[str, str]], None]


@dataclass(frozen=True)
class Limit:
    """The largest image that is stored: its short side, and an area that only ribbons of 64:1 and more exceed."""

    short_side: int

    def factor(self, width: int, height: int) -> float:
        """What an image is to be scaled by, 1 if it is within the limit."""
        short, long = min(width, height), max(width, height)
        return min(1.0, self.short_side / short, SIDE_LIMIT / long, math.sqrt(AREA_LIMIT / (width * height)))


def limit_for(size: int) -> Limit:
    """The limit under which squares of `size` pixels keep the promise on pixels."""
    return Limit(max(512, 2 * size))


def pack(
    *,
    files: ImageFiles,
    keys: list[str],
    path: Path,
    limit: Limit,
    threads: int | None = None,
    retry_failed: bool = False,
    stamps: FileStamps | None = None,
    watch: Watch | None = None,
    progress: Progress = SILENT,
) -> RowTable:
    """The row table of `path`, which is written, or kept if it still matches the files.

    A file is unchanged if its size and time are, or else its digest. Unchanged rows are copied from the former file.
    stamps: of the files as they are now, where the caller knows them; digests in them spare a reading.
    Raises InputError if the place cannot be written to, and whatever `watch` raises.
    """
    former = _former(path, limit)
    now = files.stat(keys) if stamps is None else stamps
    if former is not None and not retry_failed and _unchanged(former, files, keys, now):
        progress.note(f"Using {path.name}: it matches the {len(keys):,} images.")
        return former.table
    reuse = _reusable(former, keys, now, retry_failed)
    rows_of = _Rows(len(keys))
    token = secrets.token_bytes(TOKEN_BYTES)

    def make(rows: np.ndarray) -> list[Packed]:
        kept = [reuse(row) for row in rows.tolist()]
        read = [keys[row] for row, old in zip(rows.tolist(), kept) if old is None]
        fresh = [pack_bytes(content, limit) for content in files.read(read)]
        failed = {key: item.reason for key, item in zip(read, fresh) if item.reason}
        if watch is not None and read:
            watch(len(read), failed)
        rest = iter(fresh)
        return [old or next(rest) for old in kept]

    with _replacing(path) as temporary, open(temporary, "wb", buffering=1 << 20) as file:
        writer = BetonWriter(file, len(keys), token)
        with progress.track(f"packing {path.name}", total=len(keys), unit="images") as task:
            for rows, packed in in_chunks(make, np.arange(len(keys)), threads=threads or 2 * cpu_count()):
                for row, item in zip(rows.tolist(), packed):
                    writer.add(item.sample)
                    rows_of.take(row, item)
                task.advance(len(rows))
        writer.finish()
        file.flush()
        os.fsync(file.fileno())
        table = rows_of.table(keys, limit, token)
        write_rows(table, table_path(temporary))
    return table


class Packed(NamedTuple):
    """One row: what is stored, and the file it was made from. `reason` is empty for a readable image; width and height
    are the upright image's before any reduction."""

    sample: Sample
    reason: str
    digest: bytes
    size: int
    mtime_ns: int
    width: int = 1
    height: int = 1


def pack_bytes(content: FileContent, limit: Limit) -> Packed:
    """The sample of one file; never raises for a bad one."""
    data, file_size, mtime_ns, reason = content
    if reason:
        return Packed(PLACEHOLDER, reason, bytes(DIGEST_BYTES), file_size, mtime_ns)
    digest = digest_of(data)
    header = read_plain_header(data)
    if header is not None and len(data) <= PAGE_SIZE and limit.factor(*header.size) == 1:
        return Packed(Sample(JPEG, *header.size, data), "", digest, file_size, mtime_ns, *header.size)
    try:
        image, size = decode_reduced(data, limit.factor)
    except UnreadableImage as exc:
        return Packed(PLACEHOLDER, exc.reason, digest, file_size, mtime_ns)
    return Packed(_store(image), "", digest, file_size, mtime_ns, *size)


def _store(image: Image.Image) -> Sample:
    if 3 * image.width * image.height <= RAW_UP_TO:
        return Sample(RAW, image.width, image.height, image.tobytes())
    for quality in (JPEG_QUALITY, 75, 30):
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
        if buffer.tell() <= PAGE_SIZE:
            break
    return Sample(JPEG, image.width, image.height, buffer.getvalue())


class _Rows:
    """The columns of a row table as they fill up."""

    def __init__(self, count: int) -> None:
        self._stamps = no_stamps(count)
        self._status_N = np.full(count, Status.OK, dtype=np.int8)
        self._shape_N2 = np.ones((count, 2), dtype=np.int32)
        self._reason: dict[int, str] = {}

    def take(self, row: int, item: Packed) -> None:
        self._stamps.digest_N16[row] = np.frombuffer(item.digest, dtype=np.uint8)
        self._stamps.size_N[row], self._stamps.mtime_ns_N[row] = item.size, item.mtime_ns
        self._shape_N2[row] = item.height, item.width
        if item.reason:
            self._status_N[row] = Status.FAILED
            self._reason[row] = item.reason

    def table(self, keys: list[str], limit: Limit, token: bytes) -> RowTable:
        return RowTable(
            keys=list(keys),
            status_N=self._status_N,
            reason=self._reason,
            stamps=self._stamps,
            shape_N2=self._shape_N2,
            limit=limit.short_side,
            token=token,
        )


# --- what an earlier run left ----------------------------------------------------------------------------------------


class _Former(NamedTuple):
    table: RowTable
    beton: BetonFile


def _former(path: Path, limit: Limit) -> _Former | None:
    """The pair an earlier run wrote, if it is whole and was made under a limit that is high enough."""
    try:
        former = _Former(read_rows(table_path(path)), BetonFile(path))
    except (OSError, ValueError):
        return None
    if former.table.token != former.beton.token or len(former.table) != len(former.beton):
        return None
    if former.table.limit < limit.short_side and _any_reduced(former):
        return None
    return former


def _any_reduced(former: _Former) -> bool:
    stored = former.beton.sample
    return bool((former.table.shape_N2 != np.stack([stored["height"], stored["width"]], axis=1)).any())


def _unchanged(former: _Former, files: ImageFiles, keys: list[str], now: FileStamps) -> bool:
    if former.table.keys != keys:
        return False
    moved_N = ~same_file(now, former.table.stamps) & ~((now.size_N < 0) & (former.table.stamps.size_N < 0))
    if not moved_N.any():
        return True
    rows = np.flatnonzero(moved_N)
    if (now.size_N[rows] != former.table.stamps.size_N[rows]).any():
        return False
    known_N = now.at(rows).digest_N16.any(axis=1)
    if not same_content(now.at(rows[known_N]), former.table.stamps.at(rows[known_N])).all():
        return False
    rows = rows[~known_N]
    read = stamp_files(files, [keys[row] for row in rows.tolist()])
    return bool(same_content(read, former.table.stamps.at(rows)).all())


def _reusable(
    former: _Former | None, keys: list[str], now: FileStamps, retry_failed: bool
) -> Callable[[int], Packed | None]:
    """row → its sample in the former file, or None where the file must be read (again)."""
    if former is None:
        return lambda row: None
    table, beton = former
    old_row = {key: row for row, key in enumerate(table.keys)}
    old_N = np.array([old_row.get(key, -1) for key in keys], dtype=np.int64)
    before = table.stamps.at(np.maximum(old_N, 0))
    same_N = (old_N >= 0) & (same_file(now, before) | same_content(now, before))

    def reuse(row: int) -> Packed | None:
        old = int(old_N[row])
        if not same_N[row] or (retry_failed and old in table.reason):
            return None
        stamps = table.stamps
        return Packed(
            beton[old],
            table.reason.get(old, ""),
            stamps.digest_N16[old].tobytes(),
            int(stamps.size_N[old]),
            int(now.mtime_ns_N[row]),
            *reversed(table.shape_N2[old].tolist()),
        )

    return reuse


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path; when the `with` ends well, it and its row table take the place of `path` and its."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # The tokens differ between these two steps, and a pair whose tokens differ is packed anew.
        os.replace(temporary, path)
        os.replace(table_path(temporary), table_path(path))
    except OSError as exc:
        raise InputError(
            f"The FFCV file {str(path)!r} cannot be written: {exc.strerror or exc}.",
            do="Free space or give a store elsewhere with --store, or use --loader torch, which needs no such file.",
        ) from exc
    finally:
        with suppress(OSError):
            temporary.unlink()
        with suppress(OSError):
            table_path(temporary).unlink()
