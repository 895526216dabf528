"""Tars as the tests write them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from cleanctl.files.tar_headers import DamagedTar, WindowedFile, members


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], *, format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def jpeg(number: int = 0) -> bytes:
    """A small JPEG; another number, other bytes of another length."""
    y_HW, x_HW = np.mgrid[0 : 30 + number % 5, 0 : 40 + number % 7]
    pixel_HWC = np.stack([40 + 4 * x_HW, 30 + 6 * y_HW, 220 - x_HW * y_HW // 8], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixel_HWC).save(buffer, "JPEG", quality=70 + number % 20)
    return buffer.getvalue()


def sample(name: str, data: bytes, *, kind: str = "jpg", **labels: object) -> list[tuple[str, bytes]]:
    """Members of one sample: the image, and `json=` a dict, `cls=` or `txt=` a text, as img2dataset orders them."""
    members = [(f"{name}.{kind}", data)]
    for label, value in labels.items():
        members.append((f"{name}.{label}", (json.dumps(value) if label == "json" else str(value)).encode()))
    return members


def labelled(count: int, *, start: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> list[tuple[str, bytes]]:
    """Samples 00000 … with a class name in their `.cls`."""
    out = []
    for number in range(start, start + count):
        out += sample(f"{number:05d}", jpeg(number), cls=classes[number % len(classes)])
    return out


def walk(data: bytes, step: int = 8192) -> list[tuple[str, int, int]]:
    window = WindowedFile(lambda at, count: data[at : at + count], len(data), step)
    return [(member.name, member.offset, member.size) for member in members(window)]


def walk_until_damage(data: bytes) -> tuple[list[tuple[str, int, int]], DamagedTar | None]:
    kept = []
    try:
        for member in members(WindowedFile(lambda at, count: data[at : at + count], len(data), 8192)):
            kept.append((member.name, member.offset, member.size))
    except DamagedTar as exc:
        return kept, exc
    return kept, None
