"""Any file ends as an upright RGB image or with a reason; the content decides, not the name."""

from __future__ import annotations

import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import odd_images
import pytest
from odd_images import encoded, picture, turned
from PIL import Image, UnidentifiedImageError, features

from cleanctl.files.local import LocalStorage
from cleanctl.files.sniff import why_no_image
from cleanctl.images.decode import PIXEL_LIMIT, UnreadableImage, decode_reduced, decode_rgb
from cleanctl.images.jpeg import read_plain_header

CORPUS = odd_images.corpus()


def test_the_corpus_has_at_least_thirty_kinds():
    assert len(CORPUS) >= 60
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize(("name", "data", "expected"), CORPUS, ids=[case[0] for case in CORPUS])
def test_every_odd_file_ends_as_an_image_or_with_its_reason(name, data, expected):
    if expected is None:
        image = decode_rgb(data)
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 0 or 1 in image.size
    else:
        with pytest.raises(UnreadableImage) as caught:
            decode_rgb(data)
        assert expected in caught.value.reason
        assert caught.value.reason


def test_odd_files_leave_the_screen_clean():
    """Pillow warns of odd metadata and of sizes; a run over a million files would say nothing else."""
    program = """
import odd_images
from cleanctl.images.decode import UnreadableImage, decode_rgb
for name, data, expected in odd_images.corpus():
    try:
        decode_rgb(data)
    except UnreadableImage:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def distance(image: Image.Image, wanted: Image.Image) -> float:
    assert image.size == wanted.size
    return float(np.abs(np.asarray(image, np.float64) - np.asarray(wanted, np.float64)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(orientation):
    assert distance(decode_rgb(turned(orientation)), picture()) < 3


def test_a_turn_written_in_xmp_alone_is_made():
    data = next(data for name, data, _ in CORPUS if name == "turned-by-xmp.jpg")
    assert distance(decode_rgb(data), picture()) < 3


@pytest.mark.parametrize(
    "name", ["grey-16-bit.png", "float.tif", "grey-alpha.png", "grey.jpg", "rgb-16-bit.png", "rgba.png", "cmyk.jpg"]
)
def test_unusual_pixels_keep_their_brightness(name):
    data = next(data for case, data, _ in CORPUS if case == name)
    grey = "grey" in name or name == "float.tif"
    assert distance(decode_rgb(data), picture().convert("L").convert("RGB") if grey else picture()) < 3


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_an_animation_gives_its_first_frame(name):
    data = next(data for case, data, _ in CORPUS if case == name)
    assert distance(decode_rgb(data), picture()) < 8


def test_an_image_of_100_megapixels_is_no_bomb(monkeypatch):
    """Its header alone is looked at here; `slow` decodes a real one."""
    png = odd_images.with_header_size(encoded(picture(), "PNG"), 11_000, 11_000)
    assert PIXEL_LIMIT > 11_000 * 11_000
    with pytest.raises(UnreadableImage) as caught:
        decode_rgb(png)
    assert "megapixels" not in caught.value.reason


@pytest.mark.slow
def test_100_megapixels_are_decoded_and_a_jpeg_is_reduced_on_the_way():
    data = encoded(Image.new("L", (10_000, 10_000), 77), "JPEG", quality=80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_rgb(data).size == (10_000, 10_000)
        image, size = decode_reduced(data, lambda width, height: 512 / min(width, height))
    assert (image.size, size) == ((512, 512), (10_000, 10_000))


def test_a_reduction_is_upright_and_tells_the_upright_size():
    image, size = decode_reduced(turned(6), lambda width, height: 0.5)
    assert (image.size, size) == ((35, 25), (70, 50))
    assert distance(image, picture().resize((35, 25))) < 4


def test_a_reduced_jpeg_is_not_stretched_by_its_rounded_size():
    """1003 / 8 is no whole number: ignoring that moves the picture by most of a pixel."""
    ramp = np.broadcast_to(np.linspace(0, 255, 1003).astype(np.uint8)[None, :, None], (1003, 1003, 3))
    wanted = Image.fromarray(ramp).resize((40, 40), Image.Resampling.BICUBIC)
    image, _ = decode_reduced(encoded(Image.fromarray(ramp), "JPEG", quality=98), lambda w, h: 40 / w)
    off = np.asarray(image, np.float64)[:, 2:-2] - np.asarray(wanted, np.float64)[:, 2:-2]
    assert abs(off.mean()) < 0.4
    assert np.abs(off).max() < 2


def test_a_missing_file_and_a_folder_have_reasons(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "here.jpg").write_bytes(b"bytes")
    files = LocalStorage.of(tmp_path)
    contents = list(files.read(["no.jpg", "folder", "here.jpg"]))
    assert [content.reason for content in contents] == ["file not found", "a folder, not a file", ""]
    assert [content.data for content in contents] == [b"", b"", b"bytes"]
    assert [files.head(key, 3) for key in ("no.jpg", "folder", "here.jpg")] == [b"", b"", b"byt"]


def test_a_heic_file_says_what_to_do():
    assert "convert it to JPEG" in why_no_image(b"\0\0\0\x18ftypheic" + bytes(50))


# --- which JPEGs may be stored as they are ---------------------------------------------------------------------------


def test_plain_jpegs_are_recognised_with_their_size():
    """Its chroma is thinned but where a file says otherwise (`subsampling` 0 is 4:4:4) or has none."""
    for options in ({}, {"progressive": True}, {"subsampling": 1}, {"exif": Image.Exif()}):
        assert read_plain_header(encoded(picture(), "JPEG", **options)) == (70, 50, False, True)
    assert read_plain_header(encoded(picture(), "JPEG", subsampling=0)) == (70, 50, False, False)
    assert read_plain_header(encoded(picture().convert("L"), "JPEG")) == (70, 50, False, False)
    assert read_plain_header(turned(1)) == (70, 50, False, True)
    assert read_plain_header(encoded(picture(), "JPEG", keep_rgb=True)) == (70, 50, True, False)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_jpeg_that_must_be_turned_is_not_plain(orientation):
    assert read_plain_header(turned(orientation)) is None


@pytest.mark.parametrize(
    "name", ["cmyk.jpg", "turned-by-xmp.jpg", "bad-exif.jpg", "cut-in-scan-0.5.jpg", "garbage-after-end.jpg", "rgb.png"]
)
def test_doubtful_files_are_not_plain(name):
    assert read_plain_header(next(data for case, data, _ in CORPUS if case == name)) is None


def test_damaged_headers_never_break_the_header_reader_and_it_agrees_with_pillow():
    rng = np.random.default_rng(0)
    jpeg = encoded(picture(), "JPEG")
    agreed = differ = 0
    for _ in range(3000):
        data = bytearray(jpeg)
        for at in rng.integers(2, 700, 4):
            data[at] = rng.integers(0, 256)
        header = read_plain_header(bytes(data))
        if header is not None:
            try:
                with Image.open(BytesIO(bytes(data))) as image:
                    assert image.size == header.size
                agreed += 1
            except UnidentifiedImageError:
                differ += 1
    assert agreed > 1000
    assert differ <= agreed / 500


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_where_pillow_reads_it():
    assert distance(decode_rgb(encoded(picture(), "AVIF", quality=95)), picture()) < 4
