"""The members of a tar by their headers alone: name, where the data begins, how long it is. Data are seeked past.

`tarfile` of the standard library reads each header (ustar, GNU, pax). What it passes over in silence is told here: a
damaged header, a tar that was cut short. Links, folders, devices and sparse files are no regular members and come with
size -1. Blocks of zeros are passed over, so that tars which were concatenated are read to their end.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

NO_FILE = -1  # as a size: not a regular file

Pread = Callable[[int, int], bytes]  # (offset, count) → bytes, fewer only at the end

_REGULAR = (*tarfile.REGTYPE, *tarfile.AREGTYPE)
_LONGEST_READ = 1 << 20  # of a long name or a pax header; a damaged size would ask for the whole file


class Member(NamedTuple):
    """name: as UTF-8, with surrogates for bytes that are none."""

    name: str
    offset: int
    size: int


class DamagedTar(Exception):
    """What is wrong at `offset`; the members before it are whole."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {offset:,}")
        self.offset = offset
        self.reason = reason


class WindowedFile:
    """A file for `tarfile` that reads `step` bytes at a time: headers of neighbours come with one read."""

    def __init__(self, pread: Pread, size: int, step: int) -> None:
        self.size = size
        self._pread = pread
        self._step = step
        self._at = 0
        self._start = 0
        self._data = b""

    def get(self, at: int, count: int) -> bytes:
        begin = at - self._start
        if begin < 0 or begin + count > len(self._data):
            self._data = self._pread(at, max(count, self._step))
            self._start, begin = at, 0
        return self._data[begin : begin + count]

    def read(self, count: int) -> bytes:
        data = self.get(self._at, min(count, _LONGEST_READ))
        self._at += len(data)
        return data

    def seek(self, at: int) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at


class _Headers(tarfile.TarFile):
    def next(self) -> None:
        """Nothing is read ahead: `members` asks for header after header, and so learns why one cannot be read."""


def members(file: WindowedFile) -> Iterator[Member]:
    """Every member in order. Raises DamagedTar where headers end or make no sense before the end mark."""
    tar = _Headers(fileobj=cast(Any, file), encoding="utf-8", errors="surrogateescape")
    at, ended = 0, False
    while at < file.size:
        if not tar.pax_headers and (plain := _plain(file.get(at, tarfile.BLOCKSIZE), at, file.size)) is not None:
            yield plain
            at, ended = plain.offset + -(-plain.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, False
            continue
        file.seek(at)
        try:
            info = tarfile.TarInfo.fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            at, ended = at + tarfile.BLOCKSIZE, True
            continue
        except (tarfile.HeaderError, ValueError, OverflowError, RecursionError) as exc:
            rest = file.get(at, tarfile.BLOCKSIZE)
            if ended and len(rest) < tarfile.BLOCKSIZE and not rest.strip(b"\0"):
                return
            cut = len(rest) < tarfile.BLOCKSIZE
            raise DamagedTar(at, "cut short" if cut else f"a damaged header ({exc})") from exc
        if info.size < 0 or tar.offset <= at:
            raise DamagedTar(at, "a header with a negative size")
        regular = info.isreg() and not info.issparse()
        if (info.offset_data + info.size if regular else tar.offset) > file.size:
            raise DamagedTar(at, f"cut short: a member of {info.size:,} bytes begins and the file ends")
        yield Member(info.name, info.offset_data, info.size if regular else NO_FILE)
        at, ended = tar.offset, False
    if not ended:
        raise DamagedTar(file.size, "no end mark, so it may have been cut short")


def _plain(block: bytes, at: int, end: int) -> Member | None:
    """The regular file of a header that says all of it, as `tarfile` reads it at several times the cost; None for every
    other header, damaged ones among them."""
    if len(block) < tarfile.BLOCKSIZE or block[156] not in _REGULAR or block[345] or block[124] & 0x80:
        return None
    try:
        size = int(block[124:136].partition(b"\0")[0], 8)
        checksum = int(block[148:156].partition(b"\0")[0], 8)
    except ValueError:
        return None
    name = block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    offset = at + tarfile.BLOCKSIZE
    whole = 0 <= size <= end - offset and checksum == sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return Member(name, offset, size) if whole and not name.endswith("/") else None
