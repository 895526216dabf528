"""A recipe: every number of a training run, read from TOML into one frozen record.

Recipes of the package lie in `recipes/` beside this file, a file per setting of docs/method.md B.4; `--recipe` takes
such a name or a path. Options given on the command line replace single fields (`with_overrides`), and what was in
force is written to the run's config.json.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from cleanctl.config import TrainConfig, at_least, one_of, within
from cleanctl.errors import InputError, UsageError

POLICIES = ("none", "autoaugment-cifar10", "autoaugment-imagenet", "randaugment")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Sizes in pixels, thresholds in [0, 1], `milestones` and `warmup` in epochs, mean and std of values in [0, 1].

    load_size is the square that the loader gives, image_size the one that the network sees. `schedule` is
    "multistep" (lr times gamma at each milestone) or "onecycle" (per step: up over `warmup` epochs, then straight
    down to zero). weights: "none", or "imagenet" where the setting starts from published weights. first_update is the
    number of epochs before MixFix looks for the first time (0 and 1: after the first, as published).
    """

    name: str
    summary: str
    network: str
    image_size: int
    load_size: int
    resize: Literal["shortest", "squash"] = "shortest"
    weights: Literal["none", "imagenet"] = "none"

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    momentum: float = 0.9
    nesterov: bool = False
    schedule: Literal["multistep", "onecycle"] = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0

    crop: Literal["pad", "random", "random-resized", "center"] = "pad"
    pad: int = 0
    flip: bool = True
    policy: str = "none"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    mixup_beta: float
    theta_absorb: float
    theta_relabel: float
    absorb: bool = True
    relabel: bool = True
    relabel_scope: Literal["all", "unselected"] = "all"
    first_update: int = 0
    sampler: Literal["balanced", "balanced-legacy", "shuffled"] = "balanced"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            choices = get_args(hints[field.name])
            if choices and all(isinstance(choice, str) for choice in choices):
                one_of(field.name, getattr(self, field.name), choices)
        one_of("policy", self.policy, POLICIES)
        for option in ("epochs", "batch_size", "image_size"):
            at_least(option, getattr(self, option), 1)
        at_least("load_size", self.load_size, self.image_size)
        at_least("mixup_beta", self.mixup_beta, 0)
        for option in ("theta_absorb", "theta_relabel"):
            within(option, getattr(self, option), 0, 1)


def names() -> list[str]:
    return sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe of the package by name, or one of the user's by path. Raises UsageError or InputError."""
    if name_or_file in names():
        text, name = (_folder() / f"{name_or_file}.toml").read_text("utf-8"), name_or_file
    elif Path(name_or_file).is_file():
        text, name = Path(name_or_file).read_text("utf-8"), Path(name_or_file).stem
    else:
        raise UsageError(
            f"--recipe is {name_or_file!r}, neither a recipe of the package nor a file.",
            do=f"Use a path or one of: {', '.join(names())}.",
        )
    return parse_recipe(text, name)


def parse_recipe(text: str, name: str) -> Recipe:
    """Tables only group the fields; every key is a field of Recipe."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InputError(f"The recipe {name} is not valid TOML: {exc}") from exc
    values: dict[str, Any] = {"name": name}
    for key, value in document.items():
        values |= value if isinstance(value, dict) else {key: value}
    return from_values(values)


def from_values(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values (lists for tuples), as a recipe's file or a run's config.json hold them."""
    name = values.get("name", "")
    known = {field.name for field in fields(Recipe)}
    if unknown := sorted(set(values) - known):
        raise InputError(
            f"The recipe {name} has the unknown keys {', '.join(unknown)}.",
            do=f"A recipe's keys are: {', '.join(sorted(known))}.",
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return Recipe(**values)
    except TypeError as exc:
        raise InputError(f"The recipe {name} is not complete: {exc}") from exc


def _folder() -> Any:
    return files("cleanctl.train") / "recipes"


def with_overrides(recipe: Recipe, config: TrainConfig) -> Recipe:
    """The recipe with every option that the config gives; milestones and sizes that hang on them move along.

    Cross-entropy is the plain baseline: every member as often as the next, no mixup, no MixFix. `--mixup-beta` turns
    mixup back on, which is what the paper's own cross-entropy rows do (docs/method.md F.8).
    """
    changes: dict[str, Any] = {}
    if config.method == "cross-entropy":
        changes |= {"sampler": "shuffled", "mixup_beta": 0.0, "absorb": False, "relabel": False}
    for option in ("network", "epochs", "batch_size", "learning_rate", "mixup_beta", "relabel_scope"):
        if (value := getattr(config, option)) is not None:
            changes[option] = value
    if config.method == "mixfix":
        for option in ("theta_absorb", "theta_relabel", "absorb", "relabel"):
            if (value := getattr(config, option)) is not None:
                changes[option] = value
    if config.epochs is not None:
        share = config.epochs / recipe.epochs
        changes["milestones"] = tuple(round(milestone * share) for milestone in recipe.milestones)
        changes["warmup"] = recipe.warmup * share
        changes["first_update"] = round(recipe.first_update * share)
    if config.image_size is not None:
        changes["image_size"] = config.image_size
        changes["load_size"] = max(config.image_size, round(recipe.load_size * config.image_size / recipe.image_size))
    return replace(recipe, **changes)


def choose_recipe(*, num_images: int, num_classes: int, device: str, image_side: int | None) -> tuple[str, str]:
    """The default recipe and the reason, from what is known of the set.

    On a processor: `demo` up to 20,000 images, else `cpu-small`. On CUDA by the images' usual short side: up to 48
    pixels `cifar10` (`cifar100` from 50 classes on), up to 96 `animal10n`, larger or unknown `webvision`.
    """
    if device == "cpu":
        name = "demo" if num_images <= 20_000 else "cpu-small"
        return name, f"{num_images:,} images on a processor"
    if image_side is None:
        return "webvision", "on a GPU, with images of unknown size"
    if image_side <= 48:
        return ("cifar100" if num_classes >= 50 else "cifar10"), f"{image_side}-px images on a GPU"
    return ("animal10n" if image_side <= 96 else "webvision"), f"{image_side}-px images on a GPU"


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The rate of a step (both counted from 0) of an epoch of `steps` steps."""
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)
    at = epoch + (step + 0.5) / steps
    if at < recipe.warmup:
        return recipe.learning_rate * at / recipe.warmup
    return recipe.learning_rate * (recipe.epochs - at) / (recipe.epochs - recipe.warmup)
