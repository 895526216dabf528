"""Crops: open_clip's own within one grey level, and random ones with torchvision's statistics."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from cleanctl.errors import UsageError
from cleanctl.images.crop import to_crop, to_crops
from cleanctl.images.geometry import RandomCrop, WindowCrop, place
from cleanctl.records import PixelSpec

SIDES = st.integers(1, 260)
DRAWS = st.integers(0, 2**23 - 1)


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """Of half contrast: where a filter's overshoot is cut off at 0 or 255, the order of the two passes shows."""
    return np.random.default_rng(seed).integers(80, 176, (height, width, 3), dtype=np.uint8)


@given(
    width=SIDES,
    height=SIDES,
    size=st.sampled_from([1, 8, 32, 61, 64]),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.integers(0, 255),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_a_crop_is_open_clips_within_one_grey_level(width, height, size, mode, interpolation, fill, seed):
    spec = PixelSpec(size=size, resize_mode=mode, interpolation=interpolation, fill=fill)
    if max(place(width, height, spec)[1:3]) > 8 * size or min(width, height) * size < max(width, height):
        return  # ribbons: the next test
    pixel = noise(width, height, seed)
    transform = open_clip.image_transform(*(size, False, (0, 0, 0), (1, 1, 1), mode, interpolation), fill_color=fill)
    wanted = (transform(Image.fromarray(pixel)).permute(1, 2, 0).numpy() * 255).round()
    off = np.abs(to_crop(pixel, spec) - wanted)
    assert off.max() <= 2
    assert (off > 1).mean() <= max(1e-3, 1 / off.size)


@pytest.mark.parametrize(("width", "height"), [(1, 3000), (3000, 1), (3, 2500), (2500, 7)])
def test_ribbons_give_the_same_crop_without_being_resized_whole(width, height):
    pixel = noise(width, height, 0)
    transform = open_clip.image_transform(32, False, (0, 0, 0), (1, 1, 1))
    wanted = (transform(Image.fromarray(pixel)).permute(1, 2, 0).numpy() * 255).round()
    assert np.abs(to_crop(pixel, PixelSpec(size=32)) - wanted).mean() < 0.6


def test_a_crop_of_a_1x10000_image_needs_no_gigabyte():
    import tracemalloc

    pixel = np.full((10_000, 1, 3), (10, 20, 30), np.uint8)
    tracemalloc.start()
    crop = to_crop(pixel, PixelSpec(size=224))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert (crop == (10, 20, 30)).all()


def test_images_of_one_size_are_cut_together_as_they_are_alone():
    pixel = np.stack([noise(45, 33, seed) for seed in range(5)])
    together = to_crops(pixel, PixelSpec(size=24), size=(45, 33), extent=(45, 33))
    assert all(np.array_equal(one, to_crop(alone, PixelSpec(size=24))) for one, alone in zip(together, pixel))


def test_a_picture_that_ends_within_the_last_pixel_is_not_stretched():
    ramp = np.broadcast_to(np.linspace(0, 255, 1003)[None, :, None], (1003, 1003, 3)).astype(np.uint8)
    spec = PixelSpec(size=40)
    half = np.asarray(Image.fromarray(np.pad(ramp, ((0, 1), (0, 1), (0, 0)), mode="edge")).reduce(2))
    got = to_crops(half[None], spec, size=(1003, 1003), extent=(501.5, 501.5))[0]
    off = got.astype(float)[:, 2:-2] - to_crop(ramp, spec)[:, 2:-2]
    assert abs(off.mean()) < 0.4
    assert np.abs(off).max() < 2


# --- random crops ----------------------------------------------------------------------------------------------------


def boxes_of(crop: RandomCrop, width: int, height: int) -> np.ndarray:
    spec = PixelSpec(size=8)
    return np.array([place(width, height, spec, crop, draw).box for draw in range(0, 2**23, 2001)])


@given(width=SIDES, height=SIDES, draw=DRAWS)
@settings(max_examples=200, deadline=None)
def test_random_boxes_lie_in_the_image(width, height, draw):
    left, top, box_width, box_height = place(width, height, PixelSpec(size=8), RandomCrop(), draw).box
    assert 0 <= left <= width - box_width
    assert 0 <= top <= height - box_height
    assert min(box_width, box_height) >= 1


@pytest.mark.parametrize(("width", "height"), [(320, 320), (640, 480), (300, 900)])
def test_random_boxes_have_torchvisions_statistics(width, height):
    """Areas, ratios and places, at the quantiles; clipped instead of redrawn, a square's mean area would be 0.53."""
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    top, left, box_height, box_width = np.array(theirs).T
    wanted = np.stack([left, top, box_width, box_height], axis=1)
    got = boxes_of(RandomCrop(), width, height)
    area_of = [box[:, 2] * box[:, 3] / (width * height) for box in (got, wanted)]
    ratio_of = [np.log(box[:, 2] / box[:, 3]) for box in (got, wanted)]
    left_of, top_of = (
        [(box[:, at] + box[:, at + 2] / 2) / side for box in (got, wanted)] for at, side in ((0, width), (1, height))
    )
    for ours, its in (area_of, ratio_of, left_of, top_of):
        deciles = np.linspace(0.1, 0.9, 9)
        assert np.quantile(ours, deciles) == pytest.approx(np.quantile(its, deciles), abs=0.03)
    if width == height:
        assert area_of[0].mean() == pytest.approx(0.477, abs=0.01)


def test_a_ribbon_gives_the_largest_central_box_of_an_allowed_ratio():
    assert place(1000, 10, PixelSpec(size=8), RandomCrop(scale=(0.9, 1.0)), 5).box == (493, 0, 13, 10)
    assert place(10, 1000, PixelSpec(size=8), RandomCrop(scale=(0.9, 1.0)), 5).box == (0, 493, 10, 13)


def test_windows_lie_anywhere_in_the_whole_image():
    """640 × 480, scaled to 427 × 320: a window of 300 reaches every edge, each place as often."""
    spec, crop = PixelSpec(size=300), WindowCrop(resize=320)
    at = [place(640, 480, spec, crop, draw) for draw in range(0, 2**23, 2001)]
    assert {(one.box, one.width, one.height) for one in at} == {((0, 0, 640, 480), 426, 320)}
    left, top = (np.array([getattr(one, name) for one in at]) for name in ("left", "top"))
    assert (left.min(), left.max(), top.min(), top.max()) == (0, 126, 0, 20)
    for place_in_range in (left / 127, top / 21):
        assert np.histogram(place_in_range, 4, (0, 1))[0] / len(at) == pytest.approx([0.25] * 4, abs=0.04)


def test_a_window_is_that_part_of_the_resized_image():
    pixel, spec, crop = noise(200, 150, 3), PixelSpec(size=64), WindowCrop(resize=80)
    at = place(200, 150, spec, crop, 77)
    whole = np.asarray(Image.fromarray(pixel).resize((106, 80), Image.Resampling.BICUBIC), int)
    wanted = whole[at.top : at.top + 64, at.left : at.left + 64]
    assert np.abs(to_crop(pixel, spec, crop, 77) - wanted).max() <= 1


def test_a_crop_that_makes_no_sense_is_refused():
    for options in ({"scale": (0, 1)}, {"scale": (0.5, 1.5)}, {"scale": (0.9, 0.1)}, {"ratio": (2.0, 1.0)}):
        with pytest.raises(UsageError):
            RandomCrop(**options)
    with pytest.raises(UsageError):
        to_crop(noise(90, 90, 0), PixelSpec(size=64), WindowCrop(resize=40))
