"""Recipes hold docs/method.md B.4's table and refuse what they do not know."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.records import PixelSpec
from cleanctl.train.methods.method import optimizer_of
from cleanctl.train.recipe import (
    choose_recipe,
    from_values,
    learning_rate,
    load_recipe,
    names,
    parse_recipe,
    with_overrides,
)


def test_every_recipe_of_the_package_loads() -> None:
    for name in names():
        assert load_recipe(name).summary
        assert load_recipe(name).source


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
    "optimizer": ["adam", 1],
    "betas": [0.9, [0.9], [0.9, 1.0], [-0.1, 0.9]],
    "schedule": ["step", None],
    "inferred": [{"learnig_rate": "a typo"}, {"epochs": 3}, "all"],
    "selection": [{"theta_gmm": 2}, {"theta": 0.5}, "cifar10"],
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
        assert "allowed: " in said or "missing" in said or "mean.3" in said or "is unknown" in said, (value, said)
        assert said.startswith("The recipe cifar10: "), said


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="momentum is 0"):
        from_values({**asdict(load_recipe("cifar10")), "nesterov": True, "momentum": 0})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": "cosine"}, "milestones is .200, 250.; allowed: none, because schedule is cosine"),
        ({"warmup": 2.0}, "warmup is 2; allowed: 0, because schedule is multistep"),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov is true; allowed: false, unless optimizer is sgd"),
    ],
)
def test_a_key_that_a_mode_ignores_is_refused(fields: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_values({**asdict(load_recipe("cifar10")), **fields})


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a = " + b"[" * 5000, b""])
def test_a_file_that_is_no_recipe_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.toml").write_bytes(content)
    with pytest.raises(InputError):
        load_recipe(str(tmp_path / "odd.toml"))
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(str(tmp_path))


def test_published_recipes_resize_as_the_released_code() -> None:
    bilinear = {name for name in names() if load_recipe(name).interpolation == "bilinear"}
    bilinear = {name for name in bilinear if not name.startswith("deft-")}  # all of those: test_finetune.py
    assert bilinear == {"animal10n", "clothing1m", "clothing1m-ssr", "red-mini-imagenet", "webvision"}
    assert load_recipe("webvision").pixel_spec(320) == PixelSpec(size=320, interpolation="bilinear")


def test_a_typo_in_a_mode_is_an_error_and_never_another_mode() -> None:
    with pytest.raises(InputError, match="relabel_scope is 'al'; allowed: one of all, unselected"):
        parse_recipe('relabel_scope = "al"\n' + _text("cifar10"), "typo")
    with pytest.raises(UsageError, match="cifar10"):
        load_recipe("cifar11")


def _text(name: str) -> str:
    from importlib.resources import files

    return (files("cleanctl.train") / "recipes" / f"{name}.toml").read_text("utf-8")


def test_the_published_rate_falls_at_its_milestones() -> None:
    recipe = load_recipe("cifar10")
    rates = [learning_rate(recipe, epoch, 0, 390) for epoch in (0, 199, 200, 249, 250, 299)]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_the_cosine_is_stepped_once_an_epoch_as_torchs_scheduler() -> None:
    recipe = replace(load_recipe("cifar10"), schedule="cosine", milestones=(), epochs=10, learning_rate=0.03)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.03)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        for step in (0, 99):
            assert learning_rate(recipe, epoch, step, 100) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("fields", "kind", "held"),
    [
        ({}, torch.optim.SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}),
        ({"nesterov": True, "momentum": 0.8}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ({"optimizer": "adamw", "betas": (0.8, 0.99)}, torch.optim.AdamW, {"betas": (0.8, 0.99), "weight_decay": 5e-4}),
    ],
)
def test_the_optimiser_is_the_recipes(fields: dict, kind: type, held: dict) -> None:
    made = optimizer_of(replace(load_recipe("cifar10"), **fields), torch.nn.Linear(2, 2))
    assert type(made) is kind
    assert {key: made.param_groups[0][key] for key in held} == held


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


def test_steps_of_an_epoch_are_an_option() -> None:
    assert load_recipe("clothing1m").steps_per_epoch == 1000
    assert with_overrides(load_recipe("clothing1m"), TrainConfig(steps_per_epoch=7)).steps_per_epoch == 7


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
