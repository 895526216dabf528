"""`Keys`: many texts in little memory, as one run of UTF-8 bytes and where each begins.

A list of 10⁷ keys takes 1 GB as Python strings; here a key takes its bytes and 8 more. Slices are views. Whatever looks
at all keys goes over blocks of them, so that few are Python strings at a time. A run of bytes above SPILL_BYTES lies in
an unlinked temporary file that is mapped into memory: the kernel may drop its pages and read them again.

Legend: N keys, T bytes in all, M keys that are looked up.
"""

from __future__ import annotations

import hashlib
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from cleanctl.files.arrow import numpy_of

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_KEYS = 65_536
SPILL_BYTES = 1 << 28
GATHERED_KEYS = 8_192  # at once: each of their bytes takes 24 on the way
FEW = 1_024  # so many are looked up one by one
_WINDOW_KEYS = 4 * BLOCK_KEYS
_ERRORS = "surrogatepass"  # any str comes back as it was, and bytes sort as code points do


class Keys(Sequence[str]):
    """byte_T: uint8. offset_N1: int64, ascending; key n is byte_T[offset_N1[n] : offset_N1[n + 1]]."""

    __slots__ = ("_byte_T", "_digest", "_increasing", "_offset_N1")

    def __init__(self, byte_T: np.ndarray, offset_N1: np.ndarray, *, increasing: bool | None = None) -> None:
        self._byte_T, self._offset_N1 = byte_T, offset_N1
        self._increasing = increasing
        self._digest: str | None = None

    @classmethod
    def of(cls, texts: Iterable[str]) -> Keys:
        """The texts in their order; Keys are given back as they are."""
        if isinstance(texts, Keys):
            return texts
        builder = KeysBuilder()
        iterator = iter(texts)
        while part := list(islice(iterator, BLOCK_KEYS)):
            builder.extend(part)
        return builder.keys()

    @classmethod
    def of_arrow(cls, column: Any) -> Keys:
        """Of a pyarrow column of strings without nulls, chunk by chunk."""
        import pyarrow as pa

        builder = KeysBuilder()
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            builder.extend_arrow(chunk)
        return builder.keys()

    # ---- a sequence

    def __len__(self) -> int:
        return len(self._offset_N1) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice | np.ndarray) -> Keys: ...

    def __getitem__(self, at: Any) -> str | Keys:
        """One key; those of a slice, a view where its step is 1; or those of some rows (int64 or bool), in order."""
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return self._taken(np.arange(start, stop, step))
            whole = start == 0 and stop == len(self)
            offset_M1 = self._offset_N1[start : max(start, stop) + 1]
            return self if whole else Keys(self._byte_T, offset_M1, increasing=self._increasing or None)
        if isinstance(at, np.ndarray) and at.ndim:
            return self._taken(np.flatnonzero(at) if at.dtype == bool else at)
        row = int(at)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f"key {at} of {len(self)}")
        start, stop = self._offset_N1[row : row + 2].tolist()
        return self._byte_T[start:stop].tobytes().decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for _, texts in self.blocks():
            yield from texts

    def blocks(self, step: int = BLOCK_KEYS) -> Iterator[tuple[int, list[str]]]:
        """(first row, the keys of a block as a list), block by block."""
        for start in range(0, len(self), step):
            yield start, self[start : start + step].tolist()

    def tolist(self) -> list[str]:
        data = self._bytes().tobytes()
        ends = (self._offset_N1 - self._offset_N1[0]).tolist()
        if data.isascii():
            text = data.decode("ascii")
            return [text[start:stop] for start, stop in pairwise(ends)]
        return [data[start:stop].decode("utf-8", _ERRORS) for start, stop in pairwise(ends)]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Keys):
            return self is other or (
                len(self) == len(other)
                and self._byte_count() == other._byte_count()
                and all(self._same(other, slice(at, at + BLOCK_KEYS)) for at in range(0, len(self), BLOCK_KEYS))
            )
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(
                texts == list(other[at : at + len(texts)]) for at, texts in self.blocks()
            )
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _same(self, other: Keys, rows: slice) -> bool:
        mine, its = self[rows], other[rows]
        lengths = np.array_equal(np.diff(mine._offset_N1), np.diff(its._offset_N1))
        return lengths and np.array_equal(mine._bytes(), its._bytes())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.rows_of([key])[0] >= 0)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3].tolist()))
        return f"Keys([{shown}{', …' if len(self) > 3 else ''}], {len(self):,})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Of str objects: for few keys."""
        return np.array(self.tolist(), dtype=object)

    def __reduce__(self) -> tuple[Any, ...]:
        offset_N1 = self._offset_N1 - self._offset_N1[0]
        return Keys, (np.array(self._bytes()), offset_N1)

    # ---- order

    @property
    def increasing(self) -> bool:
        """Sorted, each key once."""
        if self._increasing is None:
            self._increasing = all(all(map(lt, texts, texts[1:])) for texts in self._overlapping())
        return self._increasing

    def sorted(self) -> tuple[Keys, np.ndarray]:
        """The keys in the order of code points, as Python sorts str; and for each the row that it had, int64 (N,)."""
        if self.increasing:
            return self, np.arange(len(self), dtype=np.int64)
        if len(self) <= BLOCK_KEYS:
            order_N = np.array(sorted(range(len(self)), key=self.tolist().__getitem__), dtype=np.int64)
        else:
            import pyarrow.compute as pc

            order_N = numpy_of(pc.array_sort_indices(self._arrow())).view(np.int64)  # numbers below 2⁶³
        return self[order_N], order_N

    def first_repeated(self) -> int | None:
        """Of sorted keys: the first row whose key is that of the row before; None where each is there once."""
        if self.increasing:
            return None
        same = (row for row, (key, after) in enumerate(pairwise(self)) if key == after)
        return next((row + 1 for row in same), None)

    def _overlapping(self) -> Iterator[list[str]]:
        """Blocks, each with the first key of the next one at its end."""
        return (self[at : at + BLOCK_KEYS + 1].tolist() for at in range(0, len(self), BLOCK_KEYS))

    def rows_of(self, keys: Sequence[str]) -> np.ndarray:
        """int64 (M,): the row of each, -1 where it is none of these; block by block, quick where both are sorted.

        Raises ValueError where one of these is there twice: it has no one row.
        """
        if not self.increasing:
            mine, order_N = self.sorted()
            if (twice := mine.first_repeated()) is not None:
                raise ValueError(f"the key {mine[twice]!r} is there twice")
            row_M = mine.rows_of(keys)
            return np.where(row_M >= 0, order_N[row_M], -1)
        if len(keys) <= FEW:
            return self._few_rows_of(keys)
        wanted = Keys.of(keys)
        if wanted.increasing:
            return self._merged(wanted)
        wanted, order_M = wanted.sorted()
        row_M = np.empty(len(wanted), np.int64)
        row_M[order_M] = self._merged(wanted)
        return row_M

    def _few_rows_of(self, keys: Sequence[str]) -> np.ndarray:
        if not len(keys):
            return np.zeros(0, np.int64)
        first = self._row(keys[0])
        if first >= 0 and len(keys) > 1 and self[first : first + len(keys)] == list(keys):
            return np.arange(first, first + len(keys), dtype=np.int64)
        return np.array([first, *(self._row(key) for key in keys[1:])], dtype=np.int64)

    def _row(self, key: str) -> int:
        row = bisect_left(self, key)
        return row if row < len(self) and self[row] == key else -1

    def _merged(self, wanted: Keys) -> np.ndarray:
        """Both sorted: each block is looked up among the keys between its first and its last."""
        row_M, low = np.full(len(wanted), -1, dtype=np.int64), 0
        for start in range(0, len(wanted), BLOCK_KEYS):
            block = wanted[start : start + BLOCK_KEYS]
            found_B = row_M[start : start + len(block)]
            low = bisect_left(self, block[0], low)
            high = bisect_right(self, block[-1], low)
            if high - low == len(block) and self[low:high] == block:
                found_B[:] = np.arange(low, high)
                continue
            texts = block.tolist() if low < high else []
            for at in range(low, high, _WINDOW_KEYS):
                window = self[at : min(at + _WINDOW_KEYS, high)].tolist()
                row_of = {key: row for row, key in enumerate(window, start=at)}
                place_B = np.fromiter((row_of.get(key, -1) for key in texts), np.int64, len(texts))
                found_B[place_B >= 0] = place_B[place_B >= 0]
        return row_M

    # ---- as bytes

    def _arrow(self) -> pa.Array:
        """A pyarrow array of large binaries over the same memory."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(np.ascontiguousarray(self._offset_N1)), pa.py_buffer(self._byte_T)]
        return pa.Array.from_buffers(pa.large_binary(), len(self), buffers)

    def string_chunks(self) -> Iterator[pa.Array]:
        """pyarrow arrays of strings, block by block, for tables."""
        import pyarrow as pa

        for start in range(0, len(self), BLOCK_KEYS):
            block = self[start : start + BLOCK_KEYS]
            offset_B1 = (block._offset_N1 - block._offset_N1[0]).astype(np.int32)
            buffers = [None, pa.py_buffer(offset_B1), pa.py_buffer(block._bytes())]
            yield pa.Array.from_buffers(pa.string(), len(block), buffers)

    def fingerprint(self) -> str:
        """SHA-256 over the keys in order, each followed by a zero byte, as hex."""
        if self._digest is None:
            digest = hashlib.sha256()
            for _, texts in self.blocks():
                digest.update("\0".join([*texts, ""]).encode("utf-8", _ERRORS))
            self._digest = digest.hexdigest()
        return self._digest

    def _bytes(self) -> np.ndarray:
        return self._byte_T[self._offset_N1[0] : self._offset_N1[-1]]

    def _byte_count(self) -> int:
        return int(self._offset_N1[-1] - self._offset_N1[0])

    def _taken(self, row_M: np.ndarray) -> Keys:
        row_M = np.asarray(row_M, dtype=np.int64)
        row_M = np.where(row_M < 0, row_M + len(self), row_M) if len(row_M) and row_M.min() < 0 else row_M
        if len(row_M) and row_M[-1] - row_M[0] == len(row_M) - 1 and (np.diff(row_M) == 1).all():
            return self[int(row_M[0]) : int(row_M[-1]) + 1]
        builder = KeysBuilder()
        for at in range(0, len(row_M), GATHERED_KEYS):
            row_B = row_M[at : at + GATHERED_KEYS]
            start_B = self._offset_N1[row_B]
            builder.extend_bytes(*_gathered(self._byte_T, start_B, self._offset_N1[row_B + 1] - start_B))
        return builder.keys()


class KeysBuilder:
    """Keys that come part by part."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._lengths: list[np.ndarray] = []
        self._waiting: list[str] = []

    def append(self, text: str) -> None:
        self._waiting.append(text)
        if len(self._waiting) == BLOCK_KEYS:
            self._take_waiting()

    def _take_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.extend(waiting)

    def extend(self, texts: Sequence[str]) -> None:
        """At most some ten thousands at a time: they are joined on the way."""
        data = "".join(texts).encode("utf-8", _ERRORS)
        length_B = np.fromiter(map(len, texts), np.int64, len(texts))
        if length_B.sum() != len(data):
            length_B = np.array([len(text.encode("utf-8", _ERRORS)) for text in texts], dtype=np.int64)
        self.extend_bytes(data, length_B)

    def extend_bytes(self, data: bytes | np.ndarray, length_B: np.ndarray) -> None:
        """data: the keys without gaps. length_B: of each, in bytes."""
        self._bytes += data if isinstance(data, bytes) else data.data
        self._lengths.append(length_B.astype(np.int32))

    def extend_arrow(self, array: pa.Array) -> None:
        """A pyarrow array of strings without nulls."""
        import pyarrow as pa

        offset_B1 = np.frombuffer(array.buffers()[1], np.int64 if pa.types.is_large_string(array.type) else np.int32)
        offset_B1 = offset_B1[array.offset : array.offset + len(array) + 1]
        if len(array):
            data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offset_B1[0] : offset_B1[-1]]
            self.extend_bytes(data, np.diff(offset_B1))

    def keys(self) -> Keys:
        """What came so far; the builder is empty afterwards."""
        self._take_waiting()
        data, lengths = self._bytes, self._lengths
        self._bytes, self._lengths = bytearray(), []
        offset_N1 = np.zeros(sum(map(len, lengths)) + 1, np.int64)
        at = 1
        for length_B in lengths:
            offset_N1[at : at + len(length_B)] = length_B
            at += len(length_B)
        np.cumsum(offset_N1, out=offset_N1)
        return Keys(_spilled(np.frombuffer(data, np.uint8)), _spilled(offset_N1))


def _gathered(byte_T: np.ndarray, start_B: np.ndarray, length_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of some keys one after the other, and their lengths."""
    end_B = np.cumsum(length_B)
    source_U = np.repeat(start_B - (end_B - length_B), length_B)
    source_U += np.arange(len(source_U))
    return byte_T[source_U], length_B


def _spilled(values: np.ndarray) -> np.ndarray:
    """The same values: mapped from an unlinked file where they are many, in memory where none can be written."""
    if values.nbytes <= SPILL_BYTES:
        return values
    try:
        with tempfile.TemporaryFile() as file:
            values.tofile(file)
            file.flush()
            return np.memmap(file, dtype=values.dtype, mode="r", shape=values.shape)
    except OSError:
        return values
