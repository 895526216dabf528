"""The page's images come from the FFCV file or the source, and one that is gone is said and not fatal."""

from __future__ import annotations

import importlib.util
import re
import shutil
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cleanctl import api
from cleanctl.config import EmbedConfig, ReportConfig, SelectConfig
from cleanctl.files.local import LocalStorage
from cleanctl.paths import beton_path
from cleanctl.report.snapshot import take_snapshot
from cleanctl.report.thumbnails import make_thumbnails
from cleanctl.store import Store

CLASSES = ("cat", "dog")
COLOUR = {"cat": (220, 40, 30), "dog": (30, 60, 210)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    """Ten coloured images of each class, wide and high ones, and two files that are no images."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "images" / name).mkdir(parents=True)
        for number in range(10):
            size = (200, 120) if number % 2 else (40, 64)
            pixel = np.clip(np.array(COLOUR[name]) + rng.normal(0, 8, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixel).save(folder / "images" / name / f"{number}.jpg", quality=92)
    (folder / "images" / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "images" / "dog" / "\x1b[31mtext.jpg").write_bytes(b"no image at all")
    store = folder / "cleanctl.zarr"
    loader = "ffcv" if importlib.util.find_spec("ffcv") else "torch"
    config = EmbedConfig(
        source=str(folder / "images"), model=f"local-dir:{tiny_model}", loader=loader, max_failures="5", workers=1
    )
    api.embed(config, store=store)
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=store)
    return folder


def opened(folder):
    store = Store.open(folder / "cleanctl.zarr")
    return store, take_snapshot(store, store.split("train"), None)


def image_of(jpeg: bytes) -> Image.Image:
    return Image.open(BytesIO(jpeg))


@pytest.mark.parametrize("place", ["source", "packed"])
def test_each_row_has_its_own_image_within_the_size(made, place):
    store, snapshot = opened(made)
    beton = beton_path(store.path, "train")
    if place == "packed" and not beton.is_file():
        pytest.skip("FFCV is not installed")
    files = LocalStorage(str(made / "images")) if place == "source" else None
    rows = np.flatnonzero(snapshot.ok_N).tolist()
    found = make_thumbnails(snapshot, rows, files=files, beton=beton if place == "packed" else None)
    assert list(found.jpeg) == rows
    assert found.missing == 0
    for row, jpeg in found.jpeg.items():
        image = image_of(jpeg)
        name = snapshot.keys[row].split("/")[0]
        assert max(image.size) == (96 if int(snapshot.keys[row].split("/")[1][0]) % 2 else 64)
        assert np.abs(np.asarray(image).mean(axis=(0, 1)) - COLOUR[name]).max() < 12


def test_what_is_gone_or_broken_is_counted(made, tmp_path):
    _, snapshot = opened(made)
    shutil.copytree(made / "images", tmp_path / "images")
    (tmp_path / "images" / "cat" / "3.jpg").unlink()
    (tmp_path / "images" / "dog" / "4.jpg").write_bytes(b"\xff\xd8\xff broken")
    rows = np.flatnonzero(snapshot.ok_N).tolist()
    found = make_thumbnails(snapshot, rows, files=LocalStorage(str(tmp_path / "images")), beton=None)
    assert found.missing == 2
    assert {snapshot.keys[row] for row in set(rows) - set(found.jpeg)} == {"cat/3.jpg", "dog/4.jpg"}


def test_images_stop_at_the_bytes_allowed_with_the_most_wanted_first(made):
    _, snapshot = opened(made)
    rows = np.flatnonzero(snapshot.ok_N).tolist()[::-1]
    files = LocalStorage(str(made / "images"))
    whole = make_thumbnails(snapshot, rows, files=files, beton=None)
    allowed = sum(len(jpeg) for jpeg in whole.jpeg.values()) // 2
    part = make_thumbnails(snapshot, rows, files=files, beton=None, most_bytes=allowed)
    assert list(part.jpeg) == rows[: len(part.jpeg)]
    assert 0 < sum(len(jpeg) for jpeg in part.jpeg.values()) <= allowed


def test_the_page_holds_the_images_and_the_failures(made):
    result = api.report(ReportConfig(), store=made / "cleanctl.zarr")
    text = (made / "cleanctl.report.html").read_text(encoding="utf-8")
    packed = re.search(r'<script type="text/plain" id="thumbnails">(.*?)</script>', text, re.DOTALL).group(1)
    assert b64decode(packed).count(b"\xff\xd8\xff") >= result.images == 20
    assert result.images_missing == 0
    assert {"failures", "overview"} <= set(result.sections)
    assert "empty file (0 bytes)" in text
    assert "\\x1b[31mtext.jpg" in text
    assert "\x1b" not in text
    assert str(made / "images") in text


def test_images_can_lie_in_a_folder_of_the_report_s_own(made, tmp_path):
    config = ReportConfig(out=tmp_path / "page.html", images="folder")
    result = api.report(config, store=made / "cleanctl.zarr")
    files = sorted(path.name for path in (tmp_path / "page-images").glob("*.jpg"))
    assert result.image_folder == "page-images"
    assert len(files) == result.images == 20
    assert max(max(Image.open(tmp_path / "page-images" / name).size) for name in files) == 200
    assert 'id="thumbnails"' not in (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "page-images" / "old.jpg").write_bytes(b"")
    api.report(config, store=made / "cleanctl.zarr")
    assert not (tmp_path / "page-images" / "old.jpg").exists()


def test_a_store_whose_images_moved_away_still_has_a_page(made, tmp_path):
    shutil.copytree(made / "cleanctl.zarr", tmp_path / "cleanctl.zarr")
    source = {"root": str(tmp_path / "nowhere"), "layout": "class folders"}
    Store.open(tmp_path / "cleanctl.zarr").annotate(source=source)
    result = api.report(ReportConfig(), store=tmp_path / "cleanctl.zarr")
    assert result.images == 0
    assert any("no images in this page" in note for note in result.notes)
