"""FFCV's file format, version 2, with one field `image`: written and read with NumPy alone.

A `.beton` written here is one that FFCV's own Reader and Loader open. It is written here because FFCV's writer takes
decoded arrays only (every JPEG would be encoded a second time), waits for ever when one of its processes dies, and
prints. Sample i is row i of the manifest; samples lie in that order, so that reading rows in order reads the file in
order.

    header | field description | one record a sample (mode, width, height, address) | pages of data | allocation table

A sample never crosses a page's border, as FFCV's page cache demands; hence no sample is longer than PAGE_SIZE.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

JPEG, RAW = 0, 1
PAGE_SIZE = 1 << 23
TOKEN_BYTES = 16

_VERSION = 2
_IMAGE_FIELD = 2  # FFCV's number for its RGBImageField
_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
_FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", (1024,)))], align=True)
SAMPLE_RECORD = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_SAMPLE = np.dtype([("", SAMPLE_RECORD)], align=True)
_ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
_SAMPLES_AT = _HEADER.itemsize + _FIELD.itemsize


class Sample(NamedTuple):
    """mode is JPEG or RAW; raw data are height × width × 3 bytes."""

    mode: int
    width: int
    height: int
    data: bytes | memoryview


PLACEHOLDER = Sample(RAW, 1, 1, bytes(3))


class BetonWriter:
    """Writes samples in order into an open, empty, seekable file; `finish` makes it whole.

    `token` is kept in the field's arguments, which FFCV ignores: the row table that belongs to the file has the same.
    """

    def __init__(self, file: BinaryIO, num_samples: int, token: bytes) -> None:
        assert len(token) == TOKEN_BYTES
        self._file = file
        self._token = token
        self._sample = np.zeros(num_samples, dtype=_SAMPLE)
        self._allocation = np.zeros(num_samples, dtype=_ALLOCATION)
        self._count = 0
        self._at = -(-(_SAMPLES_AT + self._sample.nbytes) // PAGE_SIZE) * PAGE_SIZE
        file.seek(self._at)

    def add(self, sample: Sample) -> None:
        size = len(sample.data)
        assert size <= PAGE_SIZE
        if self._at % PAGE_SIZE + size > PAGE_SIZE:
            self._at += -self._at % PAGE_SIZE
            self._file.seek(self._at)
        self._file.write(sample.data)
        self._sample["f0"][self._count] = (sample.mode, sample.width, sample.height, self._at)
        self._allocation[self._count] = (self._count, self._at, size)
        self._count += 1
        self._at += size

    def pad(self) -> None:
        """Lets all samples that were not added be one placeholder."""
        if self._count == len(self._sample):
            return
        first = self._count
        self.add(PLACEHOLDER)
        self._sample[first + 1 :] = self._sample[first]
        self._allocation[first + 1 :] = self._allocation[first]
        self._allocation["sample_id"] = np.arange(len(self._allocation))
        self._count = len(self._sample)

    def finish(self) -> int:
        """Writes the tables and the header, not yet synchronised with the disk, and gives their checksum."""
        assert self._count == len(self._sample)
        self._file.write(self._allocation.tobytes())
        header = np.array([(_VERSION, 1, PAGE_SIZE, self._count, self._at)], dtype=_HEADER)
        field = np.zeros(1, dtype=_FIELD)
        field["type_id"] = _IMAGE_FIELD
        field["name"][0, :5] = np.frombuffer(b"image", dtype=np.uint8)
        field["arguments"][0, :TOKEN_BYTES] = np.frombuffer(self._token, dtype=np.uint8)
        self._file.seek(0)
        self._file.write(header.tobytes() + field.tobytes() + self._sample.tobytes())
        return _checksum(header, field, self._sample, self._allocation)


class BetonFile:
    """A file that `BetonWriter` made, mapped into memory. Raises ValueError if it is cut short or something else.

    checksum: CRC-32 of all but the samples' bytes.
    """

    def __init__(self, path: Path) -> None:
        size = path.stat().st_size
        if size < _SAMPLES_AT:
            raise ValueError("it is shorter than its header")
        header_1 = np.fromfile(path, dtype=_HEADER, count=1)
        header = header_1[0]
        num = int(header["num_samples"])
        end = int(header["alloc_table_ptr"]) + num * _ALLOCATION.itemsize
        if (header["version"], header["num_fields"], end) != (_VERSION, 1, size):
            raise ValueError("its header does not describe it")
        field_1 = np.fromfile(path, dtype=_FIELD, count=1, offset=_HEADER.itemsize)
        sample_N = np.fromfile(path, dtype=_SAMPLE, count=num, offset=_SAMPLES_AT)
        allocation_N = np.fromfile(path, dtype=_ALLOCATION, offset=int(header["alloc_table_ptr"]))
        self.token = field_1["arguments"][0, :TOKEN_BYTES].tobytes()
        self.sample, self.size_N = sample_N["f0"], allocation_N["size"]
        self.checksum = _checksum(header_1, field_1, sample_N, allocation_N)
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, row: int) -> Sample:
        mode, width, height, at = self.sample[row].item()
        return Sample(mode, width, height, self._bytes[at : at + int(self.size_N[row])].data)


def _checksum(*tables: np.ndarray) -> int:
    crc = 0
    for table in tables:
        crc = zlib.crc32(table.tobytes(), crc)
    return crc
