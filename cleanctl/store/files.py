"""Zarr objects and folders that are whole or absent, whose damage is noticed, and that readers hold while they read.

Every `zarr.json` carries the CRC-32 of its content as the attribute `checksum`, which is taken off before Zarr sees it;
files of older stores have none and are believed. A folder is replaced by two renames, `final` → `.final.old` and
`.final.next` → `final`; readers rename nothing, they read `.final.old` if a crash came between the two.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import LocalStore

from cleanctl.errors import StoreError
from cleanctl.files.atomic import reporting_disk_errors, sync_folder, write_file

CHECKSUM = "checksum"
EMBED_AGAIN = "Run the same cleanctl embed again: it finds the damaged parts and embeds them again."
SELECT_AGAIN = "Run the same cleanctl select again: it replaces what is damaged."
RECREATE = "Recreate the store with cleanctl embed --replace, or choose another store with --store."


class DamageError(StoreError):
    """A file of the store is not what was written; `do` names the command that repairs it."""

    @classmethod
    def of(cls, path: Path | str, why: object, do: str) -> DamageError:
        return cls(f"{path} is damaged: {why}.", so="Nothing is computed from it.", do=do)


class DurableStore(LocalStore):
    """Zarr's local store with every object written whole and every `zarr.json` sealed and checked.

    shown: the path that messages name. do: the command that repairs it. pin: what keeps the folder while this lives.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        read_only: bool = False,
        shown: Path | None = None,
        do: str = EMBED_AGAIN,
        pin: Pin | None = None,
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.shown = Path(root) if shown is None else shown
        self.do, self.pin = do, pin

    @classmethod
    def pinned(cls, folder: Path, *, shown: Path | None = None, do: str = EMBED_AGAIN) -> DurableStore:
        """To read the version of a folder that is there now, whole or, after a crash, moved away."""
        pin = Pin(folder)
        return cls(pin.path, read_only=True, shown=shown or folder, do=do, pin=pin)

    def with_read_only(self, read_only: bool = False) -> DurableStore:
        return type(self)(self.root, read_only=read_only, shown=self.shown, do=self.do, pin=self.pin)

    def get_sync(self, key: str, **more: Any) -> Buffer | None:
        return self._checked(key, super().get_sync(key, **more))

    async def get(self, key: str, *args: Any, **more: Any) -> Buffer | None:
        return self._checked(key, await super().get(key, *args, **more))

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        write_file(self.root / key, _sealed(key, value))

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        self._check_writable()
        write_file(self.root / key, _sealed(key, value), exclusive=exclusive)

    async def set(self, key: str, value: Buffer, byte_range: Any = None) -> None:
        await self._set(key, value)

    def _checked(self, key: str, value: Buffer | None) -> Buffer | None:
        if value is None or not key.endswith("zarr.json"):
            return value
        try:
            meta = json.loads(value.to_bytes())
            sealed = meta.setdefault("attributes", {}).pop(CHECKSUM, None)
        except (ValueError, AttributeError, TypeError) as exc:
            raise DamageError.of(self.shown / key, exc, self.do) from exc
        if sealed not in (None, _checksum(meta)):
            raise DamageError.of(self.shown / key, "its content does not have its checksum", self.do)
        return default_buffer_prototype().buffer.from_bytes(json.dumps(meta).encode())


def _sealed(key: str, value: Buffer) -> bytes | memoryview | Any:
    if not key.endswith("zarr.json"):
        return value.as_buffer_like()
    meta = json.loads(value.to_bytes())
    meta["attributes"] = {**meta.get("attributes", {}), CHECKSUM: _checksum(meta)}
    return json.dumps(meta).encode()  # indented, it is written by Python's own encoder, twenty times as slow


def _checksum(meta: dict[str, Any]) -> str:
    meta = {**meta, "attributes": meta.get("attributes", {})}
    return f"{zlib.crc32(json.dumps(meta, sort_keys=True).encode()):08x}"


# ---- folders that change places


def fresh_path(final: Path) -> Path:
    """Where the successor of a folder is made."""
    return final.with_name(f".{final.name}.next")


def swap_in(final: Path, fresh: Path | None = None) -> None:
    """Puts `fresh` where `final` is; `finish_swap` completes it if a crash comes between the renames."""
    old = _old_path(final)
    discard(old)
    with reporting_disk_errors(final):
        if final.exists():
            final.rename(old)
        (fresh or fresh_path(final)).rename(final)
        sync_folder(final.parent)
    discard(old)


def finish_swap(final: Path) -> None:
    """After a crash inside `swap_in`: puts `final` in place, removes leftovers. For a writer that holds the lock."""
    old, fresh = _old_path(final), fresh_path(final)
    if old.exists() and not final.exists():
        (fresh if fresh.exists() else old).rename(final)
        sync_folder(final.parent)
    discard(old)
    for left in final.parent.glob(f".{final.name}.*.removed"):
        discard(left)


def discard(folder: Path) -> None:
    """Deletes a folder, or moves it out of the way for as long as a reader holds it."""
    with suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not _lock(handle, fcntl.LOCK_EX):
                if not folder.name.endswith(".removed"):
                    folder.rename(folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.removed"))
                return
            shutil.rmtree(folder)
        finally:
            os.close(handle)


class Pin:
    """A folder held by a reader: `path` stays the same version, however often a writer replaces it."""

    def __init__(self, folder: Path) -> None:
        self._handle, self.path = -1, folder
        while self._handle < 0:
            self._handle = _open_held(folder)
        through = Path(f"/proc/self/fd/{self._handle}")
        if through.exists():
            self.path = through

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def pinned_exists(folder: Path) -> bool:
    """Whether a reader finds a version of the folder."""
    return folder.is_dir() or _old_path(folder).is_dir() or folder.is_dir()  # the second look: it was put in place


def _open_held(folder: Path) -> int:
    """A handle of the current version, locked against deletion; -1 if it was replaced meanwhile."""
    for path in (folder, _old_path(folder), folder):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        held = _lock(handle, fcntl.LOCK_SH)
        now = folder if folder.exists() else _old_path(folder)
        with suppress(FileNotFoundError):
            if held and os.path.samestat(os.fstat(handle), now.stat()):
                return handle
        os.close(handle)
        return -1
    raise FileNotFoundError(folder)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks on folders: nothing is held
        return True
    return True


def _old_path(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")
