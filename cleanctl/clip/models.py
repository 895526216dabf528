"""Which encoder a run uses: from `--model` and `--pretrained` to an architecture, weights and preprocessing.

Resolving (`resolve_model`) reads configuration files and hashes the weights but builds no network, so that a run with
nothing to embed stays quick; `cleanctl.clip.encoder` builds. `EncoderInfo` is what the store writes down.
Writes nothing to disk, except that a download that was asked for fills the libraries' own caches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cleanctl.clip import known, weights
from cleanctl.clip.provenance import EncoderInfo, ModelSource, package_versions
from cleanctl.errors import InputError, UsageError
from cleanctl.meant import meant
from cleanctl.records import PixelSpec

CONFIG_NAME = "open_clip_config.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
# open_clip's own defaults, repeated so that resolving a local model does not import it (seconds).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_NO_NOTES: tuple[str, ...] = ()

__all__ = ["EncoderInfo", "ModelSource", "OfflineModel", "list_offline_models", "package_versions", "resolve_model"]


@dataclass(frozen=True, kw_only=True)
class OfflineModel:
    """An encoder that needs no network: `--model model --pretrained pretrained`."""

    model: str
    pretrained: str | None
    path: Path
    size: int  # bytes


def resolve_model(model: str, pretrained: str | None, *, download: bool = False) -> ModelSource:
    """`--model` and `--pretrained` → a source whose weights are on this disk.

    Raises UsageError for an unknown name, InputError for weights that are absent (saying what was looked for and
    where), of the wrong activation (QuickGELU) or beside a broken configuration.
    """
    if model.startswith(LOCAL):
        return _from_local(model, pretrained)
    if model.startswith(HUB):
        return _from_hub(model, pretrained, download=download)
    return replace(_from_registry(model, pretrained, download=download), download=download)


def list_offline_models() -> list[OfflineModel]:
    """Every encoder whose weights this disk holds, open_clip's tags first, then cached hub repositories."""
    table, found = known.tags(), []
    for name, tag in table.list_pretrained():
        cfg = table.get_pretrained_cfg(name, tag)
        path = weights.find_tag_weights(cfg).path
        if path and bool(cfg.get("quick_gelu")) == _quick_gelu(known.architecture(name)):
            found.append(OfflineModel(model=name, pretrained=tag, path=path, size=path.stat().st_size))
    return found + [entry for entry in _cached_hub_models() if entry.path not in {other.path for other in found}]


def _cached_hub_models() -> list[OfflineModel]:
    from huggingface_hub import constants

    found = []
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        path = weights.find_hub_file(repo, weights.hub_file_names("")).path
        if path and (path.parent / CONFIG_NAME).is_file():
            found.append(OfflineModel(model=HUB + repo, pretrained=None, path=path, size=path.stat().st_size))
    return found


# ---- local-dir: and hf-hub:


def _from_local(model: str, pretrained: str | None) -> ModelSource:
    if pretrained:
        raise UsageError(
            f"--pretrained {pretrained} was given with --model {model}.",
            so="A local directory brings its own weights.",
            do="Leave --pretrained out, or name the weights file: --model local-dir:DIR/FILE",
        )
    path = Path(os.path.abspath(Path(model.removeprefix(LOCAL)).expanduser()))  # later commands: in another folder
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise InputError(f"There is no folder {path}.", do="Check the path after local-dir:")
    return _from_folder(f"{LOCAL}{path}", folder, weights_file=path if path.is_file() else None)


def _from_hub(model: str, pretrained: str | None, *, download: bool) -> ModelSource:
    if pretrained:
        raise UsageError(f"--pretrained {pretrained} was given with --model {model}.", do="Leave --pretrained out.")
    repo = model.removeprefix(HUB)
    found = weights.find_hub_file(repo, weights.hub_file_names(""))
    if found.path is None or not (found.path.parent / CONFIG_NAME).is_file():
        if not download:
            raise weights.missing_weights(model, found.looked_for or (CONFIG_NAME,), repo)
        return _from_folder(model, weights.download_hub_repo(repo))
    return _from_folder(model, found.path.parent, weights_file=found.path)


