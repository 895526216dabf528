"""Columns as text inside an HTML file: small integers, rounded floats, bits, distinct strings; gzip, then base64.

Each is (spec, text): what a browser needs to know to read it (`assets/columns.js`), and the base64. Numbers are little
endian with the first bytes of all values before the second bytes of all, which gzip makes smaller by a third.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

MANTISSA_BITS = 12  # kept of a float32's 23: an error below 1 in 8,000, four digits
Encoded = tuple[dict[str, Any], str]


def strings(values: Sequence[str]) -> Encoded:
    return {"kind": "strings"}, packed(json.dumps(list(values), separators=(",", ":")).encode())


def categories(values: Sequence[str]) -> Encoded:
    """Strings of which there are few: the distinct ones in order of their first row, and a code a row."""
    code_of: dict[str, int] = {}
    codes_N = np.array([code_of.setdefault(value, len(code_of)) for value in values], np.int64)
    spec, text = integers(codes_N)
    return {**spec, "kind": "categories", "values": list(code_of)}, text


def integers(values_N: np.ndarray) -> Encoded:
    """Signed integers in as few bytes as the extremes need."""
    low, high = (int(values_N.min()), int(values_N.max())) if len(values_N) else (0, 0)
    bits = next((bits for bits in (8, 16, 32) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)), None)
    assert bits is not None, f"numbers between {low} and {high} do not fit into 32 bits"
    return {"kind": "numbers", "type": f"i{bits}"}, _shuffled(values_N.astype(f"<i{bits // 8}"))


def floats(values_N: np.ndarray) -> Encoded:
    """float32 rounded to four digits, NaN and infinities as they are."""
    bits_N = values_N.astype("<f4").view("<u4").astype(np.uint64)
    dropped = 23 - MANTISSA_BITS
    rounded_N = (bits_N + (1 << (dropped - 1))) >> np.uint64(dropped) << np.uint64(dropped)
    rounded_N = np.where(np.isfinite(values_N), rounded_N, bits_N).astype("<u4")
    # Just below the largest float32 the carry would reach infinity, which is another value.
    overflown_N = np.isfinite(values_N) & ~np.isfinite(rounded_N.view("<f4"))
    rounded_N[overflown_N] = bits_N[overflown_N].astype("<u4")
    return {"kind": "numbers", "type": "f32"}, _shuffled(rounded_N)


def flags(values_N: np.ndarray) -> Encoded:
    return {"kind": "flags"}, packed(np.packbits(values_N.astype(bool), bitorder="little").tobytes())


def hexes(values_NB: np.ndarray) -> Encoded:
    """(N, B) uint8, shown as 2B hexadecimal digits; all zero is none."""
    return {"kind": "hex", "width": int(values_NB.shape[1])}, packed(np.ascontiguousarray(values_NB).tobytes())


def _shuffled(values_N: np.ndarray) -> str:
    bytes_NB = np.ascontiguousarray(values_N).view(np.uint8).reshape(len(values_N), values_N.dtype.itemsize)
    return packed(bytes_NB.T.tobytes())


def packed(data: bytes) -> str:
    """gzip without a time, so that equal data is equal text."""
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()
