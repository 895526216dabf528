"""Sources behind a URL, through fsspec: s3://, gs://, http(s)://, memory:// and whatever else it has a package for.

Nothing is copied to this machine's disk. A file of a folder is one request, many under way at once; images of a tar
that lie near each other are one request. Retries of a transient failure are the protocol's library's own; what fails
after them is a row's reason. Credentials and endpoints are looked up by that library, in its own places.

A file's fingerprint is its size and, in place of a modification time, a number made of its ETag or checksum where the
server tells one, which another content changes and a copy does not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from cleanctl.errors import InputError, MissingPackageError, UsageError
from cleanctl.files.fingerprints import MISSING, no_fingerprints
from cleanctl.files.listing import Scan, file_kind
from cleanctl.files.remote_listing import RemoteListing, list_remote
from cleanctl.files.storage import CHANGED, Span, Tar, in_groups, too_large, unread
from cleanctl.files.tar_headers import Pread
from cleanctl.records import FileContent, Fingerprints

GAP = 1 << 16  # bytes between two images that are rather read than asked for apart
MERGED = 1 << 23  # bytes of one merged request, so that a batch is several at once

_IN_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_CHECKSUMS = ("ETag", "etag", "md5Hash", "md5", "Content-MD5", "content_md5", "checksum")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created")


@dataclass
class UrlStorage:
    """A folder behind a URL: keys are paths relative to it. Its listing is asked for once; a process forked off opens
    connections of its own."""

    location: str
    listing: RemoteListing | None = field(default=None, repr=False)
    window: ClassVar[int] = 1 << 22  # a request costs as much time as megabytes do: the images between headers as well
    threads: ClassVar[int] = 8

    def scan(self) -> Scan:
        return self._list().scan()

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        fingerprints.size_N[:], fingerprints.mtime_ns_N[:] = self._list().of(keys)
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        size_N, fingerprint_N = self._list().of(keys)
        for group in in_groups(size_N.tolist()):
            yield from self._read_group(keys[group], size_N[group].tolist(), fingerprint_N[group].tolist())

    def head(self, key: str, count: int) -> bytes:
        try:
            size = int(self._list().of([key])[0][0])
        except InputError:
            return b""
        data = self._fetch([(key, 0, min(count, size))])[0] if min(count, size) > 0 else b""
        return data if isinstance(data, bytes) else b""

    def _read_group(self, keys: Sequence[str], sizes: list[int], fingerprints: list[int]) -> Iterator[FileContent]:
        # One byte more than it has: a file that grew is told from one that is whole. No range fits an empty file.
        asked = [(key, 0, size + 1) for key, size in zip(keys, sizes) if size > 0 and not too_large(size)]
        got = iter(self._fetch(asked) if asked else ())
        for size, fingerprint in zip(sizes, fingerprints):
            if reason := "file not found" if size < 0 else too_large(size):
                yield unread(reason)
                continue
            data = next(got) if size else b""
            if isinstance(data, str):
                yield unread(data)
            else:
                yield FileContent(data, size, fingerprint) if len(data) == size else unread(CHANGED)

    def tar(self, name: str) -> Tar:
        if self.listing is not None and name in self.listing.keys:
            size_1, fingerprint_1 = self.listing.of([name])
            return Tar(name, int(size_1[0]), int(fingerprint_1[0]))
        with _failures(self._url(name)):
            system, base = _open(self.location)
            system.invalidate_cache()
            return Tar(name, *_fingerprint(system.info(f"{base}/{name}")))

    @contextmanager
    def open_tar(self, tar: Tar) -> Iterator[Pread]:
        def pread(offset: int, count: int) -> bytes:
            with _failures(self._url(tar.name)):
                system, base = _open(self.location)
                data = system.cat_file(f"{base}/{tar.name}", start=offset, end=min(offset + count, tar.size))
            if len(data) > count:
                raise OSError(None, f"the server of {self._url(tar.name)} sends whole files where a part is asked for")
            return data

        yield pread

    def read_spans(self, spans: Sequence[Span]) -> list[bytes | str]:
        merged = _merge(spans)
        asked = [(tar.name, start, stop) for tar, start, stop, _ in merged]
        out: list[bytes | str] = [""] * len(spans)
        fetched = self._fetch(asked)
        changed = {tar for tar in {span.tar for span in spans} if self._has_changed(tar)}
        for (tar, start, stop, indices), data in zip(merged, fetched):
            for index in indices:
                at = spans[index].start - start
                whole = isinstance(data, str) or (len(data) == stop - start and tar not in changed)
                part = data if isinstance(data, str) else data[at : at + spans[index].size]
                out[index] = part if whole else CHANGED
        return out

    def _has_changed(self, tar: Tar) -> bool:
        """Whether the tar is another since it was listed: the bytes at its old offsets would be anything."""
        system, base = _open(self.location)
        try:
            system.invalidate_cache(base)
            info = system.info(f"{base}/{tar.name}")
        except Exception:  # noqa: BLE001 — of any library; what could not be fetched has its own reason
            return True
        size, fingerprint = _fingerprint(info)
        return size != tar.size or (_tells_content(info) and fingerprint != tar.mtime_ns)

    def _fetch(self, ranges: Sequence[tuple[str, int | None, int | None]]) -> list[bytes | str]:
        """(name, start, stop) → bytes, or the reason why not; all under way together."""
        system, base = _open(self.location)
        paths = [f"{base}/{name}" for name, _, _ in ranges]
        starts, stops = [start for _, start, _ in ranges], [stop for _, _, stop in ranges]
        got = system.cat_ranges(paths, starts, stops, on_error="return")
        return [_reason(data) if isinstance(data, BaseException) else data for data in got]

    def _list(self) -> RemoteListing:
        if self.listing is None:
            with _failures(self.location):
                system, base = _open(self.location)
                prints = partial(_fingerprints, system, base)
                self.listing = list_remote(system, base, prints, threads=self.threads)
        return self.listing

    def _url(self, name: str) -> str:
        return f"{self.location}/{name}"


def read_url(url: str) -> bytes:
    """A whole file. Raises InputError."""
    with _failures(url):
        system, path = _open(url)
        return system.cat_file(path)


def refuse_password(url: str) -> None:
    """UsageError for a URL that carries a secret: provenance would keep it."""
    parts = urlsplit(url)
    if parts.password:
        raise UsageError(
            f"The URL of {parts.hostname} holds a password.",
            so="It would be written into the store.",
            do="Give credentials where the protocol's library looks for them: see docs/sources.md.",
        )


# --- the file system


@lru_cache(maxsize=16)
def _open_in(url: str, process: int) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as exc:
        raise MissingPackageError.of("fsspec", extra="remote", needed_for=f"URLs such as {url}") from exc
    protocol = url.partition("://")[0]
    try:
        system, path = url_to_fs(url)
    except ImportError as exc:
        package = _IN_EXTRA.get(protocol)
        if package is not None:
            raise MissingPackageError.of(package, extra="remote", needed_for=f"{protocol}:// URLs") from exc
        raise MissingPackageError(
            f"A package for {protocol}:// URLs is not installed.", so=f"fsspec says: {exc}.", do="Install that package."
        ) from exc
    except ValueError as exc:
        raise InputError(
            f"fsspec knows no protocol {protocol!r} (in {url!r}).", do="Check the URL, e.g. s3://bucket/folder."
        ) from exc
    return system, path.rstrip("/")


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it; connections are those of this process and no other."""
    return _open_in(url, os.getpid())


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """What the libraries raise, each its own, as an InputError with the remedy that fits."""
    try:
        yield
    except (InputError, MissingPackageError):
        raise
    except Exception as exc:
        raise InputError(f"{url!r} cannot be read: {_reason(exc)}.", do=_remedy(exc)) from exc


