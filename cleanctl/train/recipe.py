"""A recipe: every number of a training run, read from TOML into one frozen record.

Recipes of the package lie in `recipes/` beside this file, a file per setting of docs/method.md B.4; `--recipe` takes
such a name or a path. Options given on the command line replace single fields (`with_overrides`), and what was in
force is written to the run's config.json.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from cleanctl.config import TrainConfig
from cleanctl.config.recipe_files import read_tables, recipe_names, recipe_text
from cleanctl.errors import InputError, UsageError
from cleanctl.images.geometry import Crop, RandomCrop, WindowCrop
from cleanctl.records import PixelSpec
from cleanctl.registry import METHODS
from cleanctl.train.settings import check_table, has_settings, in_force
from cleanctl.user_files import checked

Side = Annotated[int, Field(ge=8, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=0, le=100_000)]
Mean = Annotated[float, Field(ge=-10, le=10)]
Std = Annotated[float, Field(gt=0, le=10)]
Beta = Annotated[float, Field(ge=0, lt=1)]
WHOLE_TABLES = ("selection", "inferred")
METHOD_OPTIONS = ("mixup_beta", "theta_absorb", "theta_relabel", "absorb", "relabel", "relabel_scope")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What `select --preset` takes from a recipe (docs/method.md A.3 and A.5)."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    theta_gmm: Share = 0.5
    theta_consistency: Share = 0.8
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 0.07


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Sizes in pixels, thresholds in [0, 1], `milestones` and `warmup` in epochs, mean and std of values in [0, 1].

    load_size is what the short side is scaled to (`resize` "squash": both sides), image_size the square that the
    network sees. `optimizer` is "sgd" (with `momentum`) or "adamw" (with `betas`). `schedule` is "multistep" (lr times
    gamma at each milestone; constant without any), "cosine" (per epoch, towards zero after the last) or "onecycle" (per
    step: up over `warmup` epochs, then straight down to zero). weights: "none", or "imagenet" where the setting starts
    from published weights. steps_per_epoch: 0 for one pass over a set as large as the whole split. sampler: see
    sampler.py. batch_size: at least 2, because one image
    has no variance for batch normalisation. first_update is the number of epochs before MixFix looks for the first time
    (0 and 1: after the first, as published). settings: by method, its own numbers (settings.py).

    source: where the values are published. inferred: key → why, for each value that is not. selection: thresholds that
    belong to the setting; None where it brings none.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    summary: str
    source: str = ""
    inferred: dict[str, str] = field(default_factory=dict)
    selection: Thresholds | None = None
    network: Annotated[str, Field(min_length=1, max_length=200)]
    image_size: Side
    load_size: Side
    resize: Literal["shortest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    weights: Literal["none", "imagenet"] = "none"

    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    steps_per_epoch: Annotated[int, Field(ge=0, le=10**9)] = 0
    learning_rate: Annotated[float, Field(gt=0, le=1000)]
    weight_decay: Share
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Beta = 0.9
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    schedule: Literal["multistep", "cosine", "onecycle"] = "multistep"
    milestones: tuple[Epochs, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[float, Field(ge=0, le=100_000)] = 0.0

    crop: Literal["pad", "random", "random-resized", "center"] = "pad"
    pad: Annotated[int, Field(ge=0, le=4096)] = 0
    flip: bool = True
    policy: Literal["none", "autoaugment-cifar10", "autoaugment-imagenet", "randaugment"] = "none"
    mean: tuple[Mean, Mean, Mean] = (0.0, 0.0, 0.0)
    std: tuple[Std, Std, Std] = (1.0, 1.0, 1.0)

    mixup_beta: Annotated[float, Field(ge=0, le=1e6)]
    theta_absorb: Share
    theta_relabel: Share
    absorb: bool = True
    relabel: bool = True
    relabel_scope: Literal["all", "unselected"] = "all"
    first_update: Epochs = 0
    sampler: Literal["balanced", "balanced-legacy", "balanced-subset", "shuffled"] = "balanced"
    settings: dict[str, dict[str, bool | int | float | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, milestones = f"schedule is {self.schedule}", list(self.milestones)
        unknown = [key for key in self.inferred if key not in Recipe.__dataclass_fields__]
        for wrong, found, do in (
            (self.load_size < self.image_size, f"load_size is {self.load_size}", f"{self.image_size} or more"),
            (self.warmup >= self.epochs, f"warmup is {self.warmup:g}", f"less than the {self.epochs} epochs"),
            (self.nesterov and not self.momentum, "momentum is 0", "more than 0 with nesterov"),
            (self.nesterov and self.optimizer != "sgd", "nesterov is true", "false, unless optimizer is sgd"),
            (self.schedule != "onecycle" and self.warmup > 0, f"warmup is {self.warmup:g}", f"0, because {steps}"),
            (self.schedule != "multistep" and milestones, f"milestones is {milestones}", f"none, because {steps}"),
            (bool(unknown), f"inferred names {', '.join(unknown)}", "keys of the recipe"),
        ):
            if wrong:
                raise InputError(f"The recipe {self.name}: {found}; allowed: {do}.")

    def pixel_spec(self, size: int) -> PixelSpec:
        return PixelSpec(size=size, resize_mode=self.resize, interpolation=self.interpolation)

    def loader_crop(self) -> Crop | None:
        """The box that the loader cuts from the whole image for training; None where it gives squares as they are."""
        if self.resize == "squash" or self.crop in ("pad", "center"):
            return None
        return RandomCrop() if self.crop == "random-resized" else WindowCrop(resize=self.load_size)


def names() -> list[str]:
    return recipe_names()


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe of the package by name, or one of the user's by path. Raises UsageError or InputError."""
    name, text = recipe_text(name_or_file, "--recipe")
    return parse_recipe(text, name)


