"""The journal of a split: committed rows of blocks that are not whole yet, as small files under `.staging/<split>/`.

    0000003-0000000-base.npz      a block that was whole before some of its rows became stale
    0000003-0000017-2-of-8.npz    rows of block 3 committed later, by the process that embeds shard 2 of 8

Segments are replayed in the order of their numbers: a later one replaces rows of an earlier one, and a segment may set
rows back to pending. Processes that fill shares of one split settle different rows, so their numbers may be equal.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np

from cleanctl.files.atomic import write_file
from cleanctl.store import schema
from cleanctl.store.block import Block


class Journal:
    """`tag` tells the files of one writing process from another's."""

    def __init__(self, folder: Path, dim: int, tag: str) -> None:
        self._folder = folder
        self._dim = dim
        self._tag = tag
        self._next = 1 + max((_sequence(path) for path in folder.glob("*.npz")), default=0)

    def add(self, number: int, at: np.ndarray, block: Block) -> None:
        """Makes the rows `at` of a block durable as they are now, pending ones included."""
        self._write(self._folder / f"{number:07d}-{self._next:07d}-{self._tag}.npz", at, block)
        self._next += 1

    def add_base(self, number: int, block: Block) -> None:
        """All rows of a block that was committed. Whoever writes it writes the same, and it is replayed first."""
        self._write(self._folder / f"{number:07d}-0000000-base.npz", np.arange(len(block.status)), block)

    def replay(self, number: int, block: Block) -> None:
        """Puts the journalled rows of a block into it; a segment that is cut short or altered is dropped."""
        for path in sorted(self._folder.glob(f"{number:07d}-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    segment = Block(**{name: arrays[name] for name in schema.BLOCK_ARRAYS})
                    at = arrays["at"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink(missing_ok=True)
                continue
            if segment.embedding.shape[1] == self._dim:
                block.take(at, segment, slice(None))

    def numbers(self) -> list[int]:
        """The blocks that have segments."""
        return sorted({int(path.stem.split("-")[0]) for path in self._folder.glob("*.npz")})

    def drop(self, number: int) -> None:
        for path in self._folder.glob(f"{number:07d}-*.npz"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder.parent.exists() and not any(self._folder.parent.iterdir()):
            self._folder.parent.rmdir()

    def _write(self, path: Path, at: np.ndarray, block: Block) -> None:
        arrays = {name: getattr(block, name)[at] for name in schema.BLOCK_ARRAYS}
        arrays["reason"] = arrays["reason"].astype(np.str_)
        buffer = io.BytesIO()
        np.savez(buffer, at=at, **arrays)
        write_file(path, buffer.getbuffer())


def _sequence(path: Path) -> int:
    part = path.stem.split("-")[1]
    return int(part) if part.isdecimal() else 0
