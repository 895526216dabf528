"""Duplicates, leaks and placeholders planted among real images, with a list of what was planted where.

`plant(source, target, seed)` links class folders (`train/CLASS/*.jpg`, `test/CLASS/*.jpg`) into `target` and adds of
each kind 1 % of the training images, each of a donor of its own:

    exact       the same bytes under another key, half of them under another class
    reencoded   the same pixels as a JPEG of quality 30 to 80
    resized     scaled to 0.5 to 2 times its sides
    cropped     a window of 95 % of its sides, anywhere within it
    leak        a copy of a test image, by one of the four ways above
    placeholder copies of a few drawn notices, equal or encoded and scaled anew, under labels drawn at random

`target/planted.json` lists {"kind", "key", "donor"} of each; a placeholder's donor is the number of its notice.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LIST = "planted.json"
WAYS = ("exact", "reencoded", "resized", "cropped")
KINDS = (*WAYS, "leak", "placeholder")
COPIES_OF_A_NOTICE = 40


@dataclass(frozen=True)
class Planted:
    """key, donor: paths below the target. way: how the copy was made."""

    kind: str
    key: str
    donor: str
    way: str


def plant(
    source: Path, target: Path, *, seed: int, train: slice = slice(None), test: slice = slice(None), share: float = 0.01
) -> list[Planted]:
    """train, test: which of each class's images take part, in order of their names. They are hard links."""
    rng = np.random.default_rng(seed)
    train_keys, test_keys = _copied(source, target, "train", train), _copied(source, target, "test", test)
    classes = sorted({key.split("/")[1] for key in train_keys})
    count = max(1, round(share * len(train_keys)))
    donors = iter(rng.permutation(train_keys)[: count * len(WAYS)].tolist())
    planted = []
    for way in WAYS:
        for number in range(count):
            donor = next(donors)
            own = donor.split("/")[1]
            label = own if number % 2 else str(rng.choice([name for name in classes if name != own]))
            planted.append(Planted(way, f"train/{label}/{way}-{number:05d}.jpg", donor, way))
    for number, donor in enumerate(rng.permutation(test_keys)[:count].tolist()):
        key = f"train/{donor.split('/')[1]}/leak-{number:05d}.jpg"
        planted.append(Planted("leak", key, donor, WAYS[number % len(WAYS)]))
    for one in planted:
        (target / one.key).write_bytes(altered((target / one.donor).read_bytes(), one.way, rng))
    planted += _notices(target, classes, count, rng)
    (target / LIST).write_text(json.dumps([asdict(one) for one in planted]))
    return planted


def altered(data: bytes, way: str, rng: np.random.Generator) -> bytes:
    """The image file, changed in one of WAYS."""
    if way == "exact":
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    quality = 90
    if way == "reencoded":
        quality = int(rng.integers(30, 81))
    elif way == "resized":
        factor = float(2 ** rng.uniform(-1, 1))
        image = image.resize([max(8, round(side * factor)) for side in image.size], Image.Resampling.BICUBIC)
    else:
        assert way == "cropped"
        kept = [round(0.95 * side) for side in image.size]
        left, top = (int(rng.integers(0, side - keep + 1)) for side, keep in zip(image.size, kept))
        image = image.crop((left, top, left + kept[0], top + kept[1]))
    return _jpeg(image, quality)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _copied(source: Path, target: Path, split: str, files: slice) -> list[str]:
    keys = []
    for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
        place = target / split / folder.name
        place.mkdir(parents=True)
        for file in sorted(folder.iterdir())[files]:
            os.link(file, place / file.name)
            keys.append(f"{split}/{folder.name}/{file.name}")
    return keys


def _notices(target: Path, classes: list[str], count: int, rng: np.random.Generator) -> list[Planted]:
    planted = []
    for number in range(count):
        notice = number // COPIES_OF_A_NOTICE
        data = _jpeg(draw_notice(notice), 90)
        way = WAYS[number % 3]
        key = f"train/{rng.choice(classes)}/placeholder-{number:05d}.jpg"
        (target / key).write_bytes(altered(data, way, rng))
        planted.append(Planted("placeholder", key, str(notice), way))
    return planted


def draw_notice(number: int) -> Image.Image:
    """A small picture that says that a picture is missing; another for each number."""
    rng = np.random.default_rng(number)
    ground, ink = (236, 236, 238), (120, 120, 126)
    if number % 2:
        ground, ink = tuple(int(v) for v in rng.integers(30, 90, 3)), (230, 230, 230)
    image = Image.new("RGB", (48, 48), ground)
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(4, 12, 2))
    draw.rectangle((x, y, x + 26, y + 16), outline=ink, width=2)
    draw.line((x, y, x + 26, y + 16), fill=ink, width=1 + number % 3)
    draw.text((3 + number % 4, 32), ("no image", "image\nunavailable", "deleted", "not found")[number % 4], fill=ink)
    return image
