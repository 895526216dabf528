"""Each recipe holds its row of docs/method.md B.4 and B.5, and the committed page shows them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanctl.config import SelectConfig, TrainConfig
from cleanctl.train.recipe import Recipe, load_recipe, names, with_overrides
from cleanctl.train.recipe_page import with_tables

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLOTHES = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
BARE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

# docs/method.md B.4: network, input, batch, epochs, milestones, lr, wd, beta, theta_absorb, theta_relabel, theta_cons
B4 = {
    "cifar10": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 0.8, 0.8, 0.8),
    "cifar100": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 0.8, 0.8, 0.8),
    "cifar100-tables": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 0.7, 0.8, 0.8),
    "cifar10-idn": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 1, 1, 0.8),
    "animal10n": ("vgg19-bn", 64, 128, 300, (200, 250), 0.02, 5e-4, 0.5, 0.7, 0.95, 0.8),
    "red-mini-imagenet": ("preact-resnet18", 32, 64, 300, (200, 250), 0.02, 5e-4, 4, 0.8, 0.95, 0.8),
    "webvision": ("inception_resnet_v2", 299, 64, 150, (80, 120), 0.02, 5e-4, 0.5, 0.7, 1, 1.0),
    "clothing1m": ("resnet50", 224, 32, 80, (40,), 0.002, 1e-3, 0.5, 0.8, 0.8, 0.8),
    "clothing1m-ssr": ("resnet50", 224, 32, 150, (50, 100), 0.002, 1e-3, 0.5, 0.8, 0.8, 0.8),
}
# docs/method.md B.5: load size, resize, crop, pad, policy, (mean, std)
B5 = {
    "cifar10": (32, "shortest", "pad", 4, "autoaugment-cifar10", CIFAR10),
    "cifar100": (32, "shortest", "pad", 4, "autoaugment-cifar10", CIFAR100),
    "cifar100-tables": (32, "shortest", "pad", 4, "autoaugment-cifar10", CIFAR100),
    "cifar10-idn": (32, "shortest", "pad", 4, "autoaugment-cifar10", BARE),
    "animal10n": (64, "squash", "pad", 8, "randaugment", BARE),
    "red-mini-imagenet": (32, "squash", "pad", 4, "autoaugment-cifar10", BARE),
    "webvision": (320, "shortest", "random-resized", 0, "autoaugment-imagenet", IMAGENET),
    "clothing1m": (256, "shortest", "random", 0, "autoaugment-imagenet", CLOTHES),
    "clothing1m-ssr": (256, "shortest", "random", 0, "autoaugment-imagenet", CLOTHES),
}
CLOTHING1M = (
    "epochs milestones batch_size learning_rate weight_decay mixup_beta theta_absorb theta_relabel sampler selection"
)
INFERRED = {
    "webvision": {"learning_rate", "weight_decay"},
    "clothing1m": set(CLOTHING1M.split()),
    "clothing1m-ssr": set(CLOTHING1M.split()),
}


def published() -> set[str]:
    return {name for name in names() if "B.4" in load_recipe(name).source}


def test_each_published_setting_has_a_recipe() -> None:
    assert published() == set(B4) == set(B5)


@pytest.mark.parametrize("name", sorted(B4))
def test_its_optimisation_and_thresholds_are_the_papers(name: str) -> None:
    r = load_recipe(name)
    assert r.selection is not None
    assert B4[name] == (
        r.network, r.image_size, r.batch_size, r.epochs, r.milestones, r.learning_rate, r.weight_decay,
        r.mixup_beta, r.theta_absorb, r.theta_relabel, r.selection.theta_consistency,
    )  # fmt: skip
    assert (r.optimizer, r.momentum, r.nesterov, r.gamma, r.schedule) == ("sgd", 0.9, False, 0.1, "multistep")
    assert (r.selection.theta_gmm, r.selection.temperature) == (0.5, 0.07)
    assert (r.absorb, r.relabel, r.relabel_scope, r.first_update) == (True, True, "all", 0)
    clothes = name.startswith("clothing1m")
    assert (r.steps_per_epoch, r.sampler) == ((1000, "balanced-subset") if clothes else (0, "balanced"))
    assert r.weights == ("imagenet" if clothes else "none")


@pytest.mark.parametrize("name", sorted(B5))
def test_its_augmentation_is_the_papers(name: str) -> None:
    r = load_recipe(name)
    assert B5[name] == (r.load_size, r.resize, r.crop, r.pad, r.policy, (r.mean, r.std))
    assert r.flip


@pytest.mark.parametrize("name", sorted(B4))
def test_what_is_not_published_is_marked_with_the_reason(name: str) -> None:
    inferred = load_recipe(name).inferred
    assert set(inferred) == INFERRED.get(name, set())
    assert all(why.strip() for why in inferred.values())


@pytest.mark.parametrize("name", sorted(B4))
def test_select_takes_the_thresholds_of_the_recipe_and_what_is_given_beside_it_wins(name: str) -> None:
    config, recipe = SelectConfig(preset=name), load_recipe(name)
    assert recipe.selection is not None
    assert (config.theta_gmm, config.theta_consistency, config.temperature) == (0.5, B4[name][-1], 0.07)
    assert config.as_json()["preset"] == name
    given = SelectConfig(preset=name, theta_consistency=0.8, temperature=0.01)
    assert (given.theta_gmm, given.theta_consistency, given.temperature) == (0.5, 0.8, 0.01)
    assert "temperature 0.01 (given; the preset's is 0.07)" in given.told_preset()


def test_method_and_options_come_before_the_recipe() -> None:
    recipe: Recipe = with_overrides(load_recipe("webvision"), TrainConfig(learning_rate=0.01))
    assert recipe.learning_rate == 0.01


def test_the_committed_page_shows_the_files() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert page == with_tables(page), "run: python -m cleanctl.train.recipe_page"
    assert all(f"| `{name}` |" in page for name in names())
