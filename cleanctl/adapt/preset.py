"""A preset: every number of a detector's training, read from TOML into one frozen record (docs/method.md C.3).

Presets of the package lie in `presets/` beside this file, a file per setting of the paper; `--preset` takes such a
name. Options given on the command line replace single fields. `[paper-code]` in a file holds what only the released
code does; `--compat paper-code` puts it in force, and decisions of the last epoch for a final pass.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import Field

from cleanctl.adapt.losses import Phase
from cleanctl.adapt.views import View
from cleanctl.config import AdaptConfig
from cleanctl.errors import UsageError
from cleanctl.meant import meant
from cleanctl.user_files import checked

DEFAULT = "default"
COMPAT = "paper-code"
Epochs = Annotated[int, Field(ge=0, le=100_000)]
# Where no preset is named, on cached embeddings: a step costs what the text tower does, whatever the batch, so large
# batches take minutes where those of 64 take hours. The paper has no class vectors; theirs hold beside presets too.
OF_CACHED: dict[str, dict[str, Any]] = {"prompts": {}, "class-vectors": {"learning_rate": 0.003}}
LARGE_BATCH, LEAST_BATCH, LEAST_STEPS = 512, 8, 64


@dataclass(frozen=True, kw_only=True)
class Preset:
    """schedule: "cosine" falls from learning_rate to zero, a step an epoch; "constant" is what the scripts of real data
    do. Of all epochs the first `warmup_epochs` run L_sim over every sample by `warmup_loss`; pseudo-labels begin after
    `pseudo_from` epochs (None: with the end of warm-up). agree: clean also demands argmax_k p_clean(k) = y. decisions:
    by a pass after training, or as they fell during the last epoch, with weights that moved. view: of images, where an
    image tower is tuned (views.py).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    summary: str
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.03
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Epochs = 1
    warmup_loss: Literal["ce", "sce"] = "ce"
    pseudo_from: Epochs | None = None
    agree: bool = False
    positive_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    context_tokens: Annotated[int, Field(ge=1, le=1000)] = 16
    decisions: Literal["final-pass", "last-epoch"] = "final-pass"
    view: View | None = None

    def phase(self, epoch: int) -> Phase:
        """epoch counts from 0."""
        pseudo_from = self.warmup_epochs if self.pseudo_from is None else self.pseudo_from
        return Phase(
            warmup=epoch < self.warmup_epochs,
            pseudo=epoch >= pseudo_from,
            warmup_loss=self.warmup_loss,
            agree=self.agree,
            positive_weight=self.positive_weight,
        )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def names() -> list[str]:
    return sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def batch_of_cached(rows: int) -> int:
    """512 where an epoch then still has 64 steps, else the power of two that leaves it so many, at least 8: with a
    handful of steps the vectors do not leave their start (3,000 rows: F1 27 % in 60 steps of 512, 95 % in 940 of 32).
    """
    wanted = 1 << max(rows // LEAST_STEPS, 1).bit_length() - 1
    return min(max(wanted, LEAST_BATCH), LARGE_BATCH)


def choose_preset(config: AdaptConfig, *, rows: int = 1 << 20) -> Preset:
    """The preset that `config` names with everything that it overrides. rows: how many are learnt from, which decides
    the batch size of cached embeddings. UsageError for an unknown name.
    """
    name = config.preset or DEFAULT
    if name not in names():
        raise UsageError(
            f"--preset is {name!r}, which is no preset{meant(name, names())}", do=f"Give one of: {', '.join(names())}."
        )
    values: dict[str, Any] = tomllib.loads((_folder() / f"{name}.toml").read_text("utf-8"))
    published = values.pop(COMPAT, {})
    cached = OF_CACHED.get(str(config.tune))
    if cached is not None and (config.preset is None or config.tune == "class-vectors"):
        values |= {"batch_size": batch_of_cached(rows), **cached}
    if config.compat is not None:
        values |= published | {"decisions": "last-epoch"}
    for option in ("epochs", "batch_size", "learning_rate", "warmup_epochs", "positive_weight", "context_tokens"):
        if (given := getattr(config, option)) is not None:
            values[option] = given
    preset = checked(f"The preset {name}", {"name": name, **values}, Preset)
    if preset.warmup_epochs >= preset.epochs > 1:
        raise UsageError(
            f"--warmup-epochs is {preset.warmup_epochs} of --epochs {preset.epochs}.",
            so="No epoch would train on the samples judged clean.",
            do=f"Give fewer than {preset.epochs} epochs of warm-up.",
        )
    return preset


def preset_from(values: dict[str, Any]) -> Preset:
    """A preset from plain values, as a run's config.json holds them."""
    return checked(f"The preset {values.get('name', '')}", values, Preset)


def preset_values(preset: Preset) -> dict[str, Any]:
    return asdict(preset)


def _folder() -> Any:
    return files("cleanctl.adapt") / "presets"
