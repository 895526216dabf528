"""Options of `cleanctl select`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.recipe_files import preset_values, recipe_names
from cleanctl.config.review import ignore_review_option
from cleanctl.config.shared import (
    Device,
    Engine,
    device_option,
    engine_option,
    ray_address_option,
    ray_cores_option,
    refuse_without_ray,
    seed_option,
    split_option,
)
from cleanctl.errors import InputError, UsageError
from cleanctl.strategy import JOINT_RULE, Leaf, Node, parse, rules_of

KNN_RECALL = 0.9  # that an approximate search reaches unless another is asked for
OF_PRESETS = ("theta_gmm", "theta_consistency", "temperature")


def _temperature(text: str) -> float | str:
    """`model`, `paper`, or a number above 0; UsageError otherwise."""
    if text in ("model", "paper"):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(f"--temperature is {text}.", do="Give a number above 0, model or paper.")
    return number


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Config):
    strategy: str = option(
        "intersection", "intersection, union, vote:K, joint, or rules joined by & | ~ and brackets.", metavar="EXPR"
    )
    name: str | None = option(None, "The selection's name (default: the strategy).", check=require_plain_name)
    split: str = split_option("The split to select from.")
    preset: str | None = option(
        None, "Thresholds of a published setting: a recipe by name or a TOML file.", "Thresholds", metavar="RECIPE"
    )
    theta_gmm: float = option(
        None, "Least posterior of the clean component (loss rules).", "Thresholds", low=0, high=1, usual=0.5
    )
    theta_consistency: float = option(
        None,
        "Least ratio of the label's probability to the highest (consistency rules).",
        "Thresholds",
        low=0,
        high=1,
        usual=0.8,
    )
    theta_posterior: float = option(
        0.5, "Least probability that the given label is right (joint.posterior).", "Thresholds", low=0, high=1
    )
    keep_precision: float | None = option(
        None,
        "Keep as many labels as are expected to be right this often (strategy joint).",
        "Thresholds",
        metavar="SHARE",
        low=0,
        high=1,
    )
    budget: int | None = option(
        None, "List the N labels that a person should look at first (by joint).", "Thresholds", metavar="N", low=1
    )
    verdicts: Path | None = option(
        None, "CSV or Parquet of key and verdict (right, wrong): recalibrates joint.", "Thresholds", metavar="FILE"
    )
    theta_similarity: float = option(
        0.25, "Least cosine between image and label (zeroshot.similarity).", "Thresholds", low=-1, high=1
    )
    temperature: float | Literal["model", "paper"] | None = option(
        None,
        "Of zero-shot probabilities: a number, model (1 / the model's logit scale) or paper (0.07, the default).",
        "Scores",
        metavar="NUMBER|model|paper",
        above=0,
        parse=_temperature,
    )
    prompt_pooling: Literal["sum", "mean"] = option("sum", "How a class's prompts are pooled.", "Scores")
    crossfit: int = option(
        0, "Folds for out-of-sample logistic scores; 0 as in the paper.", "Scores", metavar="K", low=0, high=1000
    )
    logistic_solver: Literal["auto", "lbfgs", "cuml"] = option(
        "auto", "Who fits logistic; both reach the same optimum. auto: lbfgs; cuml needs CUDA.", "Machine"
    )
    neighbors: int = option(
        200, "Neighbours of the knn scorer (at most half of the others).", "Scores", low=1, high=65_536
    )
    knn_index: Literal["exact", "ivf"] = option(
        "exact", "How knn searches; ivf is for millions of images, and its recall is measured.", "Scores"
    )
    knn_recall: float | None = option(
        None,
        f"Share of the true neighbours that ivf finds: as many cells are visited as it takes (default: {KNN_RECALL}).",
        "Scores",
        above=0,
        high=1,
    )
    knn_probes: int | None = option(
        None, "Cells that ivf visits for each image, in place of --knn-recall.", "Scores", low=1, high=65_536
    )
    knn_backend: Literal["auto", "faiss", "blocked"] = option(
        "auto",
        "Who searches. auto: FAISS on a CPU if installed, blocks if not; on CUDA, and for ivf, our own.",
        "Machine",
    )
    mixture_posterior: Literal["fitted", "monotone"] = option(
        "fitted",
        "Loss rules: the mixture's posterior as in the papers, or corrected so that it never falls as the score rises.",
        "Thresholds",
    )
    fallback: Literal["best", "none", "lowest"] = option(  # None until it is known whether --compat was given
        None, "What a class gets that would keep nothing (default: best).", "Thresholds"
    )
    compat: Literal["paper-code"] | None = option(
        None, "Reproduce the published code, deviations included.", "Thresholds"
    )
    ignore_review: bool = ignore_review_option()
    seed: int = seed_option(0, panel="Scores")
    device: Device = device_option()
    processes: int | None = option(
        None,
        "Processes that share the rows, by blocks of 65,536 (default: one; of Ray as many as there is room for).",
        "Many processes",
        metavar="N",
        low=1,
        high=1024,
    )
    engine: Engine = engine_option("local: processes of this machine; ray: the actors of a Ray cluster.")
    ray_address: str | None = ray_address_option()
    ray_cores: int | None = ray_cores_option()
    partial: bool = option(False, "Accept a store that is not complete.", "Run")

    @cached_property
    def tree(self) -> Node:
        """The strategy, parsed once."""
        return parse(self.strategy)

    def preset_values(self) -> dict[str, Any]:
        """Of the preset's `[selection]` table; a file's path is kept whole, so that `train` finds it from anywhere."""
        if self.preset is None:
            return {}
        values = preset_values(self.preset)
        if unknown := [key for key in values if key not in OF_PRESETS]:
            raise InputError(
                f"The [selection] table of {self.preset} has the key {unknown[0]}.", do=f"Use: {', '.join(OF_PRESETS)}."
            )
        if self.preset not in recipe_names():
            object.__setattr__(self, "preset", str(Path(self.preset).absolute()))
        return values

    def told_preset(self) -> str:
        """Which values the preset gave, and which options were given beside it; empty without a preset."""
        if self.preset is None:
            return ""
        values = preset_values(self.preset)
        said = [
            f"{field} {mine}" + ("" if mine == value else f" (given; the preset's is {value})")
            for field, value in values.items()
            if (mine := getattr(self, field)) is not None
        ]
        return f"Preset {Path(self.preset).stem}: {', '.join(said)}."

    def refuse_contradictions(self) -> None:
        _ = self.tree
        self._refuse_without_joint()
        of_ray = {"--ray-address": self.ray_address is not None, "--ray-cores": self.ray_cores is not None}
        refuse_without_ray(self.engine, of_ray)
        self._refuse_without_ivf()
        if self.crossfit == 1:
            raise UsageError("--crossfit is 1.", do="Give 0 (off) or a number of folds, 2 or more.")
        usual = "best"
        if self.compat is not None:
            self._refuse_departures()
            usual = "lowest"
        if self.fallback is None:
            object.__setattr__(self, "fallback", usual)

    def _refuse_without_ivf(self) -> None:
        given = [
            flag
            for flag, value in (("--knn-recall", self.knn_recall), ("--knn-probes", self.knn_probes))
            if value is not None
        ]
        if given and self.knn_index != "ivf":
            raise UsageError(
                f"{given[0]} was given without --knn-index ivf.",
                so="An exact search finds all neighbours.",
                do="Give --knn-index ivf with it, or leave it out.",
            )
        if len(given) > 1:
            raise UsageError(
                "--knn-recall was given with --knn-probes.",
                so="Each says how many cells are visited.",
                do="Leave one of them out.",
            )

    def _refuse_without_joint(self) -> None:
        """Options that only the probabilities of joint can serve."""
        alone = self.tree == Leaf(JOINT_RULE)
        used = any(rule.scorer == JOINT_RULE.scorer for rule in rules_of(self.tree))
        for flag, value, fits in (
            ("--keep-precision", self.keep_precision, alone),
            ("--budget", self.budget, used),
            ("--verdicts", self.verdicts, used),
        ):
            if value is not None and not fits:
                raise UsageError(
                    f"{flag} was given with --strategy {self.strategy!r}.",
                    so="Only joint says how probable it is that a label is right.",
                    do="Give --strategy joint with it.",
                )
        if self.keep_precision is not None and self.theta_posterior != 0.5:
            raise UsageError(
                "--keep-precision was given with --theta-posterior.",
                so="Each says how much is kept.",
                do="Leave one of them out.",
            )

    def _refuse_departures(self) -> None:
        """Options of which the published code knows nothing: it would run without them, or with another value."""
        given = {
            "--temperature model": self.temperature == "model",
            "--mixture-posterior monotone": self.mixture_posterior != "fitted",
            "--knn-index ivf": self.knn_index == "ivf",
            f"--crossfit {self.crossfit}": self.crossfit > 0,
            f"--fallback {self.fallback}": self.fallback not in (None, "lowest"),
            f"--prompt-pooling {self.prompt_pooling}": self.prompt_pooling != "sum",
            f"--knn-backend {self.knn_backend}": self.knn_backend != "auto",
            f"--logistic-solver {self.logistic_solver}": self.logistic_solver != "auto",
        }
        if wrong := [option for option, on in given.items() if on]:
            raise UsageError(
                f"{' and '.join(wrong)} {'were' if len(wrong) > 1 else 'was'} given with --compat {self.compat}.",
                so="The published code has no such thing.",
                do="Leave one of them out.",
            )

    @property
    def ivf(self) -> dict[str, str | int | float]:
        """What an approximate kNN search depends on; empty for an exact one."""
        if self.knn_index == "exact":
            return {}
        number = {"recall": self.knn_recall or KNN_RECALL} if self.knn_probes is None else {"probes": self.knn_probes}
        return {"index": self.knn_index, **number}
