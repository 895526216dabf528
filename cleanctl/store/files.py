"""Zarr objects and folders that are whole or absent, and one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from cleanctl.errors import StoreError
from cleanctl.files.atomic import reporting_disk_errors, sync_folder, write_file
from cleanctl.records import Share

START_SECONDS = 60.0  # what the first of several processes may take to prepare a store


class DurableStore(LocalStore):
    """Zarr's local store with every object written through `write_file`."""

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        write_file(self.root / key, value.as_buffer_like())

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        write_file(self.root / key, value.as_buffer_like(), exclusive=exclusive)

    async def set(self, key: str, value: Buffer, byte_range: Any = None) -> None:
        await self._set(key, value)


def swap_in(fresh: Path, final: Path) -> None:
    """Puts the folder `fresh` where `final` is; `finish_swap` completes it if a crash comes between the renames."""
    old = final.with_name(f".{final.name}.old")
    if old.exists():
        shutil.rmtree(old)
    with reporting_disk_errors(final):
        if final.exists():
            final.rename(old)
        fresh.rename(final)
        sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def finish_swap(fresh: Path, final: Path) -> None:
    """After a crash inside `swap_in`: `final` is put in place if it was moved away, leftovers are removed."""
    old = final.with_name(f".{final.name}.old")
    if not old.exists():
        return
    if not final.exists():
        (fresh if fresh.exists() else old).rename(final)
        sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Holds the folder for one writing process; a second one gets a StoreError.

    The kernel drops the lock with the process, however it ends, so a stale lock cannot exist.
    """
    with _lock_file(folder, ".lock") as file:
        if not _try_lock(file, fcntl.LOCK_EX):
            raise _locked(folder, file)
        _sign(file)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


@contextmanager
def shared_lock(folder: Path, share: Share, prepare: Callable[[], None]) -> Iterator[None]:
    """Holds the folder for one of several processes that write different rows; others of `writer_lock` are refused.

    The first to come runs `prepare` while it is alone. Raises StoreError if a lone writer holds the folder for longer
    than a start takes, if this very share is being written already, or if live processes divide the rows otherwise.
    """
    deadline = time.monotonic() + START_SECONDS
    with _lock_file(folder, ".lock") as file:
        while True:
            if _try_lock(file, fcntl.LOCK_EX):
                prepare()
            if _try_lock(file, fcntl.LOCK_SH):
                break
            if time.monotonic() > deadline:
                raise _locked(folder, file)
            time.sleep(0.1)
        _sign(file)
        # Opened only now: while the folder is shared nobody removes the locks of shares.
        with _lock_file(folder, _share_lock_name(share)) as own:
            if not _try_lock(own, fcntl.LOCK_EX):
                raise _locked(folder, own, f"Share {share} of {folder}")
            _sign(own)
            _refuse_other_counts(folder, share)
            yield


def remove_share_locks(folder: Path) -> None:
    """Deletes the lock files of shares; the caller holds the folder's lock alone, so no process uses one."""
    for path in folder.glob(".share-*.lock"):
        path.unlink(missing_ok=True)


def _refuse_other_counts(folder: Path, share: Share) -> None:
    for path in folder.glob(".share-*-of-*.lock"):
        if path.stem.endswith(f"-of-{share.count}"):
            continue
        with path.open("a+") as file:
            if not _try_lock(file, fcntl.LOCK_SH):
                index, _, count = path.stem.removeprefix(".share-").partition("-of-")
                raise StoreError(
                    f"{folder} is being filled in {count} shares (share {index}/{count} is at work); this is {share}.",
                    so="Two processes would embed the same rows.",
                    do=f"Start every process with the same N: --shard I/{count}, or wait until those end.",
                )


def _share_lock_name(share: Share) -> str:
    return f".share-{share.index}-of-{share.count}.lock"


def _lock_file(folder: Path, name: str) -> Any:
    with reporting_disk_errors(folder / name):
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("a+")


def _try_lock(file: Any, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: Any) -> None:
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}")
    file.flush()


def _locked(folder: Path, file: Any, what: str | None = None) -> StoreError:
    file.seek(0)
    return StoreError(
        f"{what or folder} is being written by another process ({file.read().strip() or 'unknown'}).",
        so="Two writers would destroy each other's work.",
        do="Wait until it ends, or choose another store with --store.",
    )
