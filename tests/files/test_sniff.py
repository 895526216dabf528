"""One sniffer: what a file is by its first bytes, and what a reason says of it."""

from __future__ import annotations

import pytest

from cleanctl.files.sniff import content_type, why_no_image


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe1Exif", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        (b"RIFF\x10\0\0\0WAVE", "RIFF, not WebP"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\n  <!doctype HTML><body>", "HTML page"),
        (b'<?xml version="1.0"?><svg>', "XML or SVG text"),
        (b'{"error": 404}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer, the file itself was not fetched"),
        (b"\x1f\x8b\x08", "gzip archive"),
        (b"", "empty"),
        (b"\0\0\0\x18ftypmsf1", "HEIC"),
        (b"%!PS-Adobe", "PostScript"),
        (b"8BPS\0\1", "Photoshop"),
        (b"just words\n", "text"),
        (b"\0" * 64, "zero bytes only"),
        (b"\x01\x02\x03\x04\x05", "unknown type, begins with 01 02 03 04 05"),
    ],
)
def test_first_bytes_tell_what_a_file_is_whatever_its_name(head, kind):
    assert content_type(head) == kind


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xd8\xff\xe1Exif", "JPEG header, damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP header, damaged"),
        (b"\0\0\0\x18ftypheic", "HEIC file, which the installed Pillow cannot read; convert it to JPEG"),
        (b"<html>404</html>", "HTML page"),
    ],
)
def test_a_reason_says_what_content_without_an_image_is(data, words):
    assert why_no_image(data) == words
    assert why_no_image(memoryview(data + bytes(1000))) == words
