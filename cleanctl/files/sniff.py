"""What a file is by its first bytes, whatever its name: one table, for the list of failures and for reasons."""

from __future__ import annotations

HEAD_BYTES = 64

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "MP4 or another ISO media file"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF document"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"RIFF", "RIFF, not WebP"),
    (0, b"version https://git-lfs", "Git LFS pointer, the file itself was not fetched"),
)
_DECODED = ("JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF")
_CONVERTED = ("AVIF", "HEIC", "JPEG 2000")


def content_type(data: bytes | memoryview) -> str:
    """`JPEG`, `HTML page`, `text`, `zero bytes only`, `empty`, …; the first 64 bytes are looked at."""
    head = bytes(data[:HEAD_BYTES])
    if not head:
        return "empty"
    for start, magic, name in _SIGNATURES:
        if head.startswith(magic, start):
            return name
    if not head.strip(b"\0"):
        return "zero bytes only"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML page"
    if text.startswith((b"<?xml", b"<svg")):
        return "XML or SVG text"
    if text.startswith((b"{", b"[")):
        return "JSON"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return f"unknown type, begins with {head[:8].hex(' ')}"


def why_no_image(data: bytes | memoryview) -> str:
    """What to say of content that is no readable image: `HTML page`, `PNG header, damaged`."""
    kind = content_type(data)
    if kind in _DECODED:
        return f"{kind} header, damaged"
    if kind in _CONVERTED:
        return f"{kind} file, which the installed Pillow cannot read; convert it to JPEG"
    return kind