def _reason(exc: BaseException) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, FileNotFoundError):
        return "not found" if len(text) > 120 or "/" not in text else f"not found ({text})"
    return f"{type(exc).__name__}: {text[:200].rstrip('.')}"


def _remedy(exc: BaseException) -> str:
    kind = type(exc).__name__
    if isinstance(exc, FileNotFoundError):
        return "Check the bucket and the path, and the endpoint (AWS_ENDPOINT_URL) if it is not Amazon's."
    if isinstance(exc, PermissionError) or "Credential" in kind or "Token" in kind:
        return (
            "Give credentials where the library looks for them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, for s3; for a public bucket set FSSPEC_S3_ANON=true."
        )
    return "Check the URL and the connection; docs/sources.md says where credentials and endpoints are looked up."


def _fingerprints(system: Any, base: str, found: dict[str, Any]) -> list[tuple[int, int]]:
    """Of each file, by what the listing says of it; where it is silent, each file is asked."""

    def one(item: tuple[str, Any]) -> tuple[int, int]:
        name, info = item
        if info.get("size") is None and file_kind(name) is not None:
            info = info | system.info(f"{base}/{name}")
        return _fingerprint(info)

    if all(info.get("size") is not None for info in found.values()):
        return [_fingerprint(info) for info in found.values()]
    with ThreadPoolExecutor(2 * UrlStorage.threads) as pool:
        return list(pool.map(one, found.items()))


def _tells_content(info: dict[str, Any]) -> bool:
    return any(info.get(name) for name in (*_CHECKSUMS, *_TIMES))


def _fingerprint(info: dict[str, Any]) -> tuple[int, int]:
    """(size, a number in 1…2^63-1 that another content would change). A server that tells neither checksum nor time
    gives the present time: such files are read again by every run, for their digest."""
    size = MISSING if info.get("size") is None else int(info["size"])
    tells: Any = next((str(info[name]) for name in _CHECKSUMS if info.get(name)), None)
    tells = tells or next((info[name] for name in _TIMES if info.get(name)), None)
    if hasattr(tells, "timestamp"):
        tells = tells.timestamp()
    if isinstance(tells, str):
        digest = hashlib.blake2b(tells.encode(), digest_size=8).digest()
        return size, int.from_bytes(digest, "big") >> 1 | 1
    return size, time.time_ns() if tells is None else int(tells * 1e9)


def _merge(spans: Sequence[Span]) -> list[tuple[Tar, int, int, list[int]]]:
    """(tar, start, stop, the spans in it) for as few requests as neighbours allow."""
    merged: list[tuple[Tar, int, int, list[int]]] = []
    for index in sorted(range(len(spans)), key=lambda index: spans[index][:2]):
        tar, start, size = spans[index]
        if merged:
            last, first, stop, indices = merged[-1]
            if last == tar and start - stop <= GAP and start + size - first <= MERGED:
                indices.append(index)
                merged[-1] = (tar, first, max(stop, start + size), indices)
                continue
        merged.append((tar, start, start + size, [index]))
    return merged