def parse_recipe(text: str, name: str) -> Recipe:
    """A table of the name of a method with settings holds these, those of WHOLE_TABLES are one value each; other tables
    only group the fields of Recipe."""
    values: dict[str, Any] = {"name": name}
    settings: dict[str, Any] = {}
    for key, value in read_tables(text, name).items():
        if isinstance(value, dict) and has_settings(key):
            check_table(name, key, value)
            settings[key] = value
        else:
            grouped = isinstance(value, dict) and key not in WHOLE_TABLES
            values |= value if grouped else {key: value}
    return from_values(values | ({"settings": settings} if settings else {}))


def from_values(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values (lists for tuples), as a recipe's file or a run's config.json hold them."""
    return checked(f"The recipe {values.get('name', '')}", values, Recipe)


def with_overrides(recipe: Recipe, config: TrainConfig) -> Recipe:
    """The recipe with what the method fixes and every option that the config gives; milestones and sizes that hang on
    them move along. UsageError for an option that the method does not obey."""
    method = METHODS.load(config.method)
    changes: dict[str, Any] = dict(method.fixed)
    own = in_force(config.method, recipe.settings.get(config.method, {}), config.settings)
    changes["settings"] = {config.method: own} if own else {}
    for option in ("network", "epochs", "batch_size", "steps_per_epoch", "learning_rate", *METHOD_OPTIONS):
        if (value := getattr(config, option)) is None:
            continue
        if option in METHOD_OPTIONS and option not in method.options:
            raise UsageError(
                f"--{option.replace('_', '-')} was given with --method {config.method}.",
                so="That method has no such setting.",
                do="Leave one of them out.",
            )
        changes[option] = value
    if config.epochs is not None:
        share = config.epochs / recipe.epochs
        changes["milestones"] = tuple(round(milestone * share) for milestone in recipe.milestones)
        changes["warmup"] = recipe.warmup * share
        changes["first_update"] = round(recipe.first_update * share)
    if config.image_size is not None:
        changes["image_size"] = config.image_size
        changes["load_size"] = max(config.image_size, round(recipe.load_size * config.image_size / recipe.image_size))
    return from_values(asdict(recipe) | changes)


def choose_recipe(*, num_classes: int, device: str, image_side: int | None) -> tuple[str, str]:
    """The default recipe and the reason, from what is known of the set.

    On a processor `cpu-small`. On CUDA by the images' usual short side: up to 48 pixels `cifar10` (`cifar100` from 50
    classes on), up to 96 `animal10n`, larger or unknown `webvision`.
    """
    if device == "cpu":
        return "cpu-small", "on a processor"
    if image_side is None:
        return "webvision", "on a GPU, with images of unknown size"
    if image_side <= 48:
        return ("cifar100" if num_classes >= 50 else "cifar10"), f"{image_side}-px images on a GPU"
    return ("animal10n" if image_side <= 96 else "webvision"), f"{image_side}-px images on a GPU"


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The rate of a step (both counted from 0) of an epoch of `steps` steps."""
    if recipe.schedule == "multistep":
        return recipe.learning_rate * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
    at = epoch + (step + 0.5) / steps
    if at < recipe.warmup:
        return recipe.learning_rate * at / recipe.warmup
    return recipe.learning_rate * (recipe.epochs - at) / (recipe.epochs - recipe.warmup)
