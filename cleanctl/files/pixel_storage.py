"""`PixelStorage`: images that lie as bare pixels in a few files, such as CIFAR's pickles and MNIST's idx files.

An image is read where it lies and given as a BMP file, which holds its pixels unchanged and has the same bytes on every
machine. Keys are `train/00042`: split and row, counted from 0 in the file's order. Nothing is unpacked to disk; a
compressed file is unpacked once into the memory of each process that reads it.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

import numpy as np

from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.files.local import read_file, reason_of
from cleanctl.files.storage import CHANGED, unread
from cleanctl.records import FileContent, Fingerprints

DIGITS = 5  # of a row's number in its key: keys sort as rows do
MOST_ROWS = 10**DIGITS
_BMP_HEADER = 54


@dataclass(frozen=True)
class PixelBlock:
    """`count` images of one split, the first of them row `first`, one after another in `file` from byte `offset` on.

    file: its path relative to the storage; size, mtime_ns: of that file. offset: in the unpacked file, if its name ends
    in .gz. shape: (channels, height, width) of an image, uint8, one plane of 1 or 3 channels after the other.
    """

    split: str
    first: int
    count: int
    file: str
    size: int
    mtime_ns: int
    offset: int
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class PixelStorage:
    """location: the folder. blocks: those of a split follow one another without gaps."""

    location: str
    blocks: tuple[PixelBlock, ...]

    @cached_property
    def _of_split(self) -> dict[str, tuple[list[int], list[PixelBlock]]]:
        """split → the first rows of its blocks, and the blocks."""
        found: dict[str, tuple[list[int], list[PixelBlock]]] = {}
        for block in self.blocks:
            firsts, blocks = found.setdefault(block.split, ([], []))
            firsts.append(block.first)
            blocks.append(block)
        return found

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        fingerprints = no_fingerprints(len(keys))
        mtime_of: dict[str, int | None] = {}
        for row, key in enumerate(keys):
            block, _ = self._place(key)
            if block is None:
                continue
            if block.file not in mtime_of:
                mtime_of[block.file] = self._mtime_ns(block)
            mtime_ns = mtime_of[block.file]
            if mtime_ns is not None:
                fingerprints.size_N[row], fingerprints.mtime_ns_N[row] = _bmp_size(block.shape), mtime_ns
        return fingerprints

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        for block, places in groupby(map(self._place, keys), key=lambda place: place[0]):
            if block is None:
                yield from (unread("not in the archive") for _ in places)
            else:
                yield from self._read_block(block, [index for _, index in places])

    def head(self, key: str, count: int) -> bytes:
        return next(self.read([key])).data[:count]

    def _place(self, key: str) -> tuple[PixelBlock | None, int]:
        """The block that holds an image, and its index in the block."""
        split, _, number = key.partition("/")
        firsts, blocks = self._of_split.get(split, ([], []))
        if len(number) != DIGITS or not (number.isascii() and number.isdigit()) or not blocks:
            return None, 0
        row = int(number)
        block = blocks[bisect_right(firsts, row) - 1]
        index = row - block.first
        return (block, index) if 0 <= index < block.count else (None, 0)

    def _mtime_ns(self, block: PixelBlock) -> int | None:
        """None for a file that is gone or has another size: its rows fail, with the reason that `read` gives."""
        try:
            stat = os.stat(self._path(block))
        except (OSError, ValueError):
            return None
        return stat.st_mtime_ns if stat.st_size == block.size else None

    def _read_block(self, block: PixelBlock, indices: list[int]) -> Iterator[FileContent]:
        path, each = self._path(block), int(np.prod(block.shape))
        try:
            if path.endswith(".gz"):
                data = memoryview(_unpacked(path, block.mtime_ns))
                spans = [bytes(data[block.offset + index * each :][:each]) for index in indices]
            else:
                with open(path, "rb", buffering=0) as file:
                    stat = os.fstat(file.fileno())
                    if (stat.st_size, stat.st_mtime_ns) != (block.size, block.mtime_ns):
                        raise ValueError(CHANGED)
                    spans = [os.pread(file.fileno(), each, block.offset + index * each) for index in indices]
        except (OSError, ValueError, EOFError, zlib.error) as exc:
            reason = reason_of(exc) if isinstance(exc, OSError) else str(exc)
            yield from (unread(f"{block.file}: {reason}") for _ in indices)
            return
        for span in spans:
            if len(span) != each:
                yield unread(f"{block.file}: {CHANGED}")
            else:
                image = bmp_file(np.frombuffer(span, np.uint8).reshape(block.shape))
                yield FileContent(image, len(image), block.mtime_ns)

    def _path(self, block: PixelBlock) -> str:
        return f"{self.location}/{block.file}"


@lru_cache(maxsize=2)  # training and test images of a dataset
def _unpacked(path: str, mtime_ns: int) -> bytes:
    """The content of a .gz file. Raises OSError, EOFError, zlib.error; ValueError if it is another file by now."""
    content = read_file(path)
    if content.reason or content.mtime_ns != mtime_ns:
        raise ValueError(content.reason or CHANGED)
    return gzip.decompress(content.data)


def bmp_file(pixel_CHW: np.ndarray) -> bytes:
    """A 24-bit BMP file of uint8 pixels, 1 or 3 channels; grey becomes RGB of equal parts."""
    pixel_HWC = np.broadcast_to(pixel_CHW.transpose(1, 2, 0), (*pixel_CHW.shape[1:], 3))
    height, width, _ = pixel_HWC.shape
    line_HB = np.zeros((height, _line_bytes(width)), dtype=np.uint8)
    line_HB[:, : 3 * width] = pixel_HWC[::-1, :, ::-1].reshape(height, -1)  # from the bottom up, blue first
    size = _BMP_HEADER + line_HB.size
    head = struct.pack("<2sIHHI", b"BM", size, 0, 0, _BMP_HEADER)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, line_HB.size, 2835, 2835, 0, 0)
    return head + info + line_HB.tobytes()


def _bmp_size(shape: tuple[int, int, int]) -> int:
    return _BMP_HEADER + shape[1] * _line_bytes(shape[2])


def _line_bytes(width: int) -> int:
    """Lines are padded to whole words."""
    return -(-3 * width // 4) * 4
