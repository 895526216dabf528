"""The files of a folder of this machine, read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleanctl.files.fingerprints import MISSING, no_fingerprints
from cleanctl.records import FileContent, Fingerprints


@dataclass(frozen=True)
class LocalStorage:
    """The `Storage` of a folder: keys are paths relative to it."""

    location: str

    @classmethod
    def of(cls, root: Path | str) -> LocalStorage:
        return cls(os.path.abspath(root))

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        for row, key in enumerate(keys):
            try:
                stat = os.stat(f"{self.location}/{key}")
            except OSError:
                continue
            fingerprints.size_N[row], fingerprints.mtime_ns_N[row] = stat.st_size, stat.st_mtime_ns
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        return (read_file(f"{self.location}/{key}") for key in keys)

    def head(self, key: str, count: int) -> bytes:
        try:
            with open(f"{self.location}/{key}", "rb") as file:
                return file.read(count)
        except OSError:
            return b""


def unread(reason: str) -> FileContent:
    """A file that could not be read."""
    return FileContent(b"", MISSING, 0, reason)


def read_file(path: str) -> FileContent:
    """Bytes and state of the same open file: one that is replaced meanwhile gives no mixture."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            stat = os.fstat(handle)
            parts = [os.read(handle, stat.st_size + 1)]
            while len(parts[-1]) and sum(map(len, parts)) < stat.st_size:
                parts.append(os.read(handle, stat.st_size))
            data = b"".join(parts) if len(parts) > 1 else parts[0]
            return FileContent(data, stat.st_size, stat.st_mtime_ns)
        finally:
            os.close(handle)
    except OSError as exc:
        return unread(reason_of(exc))


def reason_of(exc: OSError) -> str:
    if isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        return "file not found"
    if isinstance(exc, PermissionError):
        return "no permission to read the file"
    if isinstance(exc, IsADirectoryError):
        return "a folder, not a file"
    return f"the file cannot be read: {exc.strerror or exc}"