def _from_folder(model: str, folder: Path, weights_file: Path | None = None) -> ModelSource:
    config, preprocess = _read_config(folder / CONFIG_NAME)
    return _source(
        name=model,
        open_clip_name=f"{LOCAL}{folder}",
        pretrained=None,
        config=config,
        preprocess=preprocess,
        weights=weights_file or weights.find_in_folder(folder),
    )


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model_cfg, preprocess_cfg) of an open_clip_config.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = values["model_cfg"]
        for part in ("embed_dim", "vision_cfg", "text_cfg"):
            config[part]
    except FileNotFoundError as exc:
        raise InputError(
            f"{path.parent} has no {CONFIG_NAME}.",
            so="Weights alone do not say their architecture.",
            do=f"Put open_clip's {CONFIG_NAME} beside them, or use --model NAME --pretrained FILE.",
        ) from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InputError(
            f"{path} is not an open_clip configuration: {type(exc).__name__} {exc}.",
            do="It needs model_cfg with embed_dim, vision_cfg and text_cfg.",
        ) from exc
    return config, dict(values.get("preprocess_cfg") or {})


# ---- registered names


def _from_registry(model: str, pretrained: str | None, *, download: bool) -> ModelSource:
    config, table = known.architecture(model), known.tags()
    if config is None:
        raise UsageError(
            f"--model is {model!r}, which open_clip {package_versions().get('open_clip_torch')} does not know"
            f"{meant(model, known.architectures())}",
            do="Use one of open_clip.list_models(), or --model local-dir:DIR.",
        )
    if pretrained and not table.is_pretrained_cfg(model, pretrained) and Path(pretrained).expanduser().is_file():
        return _from_file(model, config, Path(pretrained).expanduser())
    tag, notes = (pretrained, _NO_NOTES) if pretrained else _choose_tag(model, config)
    if not table.is_pretrained_cfg(model, tag):
        tags = ", ".join(table.list_pretrained_tags_by_model(model)) or "none"
        raise UsageError(f"--pretrained is {tag!r}: neither a file nor a tag of {model}.", do=f"Its tags are: {tags}.")
    cfg = table.get_pretrained_cfg(model, tag)
    _require_activation(model, config, cfg.get("quick_gelu"), f"the tag {tag!r}")
    found = weights.find_tag_weights(cfg)
    path = found.path
    if path is None:
        if not download:
            repo = str(cfg.get("hf_hub") or "").rpartition("/")[0] or None
            raise weights.missing_weights(f"{model} {tag}", found.looked_for, repo)
        path = weights.download_tag(model, tag, cfg)
    return _source(
        name=model, open_clip_name=model, pretrained=tag, config=config, preprocess=cfg, weights=path, notes=notes
    )


