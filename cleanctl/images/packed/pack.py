"""Image files → one `.beton` file and its row table, each file read once.

In: the keys of a source. Out, on disk: `PATH` and `PATH.parquet`, first written under a temporary name, synchronised,
then renamed; a run that is killed leaves the former pair, or none, and one that is stopped what it has packed. Row i is
key i; a file that cannot be read is a failed row with its reason, and a 1×1 placeholder keeps its place.

Plain JPEGs within the resolution limit are stored byte for byte: nothing is lost and packing runs at the speed of
reading. Everything else is decoded (`decode.py`), reduced to the limit if it exceeds it, and stored as pixels if
small, else as a JPEG of quality 97 without chroma subsampling.

The limit keeps memory bounded: a reader's scratch is sized by the largest stored image. It bounds the *short* side,
because that is what a model's input is scaled by; at twice the model's input size or more, the second resampling
stays within the promise on pixels (tests/data measures it), whatever the aspect ratio.
"""

from __future__ import annotations

import math
import secrets
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cleanctl.errors import InputError
from cleanctl.files.atomic import replacing
from cleanctl.files.fingerprints import (
    DIGEST_BYTES,
    digest_of,
    fingerprint_files,
    in_chunks,
    no_fingerprints,
    same_content,
    same_file,
)
from cleanctl.files.keys import Keys
from cleanctl.images.decode import UnreadableImage, decode_reduced
from cleanctl.images.jpeg import read_plain_header
from cleanctl.images.packed.beton import JPEG, PAGE_SIZE, PLACEHOLDER, RAW, TOKEN_BYTES, BetonFile, BetonWriter, Sample
from cleanctl.images.packed.rows import RowTable, read_rows, table_path, write_rows
from cleanctl.progress import SILENT, Progress
from cleanctl.records import FileContent, Fingerprints, Status, Storage
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
    """The limit under which crops of `size` pixels keep the promise on pixels."""
    return Limit(max(512, 2 * size))


def pack(
    *,
    files: Storage,
    keys: Sequence[str],
    path: Path,
    limit: Limit,
    threads: int | None = None,
    retry_failed: bool = False,
    fingerprints: Fingerprints | None = None,
    watch: Watch | None = None,
    progress: Progress = SILENT,
) -> RowTable:
    """The row table of `path`, which is written, or kept if it still matches the files.

    A file is unchanged if its size and time are, or else its digest. Unchanged rows are copied from the former file.
    fingerprints: of the files as they are now, where the caller knows them; digests in them spare a reading.
    Raises InputError if the place cannot be written to, and whatever `watch` raises.
    """
    former = _former(path, limit)
    now = files.stat(keys) if fingerprints is None else fingerprints
    if former is not None and not retry_failed and _unchanged(former, files, keys, now):
        progress.note(f"Using {path.name}: it matches the {len(keys):,} images.")
        return former.table
    former_rows = _FormerRows(former, keys, now, retry_failed)
    packing = Packing(
        files=files,
        keys=keys,
        path=path,
        limit=limit,
        former=former_rows,
        size_N=now.size_N,
        threads=threads,
        watch=watch,
    )
    with closing(packing), progress.track(f"packing {path.name}", total=len(keys), unit="images") as task:
        for rows, _ in packing:
            task.advance(len(rows))
    return packing.table


def begin_packing(
    *,
    files: Storage,
    keys: Sequence[str],
    path: Path,
    limit: Limit,
    first_row: int,
    fingerprints: Fingerprints | None = None,
) -> Packing | None:
    """Begins `path`, or goes on with what a stopped run left of it.

    None where `pack` is called for: the file is whole, or rows before `first_row` would have to be read.
    """
    former = _former(path, limit)
    if former is not None and (former.table.status_N != Status.PENDING).all():
        return None
    now = files.stat(keys) if fingerprints is None else fingerprints
    former_rows = _FormerRows(former, keys, now, retry_failed=False)
    if not former_rows.has_all(first_row):
        return None
    return Packing(files=files, keys=keys, path=path, limit=limit, former=former_rows, size_N=now.size_N)


