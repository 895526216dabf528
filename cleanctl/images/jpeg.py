"""The header of a JPEG file: its size and colours, and whether every decoder would give the same upright picture.

Reads markers up to the first scan, decodes nothing. A *plain* JPEG can be stored in an FFCV file byte for byte: eight
bits, grey or three components in a usual subsampling, sequential or progressive Huffman coding, no orientation to
apply, and ended by its end marker. Whatever is not plain goes through `decode_rgb` once and is stored as pixels.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_SEGMENTS = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE))
_GREY = (0x11,)
_LUMA_SAMPLINGS = (0x11, 0x12, 0x21, 0x22, 0x41)
_ORIENTATION = 0x0112


class JpegHeader(NamedTuple):
    """stored_rgb: its three components are red, green and blue, not luma and chroma, by libjpeg's rules. thinned:
    chroma has fewer samples than luma."""

    width: int
    height: int
    stored_rgb: bool = False
    thinned: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


def read_plain_header(data: bytes) -> JpegHeader | None:
    """Size and colours of a plain JPEG; None for any other bytes."""
    if data[:2] != b"\xff\xd8" or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    frame = None
    told: bool | None = None  # by a marker: whether the components are red, green and blue
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker not in _SEGMENTS:
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if end < at + 4 or end > len(data):
            return None
        if marker == 0xDA:
            return frame if frame is None or told is None else frame._replace(stored_rgb=told)
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            told = False
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12 and told is None:
            told = body[11] == 0
        if (marker == 0xE1 and _turns(body)) or (marker == 0xDB and not _whole_tables(body)):
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC):
            if frame is not None:
                return None
            frame = _plain_frame(marker, body)
            if frame is None:
                return None
        at = end
    return None


def _whole_tables(body: bytes) -> bool:
    at = 0
    while at < len(body):
        at += 1 + (64 if body[at] < 16 else 128)
    return at == len(body)


def _plain_frame(marker: int, body: bytes) -> JpegHeader | None:
    if marker not in _HUFFMAN_FRAMES or len(body) < 9 or body[0] != 8:
        return None
    height, width, components = struct.unpack_from(">HHB", body, 1)
    if len(body) < 6 + 3 * components or components not in (1, 3) or not width or not height:
        return None
    samplings = tuple(body[7 + 3 * index] for index in range(components))
    if components == 1:
        # One component alone fills every cell, whatever factor it states; decoders disagree on odd ones.
        return JpegHeader(width, height) if samplings == _GREY else None
    if samplings[0] in _LUMA_SAMPLINGS and samplings[1:] == (0x11, 0x11):
        return JpegHeader(width, height, stored_rgb=body[6:15:3] == b"RGB", thinned=samplings[0] != 0x11)
    return None


def _turns(body: bytes) -> bool:
    """Whether an APP1 segment may say that the picture is to be turned; False only if it certainly does not."""
    if not body.startswith(b"Exif\0\0"):
        return b"tiff:Orientation" in body
    tiff = body[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return True
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return True
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for index in range(count):
        at = start + 2 + 12 * index
        if at + 12 > len(tiff):
            return True
        tag, kind, number, value = struct.unpack_from(order + "HHIH", tiff, at)
        if tag == _ORIENTATION:
            return not (kind == 3 and number == 1 and value == 1)
    return False
