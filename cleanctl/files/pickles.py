"""Pickles that published datasets ship, read without running them.

In: the bytes of a pickle (Python 2's or 3's, any protocol), or of a file that `torch.save` wrote. Out: dicts, lists,
numbers, texts, and NumPy arrays of whole numbers. Nothing that a pickle names is imported or called: the few names that
these files hold become inert `_Node`s, any other ends the reading, and arrays are made here from checked parts.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cleanctl.errors import InputError

_LARGEST_MEMBER = 1 << 28  # bytes of a torch file's own pickle; label sets have a few megabytes
_NAMES = {
    **{(f"{core}.multiarray", "_reconstruct"): "array" for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): "buffer" for core in ("numpy.core", "numpy._core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "bytes",  # how Python 3 writes bytes in the protocols of Python 2
}
# What the unpickler raises for bytes that are no pickle; a damaged one can also ask for more memory than there is.
_DAMAGES = (
    pickle.UnpicklingError, ValueError, TypeError, EOFError, AttributeError, ImportError, IndexError, KeyError,
    MemoryError, OverflowError, RecursionError, AssertionError, struct.error,
)  # fmt: skip


class PickledArray(NamedTuple):
    """An array of whole numbers. payload: its bytes in C order, as they lie in the pickle."""

    value: np.ndarray
    payload: bytes


def read_pickle(data: bytes, file: str, *, page: str) -> dict[str, Any]:
    """What a pickled dict holds under keys that are texts; arrays as nodes for `array_of`.

    file: its path, for messages; page: where it can be had. Raises InputError for damaged bytes, for one that holds
    no dict, and for one that asks for anything but plain data.
    """
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _Refused as exc:
        raise InputError(
            f"The pickle {file!r} is not read: {exc}.",
            so="A pickle can run any program, so nothing but numbers, texts, lists, dicts and arrays is taken.",
            do=f"Get the file anew from {page}, and distrust this one.",
        ) from exc
    except _DAMAGES as exc:
        raise InputError(
            f"The file {file!r} is damaged or no pickle: {exc or type(exc).__name__}.", do=f"Get it anew from {page}."
        ) from exc
    if not isinstance(found, dict):
        raise InputError(f"The pickle {file!r} holds no dict.", do=f"Get it anew from {page}.")
    return {_text(key): value for key, value in found.items() if isinstance(key, bytes | str)}


def read_torch_pickle(data: bytes, file: str, *, page: str) -> dict[str, Any]:
    """`read_pickle` of a zip file that `torch.save` wrote; one with tensors is refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (member,) = (one for one in archive.infolist() if re.fullmatch(r"[^/]+/data\.pkl", one.filename))
            if member.file_size > _LARGEST_MEMBER:
                raise zipfile.BadZipFile(f"its pickle has {member.file_size:,} bytes")
            pickled = archive.read(member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, *_DAMAGES) as exc:
        raise InputError(
            f"The file {file!r} is no zip file as torch.save writes it: {exc}.", do=f"Get it anew from {page}."
        ) from exc
    return read_pickle(pickled, file, page=page)


def array_of(value: Any) -> PickledArray | None:
    """The array of whole numbers that a value of a pickle is, or None: it is something else, or does not add up."""
    if not isinstance(value, _Node):
        return None
    if value.kind == "array" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, fortran, payload = value.state
    elif value.kind == "buffer" and value.args is not None and len(value.args) >= 4:
        payload, dtype, shape, order = value.args[:4]
        fortran = _text(order) != "C"
    else:
        return None
    number_type, payload = _number_type(dtype), _bytes(payload)
    plain = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if number_type is None or payload is None or not plain or fortran:
        return None
    if math.prod(shape) * number_type.itemsize != len(payload):
        return None
    return PickledArray(np.frombuffer(payload, number_type).reshape(shape), payload)


def place_of(payload: bytes, data: bytes) -> int:
    """Where an array's bytes lie in a pickle; -1 for one that does not hold them as they are."""
    head, at = payload[:256], -1
    while (at := data.find(head, at + 1)) >= 0:  # a search for all of it costs seconds
        if data.startswith(payload, at):
            return at
    return -1


def whole_numbers(value: Any) -> np.ndarray | None:
    """int64 (N,) of a list or a one-dimensional array of whole numbers; None for anything else."""
    if isinstance(value, list):
        numbers = [_number(item) for item in value]
        small = all(number is not None and abs(number) < 1 << 62 for number in numbers)
        return np.array(numbers, dtype=np.int64) if small else None
    array = array_of(value)
    return None if array is None or array.value.ndim != 1 else array.value.astype(np.int64)


def texts(value: Any) -> list[str] | None:
    """The texts of a list; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, bytes | str) for item in value):
        return None
    return [_text(item) for item in value]


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that no dataset needs."""


class _Node:
    """Stands for an object of NumPy while a pickle is read: it remembers what it was given, and does nothing."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...] | None = None) -> None:
        self.kind, self.args, self.state = kind, args, None

    def __call__(self, *args: Any) -> _Node:
        return _Node(self.kind, args)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle._Unpickler):
    """The one in Python: that in C allocates what damaged bytes ask for, and writes of some damages to stderr."""

    read: Callable[[int], bytes]  # both are set as loading begins
    append: Callable[[Any], None]

    def find_class(self, module: str, name: str) -> _Node:
        kind = _NAMES.get((module, name))
        if kind is None:
            raise _Refused(f"it asks for {module}.{name}")
        return _Node(kind)

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to data outside the pickle, such as tensors")

    def _load_bytearray(self) -> None:
        """Takes no more memory than there are bytes; Python's own would first fill as much as the pickle names."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray}


def _number_type(value: Any) -> np.dtype[Any] | None:
    """Of a pickled dtype: whole numbers of 1 to 8 bytes alone."""
    if not isinstance(value, _Node) or value.kind != "dtype" or not value.args:
        return None
    code = _text(value.args[0])
    order = _text(value.state[1]) if isinstance(value.state, tuple) and len(value.state) > 1 else "|"
    if not re.fullmatch(r"[ui][1248]", code) or order not in ("|", "<", ">", "="):
        return None
    return np.dtype(order + code)


def _number(value: Any) -> int | None:
    if isinstance(value, _Node) and value.kind == "scalar" and value.args is not None and len(value.args) == 2:
        number_type, payload = _number_type(value.args[0]), _bytes(value.args[1])
        if number_type is None or payload is None or len(payload) != number_type.itemsize:
            return None
        return int(np.frombuffer(payload, number_type)[0])
    return value if type(value) is int else None


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, _Node) and value.kind == "bytes" and value.args is not None and len(value.args) == 2:
        text, encoding = value.args
        if isinstance(text, str) and _text(encoding) == "latin1" and (not text or max(text) <= "\xff"):
            return text.encode("latin1")
    return None


def _text(value: Any) -> str:
    """Empty for what is no text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
