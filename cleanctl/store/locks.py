"""One writer at a time, in one process or one process a shard.

Locks are files beside the store, `.cleanctl.zarr.lock`, `.cleanctl.zarr.shard-0-of-4.lock` and
`.cleanctl.zarr.decisions.lock`. The kernel drops a lock with its process, however it ends, so a stale lock cannot
exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cleanctl.errors import StoreError
from cleanctl.files.atomic import reporting_disk_errors
from cleanctl.records import BlockPart, Shard

START_SECONDS = 60.0  # what the first of several processes may take to prepare a store
ENGINE_SECONDS = 15.0  # what the workers of an engine whose driver died may take to end
APPEND_SECONDS = 30.0  # what another process may take to append verdicts


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Holds the folder for one writing process; a second one gets a StoreError."""
    with _lock_file(folder, "lock") as file:
        if not _try_lock(file, fcntl.LOCK_EX):
            raise _locked(folder, file)
        _sign(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


@contextmanager
def engine_lock(folder: Path, prepare: Callable[[], object]) -> Iterator[None]:
    """Holds the folder for the workers of an engine, which take `shard_lock` each; runs `prepare` while it is alone.

    Raises StoreError if another process holds the folder for longer than the workers of a dead engine take to end.
    """
    deadline = time.monotonic() + ENGINE_SECONDS
    with _lock_file(folder, "lock") as file:
        while not _try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _locked(folder, file)
            time.sleep(0.1)
        _sign(file)
        prepare()
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def shard_lock(folder: Path, shard: Shard | BlockPart, prepare: Callable[[], object]) -> Iterator[None]:
    """Holds the folder for one of several processes that write different rows; others of `writer_lock` are refused.

    The first to come runs `prepare` while it is alone. Raises StoreError if a lone writer holds the folder for longer
    than a start takes, if this very shard is being written already, or if live processes divide the rows otherwise.
    """
    deadline = time.monotonic() + START_SECONDS
    with _lock_file(folder, "lock") as file:
        while True:
            if _try_lock(file, fcntl.LOCK_EX):
                prepare()
            if _try_lock(file, fcntl.LOCK_SH):
                break
            if time.monotonic() > deadline:
                raise _locked(folder, file)
            time.sleep(0.1)
        _sign(file)
        # Opened only now: while the folder is shared nobody removes the locks of shards.
        with _lock_file(folder, f"shard-{shard.lock_part}.lock") as own:
            while not _try_lock(own, fcntl.LOCK_EX):
                # An engine gives a part to another worker when one seems dead: it may have been cut off alone.
                if isinstance(shard, Shard) or time.monotonic() > deadline:
                    raise _locked(folder, own, f"Shard {shard} of {folder}")
                time.sleep(0.1)
            _sign(own)
            _refuse_other_counts(folder, shard)
            yield


@contextmanager
def decisions_lock(folder: Path) -> Iterator[None]:
    """Holds the logs of verdicts of a store, which are no part of what `writer_lock` guards: people decide while a
    split is embedded. Waits for another process; StoreError if it holds them for longer than an append takes."""
    deadline = time.monotonic() + APPEND_SECONDS
    with _lock_file(folder, "decisions.lock") as file:
        while not _try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _locked(folder, file, f"The log of verdicts of {folder}")
            time.sleep(0.02)
        _sign(file)
        yield


def lock_path(folder: Path, name: str = "lock") -> Path:
    """Where the lock of a store or of a run lies: beside it."""
    return folder.with_name(f".{folder.name}.{name}")


def remove_shard_locks(folder: Path) -> None:
    """Deletes the lock files of shards; the caller holds the folder's lock alone, so no process uses one."""
    for path in _shard_locks(folder):
        path.unlink(missing_ok=True)


def _shard_locks(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(glob.escape(f".{folder.name}.shard-") + "*-of-*.lock"))


def _refuse_other_counts(folder: Path, shard: Shard | BlockPart) -> None:
    mine = shard.lock_part.rpartition("-of-")[2]
    for path in _shard_locks(folder):
        part = path.name.removeprefix(f".{folder.name}.shard-").removesuffix(".lock")
        name, _, division = part.rpartition("-of-")
        if division == mine:
            continue
        with path.open("a+") as file:
            if _try_lock(file, fcntl.LOCK_SH):
                continue
            if isinstance(shard, BlockPart) or not division.isdecimal():
                raise StoreError(
                    f"{folder} is being filled by processes that divide its rows otherwise ({name} of {division}).",
                    so="Two processes would embed the same rows.",
                    do="Wait until they end, or give all of them the same --engine and --shard I/N.",
                )
            raise StoreError(
                f"{folder} is being filled in {division} shards (shard {name}/{division} is at work); this is {shard}.",
                so="Two processes would embed the same rows.",
                do=f"Start every process with the same N: --shard I/{division}, or wait until those end.",
            )


def _lock_file(folder: Path, name: str) -> Any:
    path = lock_path(folder, name)
    with reporting_disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        return path.open("a+")


def _try_lock(file: Any, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: Any) -> None:
    """Says who holds it. A full disk cannot take the name: the lock holds without, and what is written next is told."""
    with contextlib.suppress(OSError):
        file.truncate(0)
        os.write(file.fileno(), f"pid {os.getpid()} on {socket.gethostname()}".encode())  # nothing is left to flush


def _locked(folder: Path, file: Any, what: str | None = None) -> StoreError:
    file.seek(0)
    return StoreError(
        f"{what or folder} is being written by another process ({file.read().strip() or 'unknown'}).",
        so="Two writers would destroy each other's work.",
        do="Wait until it ends, or choose another store with --store.",
    )
