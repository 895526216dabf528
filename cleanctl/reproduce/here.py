"""What of a row is on this machine: its dataset as shipped, its encoder, the weights that its network starts from.

Each function gives the place, or raises the InputError that says exactly what is missing and where it was looked for.
"""

from __future__ import annotations

from pathlib import Path

from cleanctl.clip.models import CONFIG_NAME, resolve_model
from cleanctl.config import EmbedConfig, ReproduceConfig
from cleanctl.datasets.source import open_source
from cleanctl.errors import CleanctlError, InputError, InterruptedRun
from cleanctl.reproduce.tables import Setting
from cleanctl.train.recipe import load_recipe

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PUBLISHED_WEIGHTS = "openai"


def find_encoder(config: ReproduceConfig, encoder: str) -> tuple[str, str | None]:
    """`--model` and `--pretrained` of an encoder: the one given for all rows, one of `--models`, or a cached one."""
    if config.model is not None:
        resolve_model(config.model, config.pretrained)
        return config.model, config.pretrained
    if config.models is not None and (config.models / encoder / CONFIG_NAME).is_file():
        return f"local-dir:{config.models / encoder}", None
    file = _weights_file(config, encoder)
    pretrained = PUBLISHED_WEIGHTS if file is None else str(file)
    try:
        resolve_model(encoder, pretrained)
    except InputError as exc:
        raise InputError(
            f"the weights of {encoder} ({PUBLISHED_WEIGHTS}): {_places(config, encoder)}. {exc.found}"
        ) from exc
    return encoder, pretrained


def find_network_weights(config: ReproduceConfig, setting: Setting) -> str | None:
    """`--network-weights` of the setting's recipe: a file where it starts from published weights, else None."""
    if setting.recipe is None or (recipe := load_recipe(setting.recipe)).weights == "none":
        return None
    if config.scale == "small":
        return "none"
    if (file := _weights_file(config, recipe.network)) is None:
        raise InputError(f"ImageNet weights of {recipe.network}: {_places(config, recipe.network)}.")
    return str(file)


def find_source(config: ReproduceConfig, setting: Setting) -> Path:
    """The dataset's folder: DATA/<its name>, else DATA itself. It is opened with the setting's labels."""
    if config.data is None:
        raise InputError(f"the dataset {setting.dataset}: no --data was given.")
    own = config.data / setting.dataset
    source = own if own.is_dir() else config.data
    try:
        open_source(
            EmbedConfig(
                source=source,
                dataset=setting.dataset,
                variant=setting.variant,
                noise=setting.labels(),
                seed=setting.seed,
            )
        )
    except InterruptedRun:
        raise
    except CleanctlError as exc:
        where = "" if own.is_dir() else f"there is no folder {own}, and {config.data} is not it either. "
        raise InputError(f"the dataset {setting.dataset}: {where}{exc.found} {exc.do}".strip()) from exc
    return source


def _weights_file(config: ReproduceConfig, name: str) -> Path | None:
    if config.models is None:
        return None
    return next((file for suffix in SUFFIXES if (file := config.models / f"{name}{suffix}").is_file()), None)


def _places(config: ReproduceConfig, name: str) -> str:
    if config.models is None:
        return "no --models was given"
    return f"{config.models} holds no {name}{', '.join(SUFFIXES[:1])} (or {', '.join(SUFFIXES[1:])})"
