"""What lies below a folder behind a URL, asked for folder by folder, in little memory.

In: a file system of fsspec and the folder's path in it. Out: `RemoteListing`. fsspec gives a dict for each file and
keeps it, about a kilobyte; here those of `threads` folders at most are held, and a file that was looked at takes the
bytes of its name and 24 more. A folder with few folders in it (`train/`, `val/`) is listed alone, so that what it holds
can be asked for part by part; each of many folders beside one another (classes) is asked for with all below it, which
object stores answer a thousand files at a time. Nothing is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanctl.files.fingerprints import MISSING
from cleanctl.files.keys import BLOCK_KEYS, Keys, KeysBuilder
from cleanctl.files.listing import Scan, file_kind

FEW_FOLDERS = 16  # fewer beside one another are looked into one by one,
DEEPEST = 3  # so many levels below the source's folder

Infos = dict[str, Any]  # a file's path → what the library says of it
Prints = Callable[[Infos], Sequence[tuple[int, int]]]


@dataclass(frozen=True, kw_only=True)
class RemoteListing:
    """keys: every file that is not hidden, sorted paths below the folder. size_N, fingerprint_N: int64, a size of
    MISSING where nothing tells it."""

    keys: Keys
    size_N: np.ndarray
    fingerprint_N: np.ndarray

    def of(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(size, fingerprint) of each; MISSING and 0 of a file that is not there."""
        row_M = self.keys.rows_of(keys)
        if not len(self.keys):
            return np.full(len(row_M), MISSING), np.zeros(len(row_M), np.int64)
        there_M = row_M >= 0
        return np.where(there_M, self.size_N[row_M], MISSING), np.where(there_M, self.fingerprint_N[row_M], 0)

    def scan(self) -> Scan:
        keys, few = KeysBuilder(), {"tars": [], "packed": []}  # type: tuple[KeysBuilder, dict[str, list[str]]]
        for _, names in self.keys.blocks():
            kinds = list(map(file_kind, names))
            keys.extend([name for name, kind in zip(names, kinds) if kind == "keys"])
            for kind, found in few.items():
                found += [name for name, one in zip(names, kinds) if one == kind]
        return Scan(keys=keys.keys(), tars=tuple(few["tars"]), packed=tuple(few["packed"]))


def list_remote(system: Any, base: str, prints: Prints, *, threads: int) -> RemoteListing:
    """prints: sizes and fingerprints of some files. Raises what the library raises, FileNotFoundError among it."""
    names, numbers = KeysBuilder(), [np.zeros((0, 2), np.int64)]

    def taken(infos: Infos) -> tuple[list[str], np.ndarray]:
        visible = _visible(infos, base)
        return list(visible), np.array(prints(visible), np.int64).reshape(-1, 2)

    for found, number_N2 in _in_parts(system, base, taken, threads):
        for start in range(0, len(found), BLOCK_KEYS):
            names.extend(found[start : start + BLOCK_KEYS])
        numbers.append(number_N2)
    keys, order_N = names.keys().sorted()
    number_N2 = np.concatenate(numbers)[order_N]
    if not len(keys) and not system.exists(base):
        raise FileNotFoundError(f"there is nothing at {base}")
    return RemoteListing(keys=keys, size_N=number_N2[:, 0].copy(), fingerprint_N=number_N2[:, 1].copy())


def _in_parts(system: Any, base: str, taken: Callable[[Infos], Any], threads: int) -> Iterator[Any]:
    """What `taken` makes of the files, one part of the tree after the other."""
    whole: deque[str] = deque()
    alone = [(base, 0)]
    while alone:
        folder, level = alone.pop()
        files, folders = _listed(system, folder)
        yield taken(files)
        if len(folders) < FEW_FOLDERS and level < DEEPEST:
            alone += [(one, level + 1) for one in folders]
        else:
            whole += folders

    def all_below(folder: str) -> Any:
        found = taken(system.find(folder, detail=True))
        system.invalidate_cache()  # which would hold everything that was ever listed
        return found

    if not system.async_impl:  # what answers one question at a time
        yield from map(all_below, whole)
        return
    running: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while whole or running:
                while whole and len(running) < threads:
                    running.append(pool.submit(all_below, whole.popleft()))
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _listed(system: Any, folder: str) -> tuple[Infos, list[str]]:
    """The files in a folder, and the folders in it."""
    system.invalidate_cache()
    files, folders = {}, []
    for info in system.ls(folder, detail=True):
        path = info["name"].rstrip("/")
        if info["type"] != "directory":
            files[info["name"]] = info
        elif path != folder.rstrip("/") and not path.rpartition("/")[2].startswith("."):
            folders.append(path)
    return files, folders


def _visible(found: Infos, base: str) -> Infos:
    """Files by their path relative to `base`, hidden ones apart."""
    prefix = f"{base}/"
    out = {}
    for path, info in found.items():
        name = path.removeprefix(prefix)
        hidden = name.startswith(".") or "/." in name
        if (
            path.startswith(prefix)
            and name
            and not name.endswith("/")
            and info.get("type") != "directory"
            and not hidden
        ):
            out[name] = info
    return out
