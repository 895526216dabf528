"""Recipes hold docs/method.md B.4's table and refuse what they do not know."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.records import PixelSpec
from cleanctl.train.recipe import (
    choose_recipe,
    from_values,
    learning_rate,
    load_recipe,
    names,
    parse_recipe,
    with_overrides,
)

# docs/method.md B.4: network, input, batch, epochs, milestones, lr, wd, beta, theta_absorb, theta_relabel
TABLE = {
    "cifar10": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 0.8, 0.8),
    "cifar100": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 0.8, 0.8),
    "cifar10-idn": ("preact-resnet18", 32, 128, 300, (200, 250), 0.02, 5e-4, 1, 1, 1),
    "animal10n": ("vgg19-bn", 64, 128, 300, (200, 250), 0.02, 5e-4, 0.5, 0.7, 0.95),
    "red-mini-imagenet": ("preact-resnet18", 32, 64, 300, (200, 250), 0.02, 5e-4, 4, 0.8, 0.95),
    "webvision": ("inception_resnet_v2", 299, 64, 150, (80, 120), 0.02, 5e-4, 0.5, 0.7, 1),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_published_setting_is_the_papers(name: str) -> None:
    r = load_recipe(name)
    assert TABLE[name] == (
        r.network, r.image_size, r.batch_size, r.epochs, r.milestones, r.learning_rate, r.weight_decay,
        r.mixup_beta, r.theta_absorb, r.theta_relabel,
    )  # fmt: skip
    assert (r.momentum, r.nesterov, r.gamma, r.schedule) == (0.9, False, 0.1, "multistep")
    assert r.relabel_scope == "all"


def test_every_recipe_of_the_package_loads() -> None:
    assert {"cpu-small", "clothing1m", *TABLE} == set(names())
    for name in names():
        assert load_recipe(name).summary


def test_a_users_file_is_a_recipe(tmp_path: Path) -> None:
    text = "\n".join(line for line in _text("cifar10").splitlines() if not line.startswith("epochs")).replace(
        "batch_size", "epochs = 4\nbatch_size"
    )
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.name, recipe.epochs) == ("mine", 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[mixfix]", "[mixfix]\nteta = 1"), "the key teta is unknown"),
        (("epochs = 300", ""), "epochs is missing"),
        (("[mixfix]", "[mixfix"), "not valid TOML"),
    ],
)
def test_a_broken_recipe_says_where(change: tuple[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_recipe(_text("cifar10").replace(*change), "broken")


NUMBERS = [1.5, True, "many", -1, float("inf"), float("nan"), 10**12]
WRONG = {
    "epochs": [*NUMBERS, 0],
    "batch_size": [*NUMBERS, 0, 1],
    "steps_per_epoch": NUMBERS,
    "learning_rate": ["fast", -0.1, 0, float("nan"), float("inf"), True],
    "weight_decay": ["some", -1e-4, 2],
    "momentum": ["some", -0.1, 1.0],
    "gamma": [0, 2, "half"],
    "image_size": [*NUMBERS, 1, 3, 16.5],
    "load_size": [*NUMBERS, 33.3, 31],
    "pad": NUMBERS,
    "warmup": ["long", -1, float("inf"), 300],
    "milestones": ["late", 5, [1.5], [-1], ["a"]],
    "mean": ["grey", [0.5], [0.5, 0.5, "0.5"], [0.5] * 4, [float("nan")] * 3],
    "std": ["grey", [0.5], [0, 1, 1], [-1, 1, 1]],
    "network": [5, "", ["a"]],
    "theta_absorb": [1.1, "sure", -0.1],
    "mixup_beta": [-1, "beta", float("inf")],
    "first_update": NUMBERS,
    "flip": [1, "yes"],
    "absorb": [0, "no"],
    "crop": ["middle", 3],
    "resize": ["stretch"],
    "interpolation": ["nearest"],
    "schedule": ["cosine"],
    "policy": ["autoaugment", None],
    "sampler": ["even"],
}


@pytest.mark.parametrize("field", sorted(WRONG))
def test_a_wrong_type_or_range_names_the_field_the_value_and_what_is_allowed(field: str) -> None:
    good = asdict(load_recipe("cifar10"))
    for value in WRONG[field]:
        with pytest.raises(InputError) as raised:
            from_values({**good, field: value})
        said = str(raised.value)
        assert field in said, (value, said)
        assert "allowed: " in said or "missing" in said or "mean.3" in said, (value, said)
        assert said.startswith("The recipe cifar10: "), said


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="momentum is 0"):
        from_values({**asdict(load_recipe("cifar10")), "nesterov": True, "momentum": 0})


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a = " + b"[" * 5000, b""])
def test_a_file_that_is_no_recipe_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.toml").write_bytes(content)
    with pytest.raises(InputError):
        load_recipe(str(tmp_path / "odd.toml"))
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(str(tmp_path))


def test_published_recipes_resize_as_the_released_code() -> None:
    bilinear = {name for name in names() if load_recipe(name).interpolation == "bilinear"}
    assert bilinear == {"animal10n", "clothing1m", "red-mini-imagenet", "webvision"}
    assert load_recipe("webvision").pixel_spec(320) == PixelSpec(size=320, interpolation="bilinear")


def test_a_typo_in_a_mode_is_an_error_and_never_another_mode() -> None:
    with pytest.raises(InputError, match="relabel_scope is 'al'; allowed: one of all, unselected"):
        parse_recipe(_text("cifar10") + '\nrelabel_scope = "al"\n', "typo")
    with pytest.raises(UsageError, match="cifar10"):
        load_recipe("cifar11")


def _text(name: str) -> str:
    from importlib.resources import files

    return (files("cleanctl.train") / "recipes" / f"{name}.toml").read_text("utf-8")


def test_the_published_rate_falls_at_its_milestones() -> None:
    recipe = load_recipe("cifar10")
    rates = [learning_rate(recipe, epoch, 0, 390) for epoch in (0, 199, 200, 249, 250, 299)]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_onecycle_rises_to_the_peak_and_falls_to_zero() -> None:
    recipe = load_recipe("cpu-small")
    rates = [learning_rate(recipe, e, s, 10) for e in range(recipe.epochs) for s in range(10)]
    peak = max(range(len(rates)), key=rates.__getitem__)
    assert rates[peak] == pytest.approx(recipe.learning_rate, rel=0.06)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.02 * recipe.learning_rate


def test_fewer_epochs_move_the_milestones_along() -> None:
    recipe = with_overrides(load_recipe("cifar10"), TrainConfig(epochs=30))
    assert recipe.milestones == (20, 25)


def test_another_image_size_moves_the_load_size_along() -> None:
    recipe = with_overrides(load_recipe("webvision"), TrainConfig(image_size=160))
    assert (recipe.image_size, recipe.load_size) == (160, 171)


def test_cross_entropy_is_plain_unless_mixup_is_asked_for() -> None:
    plain = with_overrides(load_recipe("cifar10"), TrainConfig(method="cross-entropy"))
    assert (plain.sampler, plain.mixup_beta, plain.absorb, plain.relabel) == ("shuffled", 0, False, False)
    mixed = with_overrides(load_recipe("cifar10"), TrainConfig(method="cross-entropy", mixup_beta=1.0))
    assert mixed.mixup_beta == 1.0
    assert mixed.policy == plain.policy == "autoaugment-cifar10"


@pytest.mark.parametrize(
    ("device", "side", "classes", "chosen"),
    [
        ("cpu", 500, 12, "cpu-small"),
        ("cpu", 32, 10, "cpu-small"),
        ("cuda", 32, 10, "cifar10"),
        ("cuda", 32, 100, "cifar100"),
        ("cuda", 64, 10, "animal10n"),
        ("cuda", 500, 50, "webvision"),
        ("cuda", None, 50, "webvision"),
    ],
)
def test_the_default_recipe_follows_device_and_size(device: str, side: int | None, classes: int, chosen: str) -> None:
    name, reason = choose_recipe(num_classes=classes, device=device, image_side=side)
    assert name == chosen
    assert reason