class Packing:
    """A file that is packed as this is iterated: (rows, what is stored of each), chunk by chunk, in order.

    After the last chunk the file is in its place. Ended early by `close`, it is put there as far as it came, its other
    rows PENDING, if that is further than the former file: the next `pack` goes on from it. size_N: of the files, bytes.
    fingerprints: of the files read so far. Raises InputError if the place cannot be written to, from the start.
    """

    def __init__(
        self,
        *,
        files: Storage,
        keys: Sequence[str],
        path: Path,
        limit: Limit,
        former: _FormerRows,
        size_N: np.ndarray,
        threads: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._bytes_each = float(size_N.clip(0).mean()) if len(size_N) else 0.0
        self._files, self._keys, self._path, self._limit = files, keys, path, limit
        self._threads, self._watch, self._former = threads or 2 * cpu_count(), watch, former
        self._rows = _Rows(len(keys))
        self._checksum: int | None = None
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._chunks = self._run()
        next(self._chunks)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[tuple[np.ndarray, list[Packed]]]:
        return self._chunks

    @property
    def fingerprints(self) -> Fingerprints:
        return self._rows.fingerprints

    @property
    def table(self) -> RowTable:
        return self._rows.table(self._keys, self._limit, self._token, self._checksum)

    def close(self) -> None:
        self._chunks.close()

    def _run(self) -> Generator[tuple[np.ndarray, list[Packed]]]:
        row_N = np.arange(len(self))
        with _replacing(self._path) as (beton, table), open(beton, "wb", buffering=1 << 20) as file:
            writer = BetonWriter(file, len(self), self._token)
            done = 0
            try:
                yield row_N[:0], []
                for rows, packed in in_chunks(self._make, row_N, threads=self._threads, bytes_each=self._bytes_each):
                    for row, item in zip(rows.tolist(), packed):
                        writer.add(item.sample)
                        self._rows.take(row, item)
                    done += len(rows)
                    yield rows, packed
            except GeneratorExit:
                if done <= self._former.count:
                    raise
            writer.pad()
            self._checksum = writer.finish()
            write_rows(self.table, table)

    def _make(self, rows: np.ndarray) -> list[Packed]:
        kept = [self._former[row] for row in rows.tolist()]
        read = [self._keys[row] for row, old in zip(rows.tolist(), kept) if old is None]
        fresh = [pack_bytes(content, self._limit) for content in self._files.read(read)]
        failed = {key: item.reason for key, item in zip(read, fresh) if item.reason}
        if self._watch is not None and read:
            self._watch(len(read), failed)
        rest = iter(fresh)
        return [old or next(rest) for old in kept]


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
        self.fingerprints = no_fingerprints(count)
        self._status_N = np.full(count, Status.PENDING, dtype=np.int8)
        self._shape_N2 = np.ones((count, 2), dtype=np.int32)
        self._reason: dict[int, str] = {}
        self._crc_N = np.full(count, zlib.crc32(PLACEHOLDER.data), dtype=np.uint32)

    def take(self, row: int, item: Packed) -> None:
        self.fingerprints.digest_N16[row] = np.frombuffer(item.digest, dtype=np.uint8)
        self.fingerprints.size_N[row], self.fingerprints.mtime_ns_N[row] = item.size, item.mtime_ns
        self._shape_N2[row] = item.height, item.width
        self._crc_N[row] = zlib.crc32(item.sample.data)
        self._status_N[row] = Status.FAILED if item.reason else Status.OK
        if item.reason:
            self._reason[row] = item.reason

    def table(self, keys: Sequence[str], limit: Limit, token: bytes, checksum: int | None) -> RowTable:
        return RowTable(
            keys=Keys.of(keys),
            status_N=self._status_N,
            reason=self._reason,
            fingerprints=self.fingerprints,
            shape_N2=self._shape_N2,
            limit=limit.short_side,
            token=token,
            crc_N=self._crc_N,
            checksum=checksum,
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
    table, beton = former
    if table.token != beton.token or len(table) != len(beton) or table.checksum not in (None, beton.checksum):
        return None
    if former.table.limit < limit.short_side and _any_reduced(former):
        return None
    return former


def _any_reduced(former: _Former) -> bool:
    stored = former.beton.sample
    return bool((former.table.shape_N2 != np.stack([stored["height"], stored["width"]], axis=1)).any())


def _unchanged(former: _Former, files: Storage, keys: Sequence[str], now: Fingerprints) -> bool:
    if former.table.keys != keys or (former.table.status_N == Status.PENDING).any():
        return False
    moved_N = ~same_file(now, former.table.fingerprints) & ~((now.size_N < 0) & (former.table.fingerprints.size_N < 0))
    if not moved_N.any():
        return True
    rows = np.flatnonzero(moved_N)
    if (now.size_N[rows] != former.table.fingerprints.size_N[rows]).any():
        return False
    known_N = now.at(rows).digest_N16.any(axis=1)
    if not same_content(now.at(rows[known_N]), former.table.fingerprints.at(rows[known_N])).all():
        return False
    rows = rows[~known_N]
    read = fingerprint_files(files, [keys[row] for row in rows.tolist()])
    return bool(same_content(read, former.table.fingerprints.at(rows)).all())


class _FormerRows:
    """row → its sample in the former file, or None where the file must be read (again). count: of those it has."""

    def __init__(self, former: _Former | None, keys: Sequence[str], now: Fingerprints, retry_failed: bool) -> None:
        self.count = 0
        self._former, self._now, self._retry_failed = former, now, retry_failed
        self._same_N = np.zeros(len(keys), dtype=bool)
        if former is None:
            return
        self._old_N = former.table.keys.rows_of(keys)
        before = former.table.fingerprints.at(np.maximum(self._old_N, 0))
        self._same_N = (self._old_N >= 0) & (same_file(now, before) | same_content(now, before))
        self.count = int(self._same_N.sum())

    def has_all(self, stop: int) -> bool:
        """Whether the rows before `stop` are there."""
        return bool(self._same_N[:stop].all())

    def __getitem__(self, row: int) -> Packed | None:
        if self._former is None or not self._same_N[row]:
            return None
        (table, beton), old = self._former, int(self._old_N[row])
        sample = beton[old]
        if (self._retry_failed and old in table.reason) or not table.has(old, sample.data):
            return None
        return Packed(
            sample,
            table.reason.get(old, ""),
            table.fingerprints.digest_N16[old].tobytes(),
            int(table.fingerprints.size_N[old]),
            int(self._now.mtime_ns_N[row]),
            *reversed(table.shape_N2[old].tolist()),
        )


@contextmanager
def _replacing(path: Path) -> Iterator[tuple[Path, Path]]:
    """Temporary paths of an FFCV file and its row table; when the `with` ends well, both take their places."""
    try:
        # The tokens differ between the two renames, and a pair whose tokens differ is packed again.
        with replacing(table_path(path)) as table, replacing(path) as beton:
            yield beton, table
    except OSError as exc:
        raise InputError(
            f"The FFCV file {str(path)!r} cannot be written: {exc.strerror or exc}.",
            do="Free space or give a store elsewhere with --store, or use --loader torch, which needs no such file.",
        ) from exc