def _choose_tag(model: str, config: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The tag for a `--model` without `--pretrained`: the only one that fits, or the only one on disk, or openai."""
    every = known.tags()
    table = {tag: every.get_pretrained_cfg(model, tag) for tag in every.list_pretrained_tags_by_model(model)}
    fitting = [tag for tag, cfg in table.items() if bool(cfg.get("quick_gelu")) == _quick_gelu(config)]
    here = [tag for tag in fitting if weights.find_tag_weights(table[tag]).path]
    for choice, why in ((fitting, "the only one for it"), (here, "the only one on this disk")):
        if len(choice) == 1:
            return choice[0], (f"--pretrained {choice[0]} is taken: {why}.",)
    if "openai" in fitting and (not here or "openai" in here):
        return "openai", ("--pretrained openai is taken: the method's own weights.",)
    raise UsageError(
        f"--model {model} was given without --pretrained.",
        do=f"Name weights: one of {', '.join(here or fitting) or 'a file'}.",
    )


def _from_file(model: str, config: Mapping[str, Any], path: Path) -> ModelSource:
    """A bare weights file: what it needs is taken from a configuration beside it or from open_clip's table."""
    listed, where = _known_weights(path)
    beside = path.with_name(CONFIG_NAME)
    if beside.is_file():
        declared, declared_pixels = _read_config(beside)
        _require_activation(model, config, declared.get("quick_gelu", False), f"{beside}")
        return _file_source(model, config, declared_pixels, path, ())
    if listed is not None:
        _require_activation(model, config, listed.get("quick_gelu"), f"{path.name} ({where})")
        return _file_source(model, config, listed, path, (f"{path.name} is known to open_clip: {where}.",))
    if "quickgelu" in path.name.lower():
        _require_activation(model, config, True, path.name)
    preprocess, why = _usual_preprocessing(model)
    activation = "QuickGELU" if _quick_gelu(config) else "GELU"
    note = f"{path.name} says nothing of itself: {activation} as in {model} and {why} preprocessing are assumed."
    return _file_source(model, config, preprocess, path, (note,))


def _file_source(
    model: str, config: Mapping[str, Any], preprocess: Mapping[str, Any], path: Path, notes: tuple[str, ...]
) -> ModelSource:
    return _source(
        name=model,
        open_clip_name=model,
        pretrained=path.name,
        config=config,
        preprocess=preprocess,
        weights=path,
        notes=notes,
    )


def _known_weights(path: Path) -> tuple[Mapping[str, Any] | None, str]:
    """open_clip's table entry for a file, by its name or by its place in the hub's cache; and how it was known."""
    table = known.tags()
    parts = {part for part in path.absolute().parts if part.startswith("models--")}
    for name, tag in table.list_pretrained():
        cfg = table.get_pretrained_cfg(name, tag)
        url, repo = str(cfg.get("url") or ""), str(cfg.get("hf_hub") or "").rpartition("/")[0]
        if url and Path(url).name == path.name:
            return cfg, f"the file name of {name} {tag}"
        if repo and f"models--{repo.replace('/', '--')}" in parts:
            return cfg, f"the hub repository of {name} {tag}"
    return None, ""


def _usual_preprocessing(model: str) -> tuple[Mapping[str, Any], str]:
    """What every tag of an architecture shares (SigLIP's differs from CLIP's), else open_clip's default."""
    every = known.tags()
    table = [every.get_pretrained_cfg(model, tag) for tag in every.list_pretrained_tags_by_model(model)]
    keys = ("mean", "std", "interpolation", "resize_mode")
    distinct = {tuple(str(cfg.get(key)) for key in keys) for cfg in table}
    if len(distinct) == 1:
        return table[0], f"{model}'s usual"
    return {}, "CLIP's"


# ---- checks and the common end


def _quick_gelu(config: Mapping[str, Any] | None) -> bool:
    return bool((config or {}).get("quick_gelu", False))


def _require_activation(model: str, config: Mapping[str, Any], wanted: bool | None, whose: str) -> None:
    """InputError where weights were trained with another activation than the architecture's."""
    if bool(wanted) == _quick_gelu(config):
        return
    plain = model.removesuffix("-quickgelu")
    other = f"{plain}-quickgelu" if wanted else plain
    remedy = f"Use --model {other}." if other in known.architectures() else "Choose other weights."
    raise InputError(
        f"QuickGELU mismatch: {whose} was trained {'with' if wanted else 'without'} QuickGELU, "
        f"{model} is built {'with' if _quick_gelu(config) else 'without'} it.",
        so="The embeddings would be wrong without any error.",
        do=remedy,
    )


def _source(*, preprocess: Mapping[str, Any], config: Mapping[str, Any], **rest: Any) -> ModelSource:
    size = config["vision_cfg"].get("image_size", 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise InputError(f"{rest['name']} takes images of {size}.", do="Choose a model with square images.")
    try:
        pixels = PixelSpec(
            size=int(sides.pop()),
            resize_mode=preprocess.get("resize_mode") or "shortest",
            interpolation=preprocess.get("interpolation") or "bicubic",
            fill=int(preprocess.get("fill_color") or 0),
        )
        mean, std = preprocess.get("mean") or CLIP_MEAN, preprocess.get("std") or CLIP_STD
        mean_3, std_3 = (tuple(float(value) for value in values) for values in (mean, std))
        if len(mean_3) != 3 or len(std_3) != 3 or min(std_3) <= 0:
            raise ValueError(f"mean {mean_3} and std {std_3}")
    except (TypeError, ValueError) as exc:
        raise InputError(f"{rest['name']} has an unusable preprocessing: {exc}.", do="Correct preprocess_cfg.") from exc
    if pixels.resize_mode not in ("shortest", "longest", "squash") or pixels.interpolation not in (
        "bicubic",
        "bilinear",
    ):
        raise InputError(
            f"{rest['name']} asks for {pixels}, which no loader knows.",
            do="Correct preprocess_cfg.",
        )
    return ModelSource(config=config, pixels=pixels, mean=mean_3, std=std_3, **rest)
