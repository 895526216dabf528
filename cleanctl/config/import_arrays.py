"""Options of `cleanctl import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cleanctl.config.option import REQUIRED, Config, option
from cleanctl.config.shared import split_option


@dataclass(frozen=True, kw_only=True)
class ImportConfig(Config):
    image_embeddings: Path = option(REQUIRED, "(N,D) .npy, any float type; normalised on the way in.")
    labels: Path = option(REQUIRED, "(N,) .npy, or a file with a label a line.")
    text_embeddings: Path | None = option(None, "(P,D) .npy, for zero-shot rules.", "Prompts")
    text_classes: Path | None = option(None, "(P,) .npy of integers: the class of each prompt.", "Prompts")
    logit_scale: float | None = option(
        None,
        "exp(logit_scale) of the model, 100 for CLIP's own; select --temperature model needs it.",
        "Prompts",
        above=0,
    )
    classes: Path | None = option(None, "Class names in label order, a name a line.", "Names and truth")
    keys: Path | None = option(None, "A key a line, one for each row.", "Names and truth")
    truth: Path | None = option(None, "(N,) .npy of true labels, -1 where unknown.", "Names and truth")
    split: str = split_option("The split to fill.")
    replace: bool = option(False, "Recreate an existing store.", "Run")
