"""Squares: open_clip's own, to the bit, from Pillow and from the compiled resampler."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleanctl.errors import UsageError
from cleanctl.images.geometry import MODES, RandomCrop, place, random_box
from cleanctl.images.packed.beton import RAW, SAMPLE_RECORD
from cleanctl.images.resize import to_random_square, to_square
from cleanctl.records import PixelSpec

SIDES = st.integers(1, 260)


def noise(width: int, height: int, seed: int, *, hard: bool) -> np.ndarray:
    """Hard black and white reaches over- and undershoot, where rounding and clipping show."""
    rng = np.random.default_rng(seed)
    top = 2 if hard else 256
    return (rng.integers(0, top, (height, width, 3)) * (255 if hard else 1)).astype(np.uint8)


@given(
    width=SIDES,
    height=SIDES,
    size=st.sampled_from([1, 8, 32, 61, 64]),
    mode=st.sampled_from(sorted(MODES)),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.integers(0, 255),
    seed=st.integers(0, 1000),
)
@settings(max_examples=120, deadline=None)
def test_the_reference_is_open_clips_transform(width, height, size, mode, interpolation, fill, seed):
    if max(place(width, height, size, MODES[mode])[:2]) > 8 * size or min(width, height) * size < max(width, height):
        return  # ribbons: the next test
    image = Image.fromarray(noise(width, height, seed, hard=False))
    transform = open_clip.image_transform(*(size, False, (0, 0, 0), (1, 1, 1), mode, interpolation), fill_color=fill)
    wanted = (transform(image).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    spec = PixelSpec(size=size, resize_mode=mode, interpolation=interpolation, fill=fill)
    assert np.array_equal(to_square(image, spec), wanted)


@pytest.mark.parametrize(("width", "height"), [(1, 3000), (3000, 1), (3, 2500), (2500, 7)])
def test_ribbons_give_the_same_square_without_being_resized_whole(width, height):
    image = Image.fromarray(noise(width, height, 0, hard=False))
    transform = open_clip.image_transform(32, False, (0, 0, 0), (1, 1, 1))
    wanted = (transform(image).permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(to_square(image, PixelSpec(size=32)) - wanted).mean() < 0.6


def test_a_square_of_a_1x10000_image_needs_no_gigabyte():
    import tracemalloc

    image = Image.new("RGB", (1, 10_000), (10, 20, 30))
    tracemalloc.start()
    square = to_square(image, PixelSpec(size=224))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert (square == (10, 20, 30)).all()


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.sampled_from([1, 8, 32, 61, 96]),
    mode=st.sampled_from(sorted(MODES)),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    hard=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=400, deadline=None)
def test_the_compiled_resampler_is_pillow_bit_by_bit(width, height, size, mode, interpolation, hard, seed):
    resample = pytest.importorskip("cleanctl.images.resample")
    if max(place(width, height, size, MODES[mode])[:2]) > 8 * size:
        return
    pixel = noise(width, height, seed, hard=hard)
    spec = PixelSpec(size=size, resize_mode=mode, interpolation=interpolation, fill=9)
    choice = [MODES[mode], resample.KINDS[interpolation], 9, resample.PILLOW_REORDERS]
    got = compiled_square(resample, pixel, size, choice)
    assert np.array_equal(got, to_square(Image.fromarray(pixel), spec))


def compiled_square(resample, pixel: np.ndarray, size: int, choice: list[int], crop=(), draw: int = 0) -> np.ndarray:
    """What the FFCV loader makes of a sample stored as pixels, by the code and the types that it uses."""
    height, width = pixel.shape[:2]
    sample = np.array([(RAW, width, height, 0)], dtype=SAMPLE_RECORD)
    file = np.frombuffer(pixel.tobytes(), dtype=np.uint8)
    sample.setflags(write=False)
    out, ok = np.full((1, size, size, 3), 123, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    resample.decode_rows(
        *(np.array([draw << resample.ROW_BITS], dtype=np.uint64), sample, file),
        *(np.array([pixel.size], dtype=np.uint64), np.array([[height, width]], dtype=np.int32)),
        *(np.array(crop, dtype=np.float64), np.array(choice, dtype=np.int64), out, ok),
    )
    assert ok[0] == 1
    return out[0]


@given(width=SIDES, height=SIDES, draw=st.integers(0, 2**23 - 1))
@settings(max_examples=150, deadline=None)
def test_random_boxes_are_compiled_to_the_same_boxes(width, height, draw):
    resample = pytest.importorskip("cleanctl.images.resample")
    crop = RandomCrop()
    pixel, spec = noise(width, height, draw % 1000, hard=False), PixelSpec(size=24)
    got = compiled_square(
        resample, pixel, 24, [0, 0, 0, resample.PILLOW_REORDERS], crop=(*crop.scale, *crop.ratio), draw=draw
    )
    assert np.array_equal(got, to_random_square(Image.fromarray(pixel), spec, crop, draw))


@given(width=SIDES, height=SIDES, draw=st.integers(0, 2**23 - 1))
@settings(max_examples=200, deadline=None)
def test_random_boxes_lie_in_the_image(width, height, draw):
    left, top, box_width, box_height = random_box(width, height, draw, 0.08, 1.0, 3 / 4, 4 / 3)
    assert 0 <= left <= width - box_width
    assert 0 <= top <= height - box_height
    assert min(box_width, box_height) >= 1


def test_random_boxes_have_the_shares_and_ratios_asked_for():
    boxes = np.array([random_box(1000, 1000, draw, 0.2, 0.5, 0.5, 2.0) for draw in range(0, 2**23, 4001)])
    share = boxes[:, 2] * boxes[:, 3] / 1e6
    ratio = boxes[:, 2] / boxes[:, 3]
    assert 0.199 < share.min() < 0.21
    assert 0.49 < share.max() < 0.501
    assert np.median(np.log(ratio)) == pytest.approx(0, abs=0.1)
    assert ratio.max() < 2.02
    assert np.corrcoef(boxes[:, 0] / (1001 - boxes[:, 2]), boxes[:, 1] / (1001 - boxes[:, 3]))[0, 1] < 0.1
    for place_in_range in (boxes[:, 0] / (1000 - boxes[:, 2]), boxes[:, 1] / (1000 - boxes[:, 3])):
        assert np.histogram(place_in_range, 4, (0, 1))[0] / len(boxes) == pytest.approx([0.25] * 4, abs=0.04)


def test_a_crop_that_makes_no_sense_is_refused():
    for options in ({"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"scale": (0.9, 0.1)}, {"ratio": (2.0, 1.0)}):
        with pytest.raises(UsageError):
            RandomCrop(**options)
