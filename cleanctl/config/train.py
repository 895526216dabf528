"""Options of `cleanctl train`; None means: as the recipe says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.review import ignore_review_option
from cleanctl.config.shared import (
    Device,
    Loader,
    Precision,
    device_option,
    loader_option,
    precision_option,
    seed_option,
    split_option,
    workers_option,
)
from cleanctl.errors import UsageError
from cleanctl.registry import METHODS

NETWORK_NAME = re.compile(r"clip(?::\S.*)?|(?:hf[-_]hub:)?\w[\w-]*(?:/\w[\w-]*)?(?:\.\w+)?")


def _recipe_option(help: str, **declared: Any) -> Any:
    return option(None, help, "Recipe", **declared)


def _require_network_name(option: str, name: str) -> None:
    if not NETWORK_NAME.fullmatch(name):
        raise UsageError(f"{option} is {name!r}.", do="Give a network's name, e.g. resnet50 or resnet50.a1_in1k.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    selection: str | None = option(
        None, "The selection to train on, or all (default: the newest).", check=require_plain_name
    )  # all: every readable sample
    method: str = option("mixfix", "mixfix absorbs and relabels the rest every epoch.", known=METHODS)
    recipe: str | None = _recipe_option(
        "A recipe by name or a TOML file (default: the selection's preset, else by device and image size)."
    )
    split: str = split_option("The split to train on.")
    name: str | None = option(None, "The run's name (default: method and selection).", "Run", check=require_plain_name)
    network: str | None = _recipe_option(
        "A network of cleanctl or timm, or clip: the store's own tower (default: the recipe's).",
        check=_require_network_name,
    )
    image_size: int | None = _recipe_option("Pixels of a side (default: the recipe's).", low=8, high=4096)
    epochs: int | None = _recipe_option("Passes over the images (default: the recipe's).", low=1, high=100_000)
    batch_size: int | None = _recipe_option(
        "Samples a step (default: the recipe's).", low=2, high=65_536
    )  # one image has no variance
    steps_per_epoch: int | None = _recipe_option(
        "Steps of an epoch (default: the recipe's, else the split's size over the batch size).", low=1, high=10**9
    )
    learning_rate: float | None = _recipe_option(
        "Learning rate (default: the recipe's).", flag="--lr", above=0, high=1000
    )
    theta_absorb: float | None = _recipe_option(
        "Confidence that absorbs a sample (default: the recipe's).", low=0, high=1
    )
    theta_relabel: float | None = _recipe_option(
        "Confidence that relabels a sample (default: the recipe's).", low=0, high=1
    )
    absorb: bool | None = _recipe_option("Take in samples that were left out.")  # off: a threshold of 1 is not
    relabel: bool | None = _recipe_option("Relabel where the network is sure.")
    relabel_scope: Literal["all", "unselected"] | None = _recipe_option(
        "Whose labels may change (default: the recipe's)."
    )
    mixup_beta: float | None = _recipe_option("Beta of mixup, 0 for none.", low=0, high=1_000_000)
    settings: tuple[str, ...] = option(
        (),
        "A setting of the method's own; may repeat (docs/training.md).",
        "Recipe",
        flag="--set",
        metavar="NAME=VALUE",
    )
    network_weights: str | None = _recipe_option(
        "Pretrained weights of the network (default: the recipe's).", metavar="FILE|download|none"
    )
    cache: Literal["auto", "gpu", "ram", "none"] = option("auto", "Where images stay between epochs.", "Machine")
    tensorboard: bool = option(False, "Write the metrics for TensorBoard too (extra tensorboard).", "Run")
    record_dynamics: bool = option(
        False, "Store how each label fared over the epochs, as the score dynamics; one more look at all images.", "Run"
    )
    resume: bool = option(True, "Go on with a run that was stopped.", "Run")
    loader: Loader = loader_option()
    device: Device = device_option()
    precision: Precision = precision_option()
    workers: int | None = workers_option()
    ignore_review: bool = ignore_review_option()
    seed: int = seed_option(3047, panel="Run")
