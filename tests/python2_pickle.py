"""Pickles as Python 2.7's cPickle wrote them with protocol 2, byte by byte: what the CIFAR pages ship."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


class Writer:
    """dicts, lists, tuples, bytes (Python 2's str), int, None and uint8 arrays; each object is put into the memo."""

    def __init__(self, core: str = "numpy.core") -> None:
        self.core, self.out, self.puts = core, bytearray(b"\x80\x02"), 0

    def dumps(self, value: Any) -> bytes:
        self.write(value)
        return bytes(self.out) + b"."

    def put(self) -> None:
        self.out += struct.pack("<BB", 0x71, self.puts) if self.puts < 256 else struct.pack("<BI", 0x72, self.puts)
        self.puts += 1

    def name(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode()
        self.put()

    def write(self, value: Any) -> None:
        if value is None:
            self.out += b"N"
        elif isinstance(value, bool):
            self.out += b"\x88" if value else b"\x89"
        elif isinstance(value, int):
            self.number(value)
        elif isinstance(value, bytes):
            head = struct.pack("<BB", 0x55, len(value)) if len(value) < 256 else struct.pack("<BI", 0x54, len(value))
            self.out += head + value
            self.put()
        elif isinstance(value, tuple):
            self.tuple(*value)
        elif isinstance(value, list):
            self.out += b"]"
            self.put()
            for start in range(0, len(value), 1000):
                self.out += b"("
                for item in value[start : start + 1000]:
                    self.write(item)
                self.out += b"e"
        elif isinstance(value, dict):
            self.out += b"}"
            self.put()
            self.out += b"("
            for pair in value.items():
                for item in pair:
                    self.write(item)
            self.out += b"u"
        else:
            self.array(value)

    def number(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += struct.pack("<BB", 0x4B, value)
        elif 0 <= value < 65536:
            self.out += struct.pack("<BH", 0x4D, value)
        else:
            self.out += struct.pack("<Bi", 0x4A, value)

    def tuple(self, *items: Any) -> None:
        self.out += b"(" if len(items) > 3 else b""
        for item in items:
            self.write(item)
        self.out += {1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(items), b"t")
        self.put()

    def array(self, value: np.ndarray) -> None:
        self.name(f"{self.core}.multiarray", "_reconstruct")
        self.name("numpy", "ndarray")
        self.tuple_rest((0,), b"b")
        self.out += b"(K\x01"
        self.tuple(*value.shape)
        self.name("numpy", "dtype")
        self.write(value.dtype.str[1:].encode())
        self.out += b"K\x00K\x01\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"("
        for item in (3, value.dtype.str[:1].encode(), None, None, None, -1, -1, 0):
            self.write(item)
        self.out += b"t"
        self.put()
        self.out += b"b\x89"
        self.write(value.tobytes())
        self.out += b"t"
        self.put()
        self.out += b"b"

    def tuple_rest(self, *items: Any) -> None:
        """Closes the three arguments of a call whose first is on the stack already."""
        for item in items:
            self.write(item)
        self.out += b"\x87"
        self.put()
        self.out += b"R"
        self.put()


def dumps(value: Any, core: str = "numpy.core") -> bytes:
    return Writer(core).dumps(value)
