"""The one atomic writer: a file holds its old content or all of the new, after a crash at any moment.

Data goes to a temporary file in the same folder, `.<name>.<host>.<pid>.<random>.partial`, which is synchronised and
then renamed; the folder is synchronised last. What killed processes left is removed by the next writer of that name, or
by `remove_partials` for whoever holds the folder's lock.
"""

from __future__ import annotations

import errno
import glob
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cleanctl.errors import StoreError

NAME_CHARACTERS = 40  # of the file and of the host: a name may have 255 bytes in all

_REMEDIES = {
    errno.ENOSPC: "Free some space there and run the same command again.",
    errno.EDQUOT: "Free some of the quota and run the same command again.",
    errno.EROFS: "Choose a place that can be written: --store for a store, --out for a file.",
    errno.EACCES: "Change its permissions, or choose another place: --store for a store, --out for a file.",
    errno.EPERM: "Change its permissions, or choose another place: --store for a store, --out for a file.",
}
_in_use: set[str] = set()  # names of this process: after a restart in a container the same pid is another process


@contextmanager
def reporting_disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError (a full disk, a read-only folder) into a StoreError that says what to do."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{path} cannot be written: {exc.strerror or exc}.",
            so="What was committed before is kept.",
            do=_REMEDIES.get(exc.errno or 0, "Correct that and run the same command again."),
        ) from exc


def write_file(path: Path, data: bytes | bytearray | memoryview, *, exclusive: bool = False) -> None:
    """Writes `path` whole or not at all; raises StoreError if the disk refuses.

    With `exclusive` an existing file is left alone and FileExistsError is raised.
    """
    with reporting_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as partial:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            placed = _link(partial, path) if exclusive else _rename(partial, path)
        sync_folder(path.parent)
    if not placed:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` if the `with` ends well. Raises OSError.

    Leftovers of dead processes of this host are removed first: they can be as large as the images.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*.partial"):
        if _is_leftover(leftover.name):
            leftover.unlink(missing_ok=True)
    with _temporary(path) as partial:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partials(folder: Path) -> None:
    """Deletes what killed writers left in `folder` and below; the caller holds the folder's lock."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    partial = path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.partial")
    _in_use.add(partial.name)
    try:
        yield partial
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    finally:
        _in_use.discard(partial.name)


def _rename(partial: Path, path: Path) -> bool:
    partial.replace(path)
    return True


def _link(partial: Path, path: Path) -> bool:
    """Whether `path` was free; unlike a rename, a link never replaces."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def _prefix(path: Path) -> str:
    return f".{path.name[:NAME_CHARACTERS]}.{platform.node()[:NAME_CHARACTERS]}."


def _is_leftover(name: str) -> bool:
    process = name.split(".")[-3]
    if not process.isdigit():
        return False
    if int(process) == os.getpid():
        return name not in _in_use
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
