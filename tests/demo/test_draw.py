"""The drawn dataset: the same on every machine and in every order, and wrong in exactly the way that it says."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

from cleanctl.demo.draw import Drawing, draw_dataset, draw_jpeg, plan_image, wrong_labels
from cleanctl.demo.scene import MAX_SIDE, MIN_SIDE
from cleanctl.demo.shapes import CLASSES, SHAPES, look_alike


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("demo"), Drawing(train=250, test=60), workers=2)


def rows(labels):
    with labels.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_image_depends_on_its_own_seed_alone(drawn, tmp_path):
    """Neither the number of images nor the process that draws them shows in a picture."""
    alone = draw_dataset(tmp_path, Drawing(train=101, test=5), workers=1)
    for name in ("train/00000.jpg", "train/00100.jpg", "test/00004.jpg"):
        assert (alone.images / name).read_bytes() == (drawn.images / name).read_bytes()
    assert (drawn.images / "train/00007.jpg").read_bytes() == draw_jpeg(0, 0, 7)[1]


def test_no_two_images_and_no_two_splits_and_seeds_are_the_same(drawn):
    contents = [path.read_bytes() for path in drawn.images.rglob("*.jpg")]
    assert len(contents) == 310 == len(set(contents))
    assert draw_jpeg(1, 0, 0)[1] not in contents


def test_sides_are_64_to_200_pixels_and_vary_with_the_quality():
    images, qualities = [], set()
    for number in range(150):
        scene, data = draw_jpeg(0, 0, number)
        images.append(Image.open(io.BytesIO(data)))
        qualities.add(scene.quality)
    sides = np.array([image.size for image in images])
    assert all(image.format == "JPEG" and image.mode == "RGB" for image in images)
    assert MIN_SIDE == 64 <= sides.min() < 72
    assert 180 < sides.max() <= MAX_SIDE == 200
    aspect = sides[:, 0] / sides[:, 1]
    assert aspect.min() < 0.75
    assert aspect.max() > 1.35
    assert len(qualities) > 25


def test_every_class_is_drawn_about_as_often():
    counts = np.bincount([plan_image(0, 1, number)[0].label for number in range(1200)], minlength=len(CLASSES))
    assert len(CLASSES) >= 10
    assert counts.min() > 60


@pytest.mark.parametrize("count", [5, 600, 4001])
def test_exactly_two_fifths_of_the_labels_are_wrong_and_half_of_those_name_the_look_alike(count):
    truth = np.random.default_rng(3).integers(0, len(CLASSES), size=count)
    label = wrong_labels(truth, seed=0)
    wrong = label != truth
    assert wrong.sum() == int(0.4 * count)
    assert (label == look_alike(truth)).sum() == int(0.4 * count) // 2
    assert label.min() >= 0
    assert label.max() < len(CLASSES)


def test_the_other_wrong_labels_are_uniform_over_the_other_pairs():
    label = wrong_labels(np.zeros(100_000, np.int64), seed=0)
    counts = np.bincount(label, minlength=len(CLASSES))
    assert counts[2:].min() > 0.95 * 20_000 / (len(CLASSES) - 2)
    assert counts[2:].max() < 1.05 * 20_000 / (len(CLASSES) - 2)


def test_look_alikes_come_in_pairs():
    label = np.arange(len(CLASSES))
    assert (look_alike(look_alike(label)) == label).all()
    assert (look_alike(label) != label).all()


def test_the_table_holds_both_splits_and_the_test_split_is_clean(drawn):
    table = rows(drawn.labels)
    assert {row["path"] for row in table} == {
        str(path.relative_to(drawn.images)) for path in drawn.images.rglob("*.jpg")
    }
    assert sum(row["label"] != row["truth"] for row in table if row["split"] == "train") == 100
    assert sum(row["label"] != row["truth"] for row in table if row["split"] == "test") == 0
    assert drawn.classes.read_text().splitlines() == list(CLASSES)


def test_truth_in_the_table_is_what_was_drawn(drawn):
    for row in rows(drawn.labels)[:40]:
        number = int(row["path"][-9:-4])
        assert row["truth"] == CLASSES[plan_image(0, 0, number)[0].label]


def test_file_names_and_their_order_say_nothing_of_the_class(drawn):
    """A class that followed from the number would be a leak: neighbours agree no more than chance has it."""
    names = [row["truth"] for row in rows(drawn.labels) if row["split"] == "train"]
    assert not any(name in row["path"] for row in rows(drawn.labels) for name in CLASSES)
    for step in (1, 2, len(CLASSES)):
        same = np.mean([a == b for a, b in zip(names, names[step:])])
        assert same < 0.2


def test_a_second_call_reuses_the_drawing_and_another_request_draws_anew(tmp_path):
    first = draw_dataset(tmp_path, Drawing(train=20, test=5), workers=1)
    (tmp_path / "images/train/00003.jpg").touch()
    before = (tmp_path / "images/train/00003.jpg").stat().st_mtime_ns
    again = draw_dataset(tmp_path, Drawing(train=20, test=5), workers=1)
    assert (first.reused, again.reused) == (False, True)
    assert (tmp_path / "images/train/00003.jpg").stat().st_mtime_ns == before
    smaller = draw_dataset(tmp_path, Drawing(train=10, test=5), workers=1)
    assert not smaller.reused
    assert len(list((tmp_path / "images/train").iterdir())) == 10


def test_an_interrupted_drawing_is_not_taken_for_a_whole_one(tmp_path):
    draw_dataset(tmp_path, Drawing(train=10, test=5), workers=1)
    (tmp_path / "drawing.json").unlink()
    (tmp_path / "images/train/00003.jpg").unlink()
    again = draw_dataset(tmp_path, Drawing(train=10, test=5), workers=1)
    assert not again.reused
    assert (tmp_path / "images/train/00003.jpg").exists()


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_fits_the_unit_disc_and_shows(name):
    for seed in range(20):
        strokes = SHAPES[name](np.random.default_rng(seed))
        reach = max(np.linalg.norm(points, axis=1).max() for points, paints in strokes if paints)
        assert 0.7 < reach < 1.05
