"""Odd and broken image files, made here, each with what must become of it.

`corpus()` gives (file name, bytes, expected) where expected is None for a readable image, else a part of the reason
that the row must carry.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, features

Case = tuple[str, bytes, str | None]


def picture(width: int = 70, height: int = 50) -> Image.Image:
    """Every corner another colour, so that no turn or mirroring is like another; smooth, so that JPEG keeps it."""
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / max(1, height - 1), x / max(1, width - 1)
    red, green, blue = 40 + 190 * x, 30 + 200 * y, 220 - 180 * x * y
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_16_bit_rgb(image: Image.Image) -> bytes:
    """Pillow writes no such file: 16 bits a channel, the upper byte being the picture's."""
    value = (np.asarray(image).astype(np.uint16) << 8).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in value)
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def with_header_size(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size."""
    header = struct.pack(">II", width, height) + png[24:29]
    return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]


def turned(orientation: int) -> bytes:
    """A JPEG that is stored turned, and says so."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    image = picture() if undo is None else picture().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", quality=95, exif=exif)


def corpus() -> list[Case]:
    return [*_readable_jpegs(), *_other_readable(), *_truncated(), *_broken()]


def _readable_jpegs() -> Iterator[Case]:
    image = picture()
    jpeg = encoded(image, "JPEG", quality=95)
    yield "plain.jpg", jpeg, None
    yield "progressive.jpg", encoded(image, "JPEG", quality=95, progressive=True), None
    yield "subsampled-none.jpg", encoded(image, "JPEG", quality=95, subsampling=0), None
    yield "grey.jpg", encoded(image.convert("L"), "JPEG", quality=95), None
    yield "cmyk.jpg", encoded(image.convert("CMYK"), "JPEG", quality=95), None
    for orientation in range(1, 9):
        yield f"orientation-{orientation}.jpg", turned(orientation), None
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    yield "turned-by-xmp.jpg", encoded(image.rotate(90, expand=True), "JPEG", quality=95, xmp=xmp), None
    yield "bad-icc.jpg", encoded(image, "JPEG", quality=95, icc_profile=b"no profile at all"), None
    yield "bad-exif.jpg", encoded(image, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), None
    yield "garbage-after-end.jpg", jpeg + bytes(range(256)), None
    yield "zeros-after-end.jpg", jpeg + bytes(100), None
    yield "UPPER.JPG", jpeg, None
    middle = len(jpeg) * 2 // 3
    yield "bits-flipped.jpg", jpeg[:middle] + bytes([jpeg[middle] ^ 0x15]) + jpeg[middle + 1 :], None
    yield "long.jpg", encoded(picture(10_000, 1), "JPEG", quality=95), None


def _other_readable() -> Iterator[Case]:
    image = picture()
    alpha = Image.fromarray(np.linspace(0, 255, 3500).reshape(50, 70).astype(np.uint8))
    clear = image.copy()
    clear.putalpha(alpha)
    grey_alpha = image.convert("L")
    grey_alpha.putalpha(alpha)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=200)
    other = picture().rotate(180)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    yield "rgb.png", encoded(image, "PNG"), None
    yield "rgba.png", encoded(clear, "PNG"), None
    yield "grey-alpha.png", encoded(grey_alpha, "PNG"), None
    yield "palette.png", encoded(palette, "PNG"), None
    yield "palette-transparent.png", encoded(palette, "PNG", transparency=bytes(range(200))), None
    yield "one-bit.png", encoded(image.convert("1"), "PNG"), None
    yield "grey-16-bit.png", encoded(deep, "PNG"), None
    yield "rgb-16-bit.png", png_16_bit_rgb(image), None
    yield "1x1.png", encoded(picture(1, 1), "PNG"), None
    yield "1x10000.png", encoded(picture(1, 10_000), "PNG"), None
    yield "animated.gif", encoded(palette, "GIF", save_all=True, append_images=[other]), None
    yield "animated.webp", encoded(image, "WEBP", save_all=True, append_images=[other], quality=95), None
    yield "lossless.webp", encoded(image, "WEBP", lossless=True), None
    yield "plain.bmp", encoded(image, "BMP"), None
    yield "plain.tif", encoded(image, "TIFF"), None
    yield "float.tif", encoded(Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255), "TIFF"), None
    yield "plain.ppm", encoded(image, "PPM"), None
    if features.check("avif"):
        yield "plain.avif", encoded(image, "AVIF", quality=95), None
    yield "png-named.jpg", encoded(image, "PNG"), None
    yield "jpeg-named.png", encoded(image, "JPEG", quality=95), None


def _truncated() -> Iterator[Case]:
    jpeg = encoded(picture(), "JPEG", quality=95)
    scan = jpeg.index(b"\xff\xda")
    for share in (0.1, 0.5, 0.9):
        end = scan + 14 + int(share * (len(jpeg) - scan - 14))
        yield f"cut-in-scan-{share}.jpg", jpeg[:end], "truncated"
    # An end marker in the wrong place is damage that no decoder refuses: the rest of the picture is grey, as elsewhere.
    yield "ended-too-soon.jpg", jpeg[: scan + 200] + b"\xff\xd9", None
    yield "cut-in-header.jpg", jpeg[:200], "truncated"
    yield "cut-in-first-bytes.jpg", jpeg[:3], "JPEG header, damaged"
    png = encoded(picture(), "PNG")
    yield "cut.png", png[: len(png) // 2], "truncated"
    webp = encoded(picture(), "WEBP", quality=90)
    yield "cut.webp", webp[: len(webp) // 2], ""


def _broken() -> Iterator[Case]:
    png = encoded(picture(), "PNG")
    yield "empty.jpg", b"", "empty file"
    yield "zeros.jpg", bytes(5000), "zero bytes only"
    yield "text.jpg", b"this is no image, whatever its name says\n", "text"
    yield "page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"
    yield "pointer.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"
    yield "document.png", b"%PDF-1.7 ...", "PDF document"
    yield "phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), "HEIC"
    yield "random.jpg", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8, ""
    yield "bomb.png", with_header_size(png, 60_000, 60_000), "megapixels"
    yield "bomb-smaller.png", with_header_size(png, 12_000, 12_000), "megapixels"
    broken = bytearray(png)
    broken[60:70] = bytes(10)
    yield "broken-data.png", bytes(broken), "broken image data"
    far = Image.fromarray(np.full((5, 5), 1e9, np.float32))
    yield "far-too-bright.tif", encoded(far, "TIFF"), "outside"
