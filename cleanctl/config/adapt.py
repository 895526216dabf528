"""Options of `cleanctl adapt`; None means: as the preset says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.shared import (
    Device,
    Engine,
    Loader,
    Precision,
    device_option,
    engine_option,
    loader_option,
    precision_option,
    ray_address_option,
    ray_cores_option,
    refuse_without_ray,
    seed_option,
    split_option,
    workers_option,
)
from cleanctl.config.tune import TuneSettings, parse_tune, spelled
from cleanctl.errors import UsageError

ON_EMBEDDINGS = ("prompts", "class-vectors")  # what is learnt without reading an image


def _require_tune(option: str, name: str) -> None:
    if name not in ON_EMBEDDINGS:
        parse_tune(name, also=ON_EMBEDDINGS)


def _preset_option(help: str, **declared: Any) -> Any:
    return option(None, f"{help} (default: the preset's).", "Training", **declared)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Config):
    tune: str | None = option(  # None until it is known whether --apply was given
        None,
        "What is learnt: prompts (two contexts before the class names), class-vectors (two vectors a class), or "
        f"contexts beside a part of the image tower: {', '.join(spelled())} (default: prompts).",
        metavar="NAME",
        check=_require_tune,
    )
    preset: str | None = option(
        None,
        "The published settings of a dataset: cifar100, tiny, cub, cars, cifar100n, webvision, clothing1m.",
        metavar="NAME",
    )
    split: str = split_option("The split to learn from, or to score.")
    apply: str | None = option(
        None, "Learn nothing: score the split with a detector learnt before.", metavar="NAME|FOLDER"
    )
    name: str | None = option(None, "The run's name (default: what is tuned and the preset).", check=require_plain_name)
    epochs: int | None = _preset_option("Passes over the split", low=1, high=100_000)
    batch_size: int | None = _preset_option("Samples a step", low=1, high=65_536)
    learning_rate: float | None = _preset_option(
        "Of SGD's first epoch; 0.01 for heavy noise", flag="--lr", above=0, high=1000
    )
    warmup_epochs: int | None = _preset_option("Epochs that learn from every label", low=0, high=100_000)
    positive_weight: float | None = _preset_option(
        "Weight of the term that calls labels clean; below 1 for heavy noise", low=0, high=1000
    )
    context_tokens: int | None = _preset_option("Vectors before a class name", low=1, high=1000)
    compat: Literal["paper-code"] | None = option(
        None,
        "As the published code: decisions of the last epoch, starts and presets' own deviations.",
        "Training",
    )
    seed: int = seed_option(0, panel="Training")
    model: str | None = option(None, "Where the store's model lies now (default: as the store says).", "Model")
    pretrained: str | None = option(None, "Where its weights lie now.", "Model", metavar="TAG|FILE")
    resume: bool = option(True, "Go on with a run that was stopped.", "Run")
    device: Device = device_option()
    loader: Loader = loader_option()
    workers: int | None = workers_option()
    cache: Literal["auto", "gpu", "ram", "none"] = option("auto", "Where images stay between epochs.", "Machine")
    precision: Precision = precision_option()
    recompute: bool = option(
        False, "Compute activations again in the backward pass: less memory, a third slower.", "Machine"
    )
    engine: Engine = engine_option("With --apply, ray: the actors of a Ray cluster.")
    ray_address: str | None = ray_address_option()
    ray_cores: int | None = ray_cores_option()

    def refuse_contradictions(self) -> None:
        of_ray = {"--ray-address": self.ray_address is not None, "--ray-cores": self.ray_cores is not None}
        refuse_without_ray(self.engine, of_ray)
        if self.engine != "local" and self.apply is None:
            raise UsageError(
                f"--engine {self.engine} was given without --apply.",
                so="A detector is learnt by one process, or by those of torchrun.",
                do="Add --apply NAME, or leave it out.",
            )
        if self.apply is not None:
            self._refuse_beside_apply()
            return
        if self.tune is None:
            object.__setattr__(self, "tune", "prompts")
        if self.tune in ON_EMBEDDINGS:
            self._refuse_of_images()
        if self.tune == "class-vectors" and self.context_tokens is not None:
            raise UsageError(
                "--context-tokens was given with --tune class-vectors.",
                so="Vectors of classes have no context.",
                do="Leave one of them out.",
            )
        if self.tune == "class-vectors" and (self.model or self.pretrained):
            raise UsageError(
                f"--{'model' if self.model else 'pretrained'} was given with --tune class-vectors.",
                so="It reads embeddings alone and needs no model.",
                do="Leave one of them out.",
            )

    def _refuse_of_images(self) -> None:
        given = {
            "--loader": self.loader != "auto", "--workers": self.workers is not None, "--cache": self.cache != "auto",
            "--precision": self.precision != "auto", "--recompute": self.recompute,
        }  # fmt: skip
        if wrong := [name for name, was_given in given.items() if was_given]:
            raise UsageError(
                f"{' and '.join(wrong)} {'were' if len(wrong) > 1 else 'was'} given with --tune {self.tune}.",
                so="It learns from the store's embeddings and reads no image.",
                do="Leave one of them out.",
            )

    def _refuse_beside_apply(self) -> None:
        given = {
            "--tune": self.tune, "--preset": self.preset, "--name": self.name, "--epochs": self.epochs,
            "--batch-size": self.batch_size, "--lr": self.learning_rate, "--warmup-epochs": self.warmup_epochs,
            "--positive-weight": self.positive_weight, "--context-tokens": self.context_tokens,
            "--compat": self.compat, "--no-resume": None if self.resume else True,
        }  # fmt: skip
        if wrong := [name for name, value in given.items() if value is not None]:
            raise UsageError(
                f"{' and '.join(wrong)} {'were' if len(wrong) > 1 else 'was'} given with --apply.",
                so="A detector that is learnt already is applied as it is.",
                do="Leave one of them out.",
            )

    @property
    def run_name(self) -> str:
        """`prompts`, `class-vectors-cifar100n`: what is tuned and with which preset."""
        tuned = self.tune.replace(":", "-") if self.tune else None
        return self.name or "-".join(part for part in (tuned, self.preset) if part)

    @property
    def tower(self) -> TuneSettings | None:
        """How the image tower is tuned; None where it stays as it is."""
        if self.tune is None or self.tune in ON_EMBEDDINGS:
            return None
        return parse_tune(self.tune, published=self.compat is not None)


def is_folder(run: str) -> bool:
    """Whether `--apply` names a folder rather than a run beside the store."""
    return "/" in run or Path(run).is_dir()
