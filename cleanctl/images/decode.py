"""Bytes of one file → an upright RGB image, or the reason why not.

What the content is decides, never the file's name. Every loader goes through here or gives the same pixels:

- the first frame of an animation; EXIF (or XMP) orientation applied; transparency dropped and palettes resolved by
  `convert("RGB")`, which is what open_clip does with an RGB-capable image, but done *before* any resizing: resizing
  palette indices, as a plain transform would, picks nearest neighbours.
- 16-bit greys are scaled to 8 bits. Pillow's own conversion cuts them off at 255 and would give a white image.
- a truncated image is a failure, not an image with a grey end.
- an image of more than `PIXEL_LIMIT` pixels is refused from its header. 100 megapixels pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from cleanctl.files.sniff import why_no_image
from cleanctl.images.jpeg import read_plain_header

PIXEL_LIMIT = 2**27

# Formats whose decoders read pixels and nothing else; Pillow's list also holds EPS, which starts an interpreter.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """`reason` is a clause that ends up beside the row, e.g. `truncated after 1,024 bytes`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_rgb(data: bytes | memoryview) -> Image.Image:
    """An upright image of mode RGB. Raises UnreadableImage."""
    return decode_reduced(data, lambda width, height: 1.0)[0]


def decode_pixels(data: bytes) -> np.ndarray:
    """`decode_rgb` as uint8 (H, W, 3); plain JPEGs by torchvision's decoder, which gives the same pixels in half the
    time. libjpeg writes there what it thinks of damaged files to stderr. Raises UnreadableImage."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    header = read_plain_header(data)
    if header is not None and header.width * header.height <= PIXEL_LIMIT:
        try:
            pixel_CHW = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            return pixel_CHW.permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # what Pillow says of the file holds for all loaders
    return np.array(decode_rgb(data))


def decode_reduced(
    data: bytes | memoryview, factor_of: Callable[[int, int], float]
) -> tuple[Image.Image, tuple[int, int]]:
    """An upright RGB image, scaled by `factor_of(width, height)` where that is below 1, and its size before scaling.

    A JPEG is first scaled down in its own decoder, far cheaper in time and memory, to no less than twice its goal.
    Raises UnreadableImage.
    """
    image = _open(data)
    try:
        size = image.size
        box: tuple[float, float, float, float] = (0, 0, *size)
        factor = factor_of(*size)
        goal = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        if factor < 1:
            # Its size rounds up; the box says where the picture ends within it. Without the box the picture would be
            # stretched by up to a pixel, which costs more than all other errors together.
            drafted = image.draft(None, (2 * goal[0], 2 * goal[1]))
            box = box if drafted is None else drafted[1]
        image.load()
        rgb = _to_rgb(image)
        if factor < 1:
            rgb = rgb.resize(goal, Image.Resampling.BICUBIC, box=box)
        upright = _upright(rgb, image)
        return upright, size if upright.size == rgb.size else size[::-1]
    except UnreadableImage:
        raise
    except Exception as exc:
        raise UnreadableImage(_why(exc, len(data))) from exc


@cache
def prepare_pillow() -> tuple[str, ...]:
    """The formats of FORMATS that this Pillow reads.

    Also makes process-wide settings, once: Pillow's own pixel limit would warn of real 100-megapixel images, and its
    remarks on odd metadata would fill the screen. What matters in them ends up in a reason.
    """
    Image.init()
    Image.MAX_IMAGE_PIXELS = max(PIXEL_LIMIT, Image.MAX_IMAGE_PIXELS or 0)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(data: bytes | memoryview) -> Image.Image:
    if not len(data):
        raise UnreadableImage("empty file (0 bytes)")
    try:
        image = Image.open(BytesIO(data), formats=prepare_pillow())
    except Image.UnidentifiedImageError as exc:
        raise UnreadableImage(f"not a readable image: {why_no_image(data)}") from exc
    except Image.DecompressionBombError as exc:
        raise UnreadableImage(f"its header claims more than {PIXEL_LIMIT / 1e6:.0f} megapixels") from exc
    except Exception as exc:
        raise UnreadableImage(_why(exc, len(data))) from exc
    if image.width * image.height > PIXEL_LIMIT:
        raise UnreadableImage(
            f"its header claims {image.width}×{image.height}, more than {PIXEL_LIMIT / 1e6:.0f} megapixels"
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(value_HW: np.ndarray) -> np.ndarray:
    """uint8 (H, W) from integer or float greys: 16-bit ones by their upper byte, floats in 0…1 times 255."""
    top = value_HW.max(initial=0)
    if not np.isfinite(top) or value_HW.min(initial=0) < 0 or top > 65535:
        raise UnreadableImage(f"its grey values reach {top:g}, outside 0…65535")
    if value_HW.dtype.kind == "f" and top <= 1:
        return (value_HW * 255 + 0.5).astype(np.uint8)
    if value_HW.dtype.itemsize == 2 or top > 255:
        return (value_HW.astype(np.uint32) >> 8).astype(np.uint8)
    return value_HW.astype(np.uint8)


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    # Pillow turns TIFF by itself while loading, and forgets the tag then.
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 — unreadable metadata must not cost a readable image
        orientation = 1
    turn = _UPRIGHT.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _why(exc: Exception, size: int) -> str:
    text = str(exc).strip() or type(exc).__name__
    lower = text.lower()
    if "truncated" in lower or "unexpected end" in lower or isinstance(exc, EOFError):
        return f"truncated after {size:,} bytes"
    if isinstance(exc, MemoryError):
        return "not enough memory to decode it"
    return f"broken image data: {text[:120]}"
