"""What a batch goes through before the network sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from cleanctl.train import augment
from cleanctl.train.policies import MAGNITUDES, OPERATIONS, table
from cleanctl.train.recipe import load_recipe


def batch(count: int = 64, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


@pytest.mark.parametrize(
    ("ours", "theirs", "different"),
    [
        ("autoaugment-cifar10", AutoAugmentPolicy.CIFAR10, {(16, 1, 1)}),
        ("autoaugment-imagenet", AutoAugmentPolicy.IMAGENET, set()),
    ],
)
def test_the_policies_are_autoaugments(ours: str, theirs: AutoAugmentPolicy, different: set) -> None:
    """torchvision has the tables of the paper; the port differs in CIFAR row 17 alone (docs/method.md B.5)."""
    found = set()
    for row, pair in enumerate(AutoAugment(theirs).policies):
        for slot, (name, probability, level) in enumerate(pair):
            number, our_probability, our_level = table(ours)[row, slot]
            if OPERATIONS[int(number)].replace("_", "") != name.lower():
                found.add((row, slot, 0))
            if our_probability != pytest.approx(probability):
                found.add((row, slot, 1))
            if level is not None and our_level != level:
                found.add((row, slot, 2))
    assert found == different


def test_magnitudes_are_the_ports() -> None:
    assert MAGNITUDES["rotate"][9] == 30
    assert MAGNITUDES["shear_x"][9] == pytest.approx(0.3)
    assert MAGNITUDES["translate_y"][9] == pytest.approx(150 / 331)
    assert MAGNITUDES["posterize"].tolist() == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert MAGNITUDES["solarize"][[0, 9]].tolist() == [256, 0]


def test_one_generator_state_gives_one_augmentation() -> None:
    recipe = load_recipe("cifar10")
    first = augment.strong(batch(), recipe, np.random.default_rng(7))
    again = augment.strong(batch(), recipe, np.random.default_rng(7))
    other = augment.strong(batch(), recipe, np.random.default_rng(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_crop_cuts_windows_of_the_padded_image() -> None:
    image = batch(20, 8)
    cut = augment.draw_crop(20, 8, 8, 2, np.random.default_rng(1)).to(image)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    offsets = set()
    for one, whole in zip(cut, padded):
        windows = [(y, x) for y in range(5) for x in range(5) if torch.equal(one, whole[:, y : y + 8, x : x + 8])]
        assert len(windows) == 1
        offsets |= set(windows)
    assert len(offsets) > 8


def test_flip_mirrors_about_half_of_the_images() -> None:
    image = batch(200, 8)
    flipped = augment.draw_flip(200, np.random.default_rng(1)).to(image)
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, image)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, flipped, image))
    assert 70 < sum(mirrored) < 130


def test_random_resized_crop_of_the_whole_image_is_the_image() -> None:
    image = batch(4, 16)
    whole = augment.draw_resized_crop(4, 16, np.random.default_rng(0), scale=(1.0, 1.0), ratio=(1.0, 1.0)).to(image)
    assert torch.equal(whole, image)
    small = augment.draw_resized_crop(4, 12, np.random.default_rng(0)).to(image)
    assert small.shape == (4, 3, 12, 12)


def test_normalisation_is_the_recipes_and_memory_is_channels_last() -> None:
    recipe = load_recipe("cifar10")
    out = augment.plain(batch(), recipe)
    mean, std = torch.tensor(recipe.mean).view(1, 3, 1, 1), torch.tensor(recipe.std).view(1, 3, 1, 1)
    assert torch.allclose(out, (batch().float() / 255 - mean) / std, atol=1e-6)
    assert out.is_contiguous(memory_format=torch.channels_last)
    bare = augment.plain(batch(), load_recipe("cifar10-idn"))
    assert bare.min() >= 0
    assert bare.max() <= 1


def test_the_plain_view_is_the_centre_of_a_larger_load_size() -> None:
    recipe = replace(load_recipe("cifar10-idn"), load_size=40)
    image = batch(2, 40)
    assert torch.equal(augment.plain(image, recipe), image[:, :, 4:36, 4:36] * torch.tensor(1 / 255))


@pytest.mark.parametrize("policy", ["autoaugment-cifar10", "autoaugment-imagenet", "randaugment"])
def test_policies_change_many_images_and_leave_some(policy: str) -> None:
    image = batch(400, 24)
    changed = [
        not torch.equal(a, b)
        for a, b in zip(augment.draw_policy(400, policy, np.random.default_rng(0)).to(image), image)
    ]
    assert 0.5 < np.mean(changed) < 1


@pytest.mark.parametrize("policy", ["autoaugment-cifar10", "randaugment"])
def test_sorting_a_batch_by_operation_changes_each_image_as_it_would_alone(policy: str, monkeypatch) -> None:
    """Each operation marks the images that it is given with its number and their strength, after what is there."""
    marks = []

    def mark(number: int, image: torch.Tensor, strength: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        marks.extend((int(row[0]), number, round(float(one), 4)) for row, one in zip(image, strength))
        return image

    monkeypatch.setattr(augment, "_changed", mark)
    count, rng = 200, np.random.default_rng(3)
    drawn = augment.draw_policy(count, policy, rng)
    image = torch.arange(count).view(count, 1)
    assert torch.equal(drawn.to(image), image), "every image comes back to its place"
    by_image = [[entry[1:] for entry in marks if entry[0] == row] for row in range(count)]
    rng = np.random.default_rng(3)
    make = augment._randaugment if policy == "randaugment" else lambda n, r: augment._autoaugment(policy, n, r)
    operation, probability, level = make(count, rng)
    sign = rng.choice(np.array([-1.0, 1.0]), (count, 2))
    applied = rng.random((count, 2)) < probability
    for row in range(count):
        wanted = []
        for slot in (0, 1):
            number = int(operation[row, slot])
            strength = augment._strength(number, level[row : row + 1, slot], sign[row : row + 1, slot])[0]
            wanted.append((number, round(float(np.float32(strength)), 4)) if applied[row, slot] else (-1, 0.0))
        assert by_image[row] == wanted


def test_a_box_of_a_square_has_torchvisions_mean_area() -> None:
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]).to(torch.uint8)
    cut = augment.draw_resized_crop(4000, 32, np.random.default_rng(0)).to(image.expand(4000, 3, 64, 64)).float() / 255
    width, height = (cut[:, c].amax((1, 2)) - cut[:, c].amin((1, 2)) for c in (0, 1))
    # From the outermost pixels' centres to the box: of 32 in the crop, of 64 in the image.
    assert (width * height).mean().item() * (32 / 31 * 63 / 64) ** 2 == pytest.approx(0.477, abs=0.015)
