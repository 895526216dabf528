"""Where a source lies, for those who read parts of it: a folder of this machine (here) or a URL (`remote.py`).

A Place lists what is there, and reads spans of its tars. Nothing is written and no handle is kept between calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cleanctl.errors import InputError
from cleanctl.files.local import LocalStorage, reason_of
from cleanctl.files.scan import Scan, file_kind, find_images
from cleanctl.files.tar_headers import Pread
from cleanctl.paths import is_url
from cleanctl.paths import location as location_of
from cleanctl.records import Storage

HEADER_WINDOW = 1 << 13  # a page or two: the image's neighbours' headers, and not the next image
GIVE = "Give a folder that holds the images, or a tar."
CHANGED = "the tar has changed since it was listed; run again"


class Tar(NamedTuple):
    """name: its path relative to the place. mtime_ns: any number that another content would change."""

    name: str
    size: int
    mtime_ns: int


class Span(NamedTuple):
    tar: Tar
    start: int
    size: int


class Place(Protocol):
    """`window` bytes are read at a time where headers are walked, by `threads` at once."""

    location: str
    window: int
    threads: int

    def scan(self) -> Scan: ...

    def files(self) -> Storage: ...

    def tar(self, name: str) -> Tar:
        """Raises OSError if it is not there."""
        ...

    def open_tar(self, tar: Tar) -> AbstractContextManager[Pread]:
        """(offset, count) → bytes, for a walk over the headers; raises OSError."""
        ...

    def read_spans(self, spans: Sequence[Span]) -> list[bytes | str]:
        """The bytes of each span, or (a str) why they cannot be read; in the order of `spans`, read in offset order."""
        ...


class Located(NamedTuple):
    """What a user's SOURCE turns out to be: a place, or one tar in it. location: of the SOURCE itself."""

    location: str
    place: Place
    tar: str | None


def locate(source: str) -> Located:
    """Raises InputError where there is nothing, or a file that is no tar."""
    location = location_of(source)
    if is_url(location):
        return _locate_url(location)
    if os.path.isdir(location):
        return Located(location, LocalPlace(location), None)
    if not os.path.exists(location):
        raise InputError(f"The source {source!r} does not exist.", do=GIVE)
    refuse_other_file(location)
    folder, name = os.path.split(location)
    return Located(location, LocalPlace(folder), name)


def _locate_url(url: str) -> Located:
    from cleanctl.files.remote import UrlPlace, refuse_password

    refuse_password(url)
    if file_kind(url) is None:
        return Located(url, UrlPlace(url), None)
    refuse_other_file(url)
    folder, _, name = url.rpartition("/")
    return Located(url, UrlPlace(folder), name)


def refuse_other_file(location: str) -> None:
    """InputError for a file that is no plain tar."""
    kind = file_kind(location)
    if kind == "packed":
        raise packed_tar(location)
    if kind != "tars":
        raise InputError(f"The source {location!r} is a file and no tar.", do=GIVE)


def packed_tar(name: str) -> InputError:
    return InputError(
        f"{name!r} is a compressed tar.",
        so="Its images cannot be read in place; each look at one would mean unpacking all before it.",
        do="Unpack it to a plain .tar (gunzip, unxz, zstd -d); JPEG files hardly shrink in such a tar anyway.",
    )


@dataclass
class LocalPlace:
    """A folder of this machine."""

    location: str
    window: int = HEADER_WINDOW
    threads: int = 1

    def scan(self) -> Scan:
        return find_images(self.location)

    def files(self) -> Storage:
        return LocalStorage(self.location)

    def tar(self, name: str) -> Tar:
        stat = os.stat(self._path(name))
        return Tar(name, stat.st_size, stat.st_mtime_ns)

    @contextmanager
    def open_tar(self, tar: Tar) -> Iterator[Pread]:
        handle = os.open(self._path(tar.name), os.O_RDONLY)
        try:
            yield lambda offset, count: os.pread(handle, count, offset)
        finally:
            os.close(handle)

    def read_spans(self, spans: Sequence[Span]) -> list[bytes | str]:
        out: list[bytes | str] = [""] * len(spans)
        by_tar: dict[Tar, list[int]] = {}
        for index, span in enumerate(spans):
            by_tar.setdefault(span.tar, []).append(index)
        for tar, indices in by_tar.items():
            indices.sort(key=lambda index: spans[index].start)
            for index, data in zip(indices, self._read(tar, [spans[index] for index in indices])):
                out[index] = data
        return out

    def _read(self, tar: Tar, spans: list[Span]) -> list[bytes | str]:
        try:
            handle = os.open(self._path(tar.name), os.O_RDONLY)
            try:
                stat = os.fstat(handle)
                if (stat.st_size, stat.st_mtime_ns) != (tar.size, tar.mtime_ns):
                    return [CHANGED] * len(spans)
                return [_pread(handle, span) for span in spans]
            finally:
                os.close(handle)
        except OSError as exc:
            return [f"{tar.name}: {reason_of(exc)}"] * len(spans)

    def _path(self, name: str) -> str:
        return f"{self.location}/{name}"


def _pread(handle: int, span: Span) -> bytes | str:
    data = os.pread(handle, span.size, span.start)
    while 0 < len(data) < span.size:  # a read stops at 2 GiB, or at a signal
        more = os.pread(handle, span.size - len(data), span.start + len(data))
        if not more:
            break
        data += more
    return data if len(data) == span.size else CHANGED
