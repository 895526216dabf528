"""Pictures are alike where one is the other, saved, scaled or cut a little, and not where they only look so."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from cleanctl.conflicts.compare import coarse_likeness
from cleanctl.conflicts.pixels import likeness, registration
from cleanctl.demo.draw import draw_jpeg

SIDE, COPIES = 32, 0.65  # what `conflicts` takes for a copy


def drawn(count, seed):
    return [Image.open(io.BytesIO(draw_jpeg(seed, 0, number)[1])).convert("RGB") for number in range(count)]


def thumbnails(images):
    return np.stack([np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for one in images])


def saved(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(image, share, where):
    width, height = (round(share * side) for side in image.size)
    left, top = (round(at * (side - kept)) for at, side, kept in zip(where, image.size, (width, height)))
    return image.crop((left, top, left + width, top + height))


def test_copies_are_alike_and_other_pictures_are_not():
    images, rng = drawn(60, seed=11), np.random.default_rng(0)
    own = thumbnails(images)
    ways = {
        "saved": [saved(one, 30) for one in images],
        "halved": [one.resize([side // 2 for side in one.size]) for one in images],
        "cut by 5 %": [cut(one, 0.95, rng.random(2)) for one in images],
    }
    for way, copies in ways.items():
        alike = likeness(own, thumbnails(copies))
        assert (alike >= COPIES).mean() >= 0.95, way
        assert (coarse_likeness(own, thumbnails(copies)) >= 0.55).all(), way
    np.testing.assert_allclose(likeness(own, own), 1, atol=1e-4)
    assert (likeness(own, np.roll(own, 1, axis=0)) < COPIES).all()


def test_a_cut_is_found_where_it_is():
    image = drawn(1, seed=12)[0].resize((200, 200))
    grey = [np.asarray(one.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)[None] for one in
            (image, image.crop((20, 0, 200, 190)))]  # fmt: skip
    row_scale, column_scale, row_shift, column_shift = registration(*grey)[0].tolist()
    # The right 90 % of the columns: what lies at u in the whole lies at (u - 0.1) / 0.9 in the cut.
    np.testing.assert_allclose([column_scale, column_shift], [1 / 0.9, -0.1 / 0.9], atol=0.02)
    np.testing.assert_allclose([row_scale, row_shift], [1 / 0.95, 0.05 / 0.95], atol=0.02)


def test_flat_pictures_are_alike_by_their_levels():
    flat = np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in (0, 120, 122, 255)])
    assert likeness(flat[1:2], flat[2:3])[0] > COPIES
    assert coarse_likeness(flat[1:2], flat[2:3])[0] > 0.55
    assert max(likeness(flat[:1], flat[1:2])[0], likeness(flat[1:2], flat[3:])[0]) < COPIES


def test_a_picture_in_another_colour_is_another():
    image = thumbnails(drawn(8, seed=13))
    assert (likeness(image, image[..., [2, 1, 0]]) < likeness(image, image)).all()
    tinted = np.clip(image.astype(int) + np.array([60, -30, 0]), 0, 255).astype(np.uint8)
    assert (likeness(image, tinted) < COPIES).all()
