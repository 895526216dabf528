"""Finding a model's weights on this disk, and bringing them only when that was asked for.

In: an open_clip architecture and tag, or a Hugging Face repository. Out: a local file, or an InputError that says what
was looked for, where, and how to bring it. Writes nothing unless `download` is true; then the libraries' own caches are
filled ($HF_HOME/hub, ~/.cache/clip).
"""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanctl.errors import InputError, first_line

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_HUB_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_PREFERRED = (*_HUB_FILES, "model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where weights were looked for, most preferred first, and the file that is there (None if none is)."""

    path: Path | None
    looked_for: tuple[str, ...]


# ---- the network stays shut, and open_clip stays quiet


@contextmanager
def network(allowed: bool) -> Iterator[None]:
    """Shuts the Hugging Face client's way out for the time of a `with`, unless a download was asked for."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Keeps open_clip's remarks off stderr.

    It logs through the root logger's module functions, which install a handler on a root that has none and so would
    make every other library talk from then on.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


# ---- finding


def find_tag_weights(tag: Mapping[str, Any]) -> Found:
    """The weights of an open_clip tag (its entry in open_clip's table) in the caches on this disk."""
    looked_for: list[str] = []
    if tag.get("hf_hub"):
        repo, _, name = str(tag["hf_hub"]).rpartition("/")
        found = find_hub_file(repo, hub_file_names(name))
        if found.path:
            return found
        looked_for += found.looked_for
    if tag.get("file"):
        path = Path(tag["file"])
        looked_for.append(str(path))
        if path.is_file():
            return Found(path=path, looked_for=tuple(looked_for))
    if tag.get("url"):
        path = Path("~/.cache/clip").expanduser() / Path(str(tag["url"])).name
        looked_for.append(str(path))
        if path.is_file():
            return Found(path=path, looked_for=tuple(looked_for))
    return Found(path=None, looked_for=tuple(looked_for))


def hub_file_names(name: str) -> tuple[str, ...]:
    """The files that may hold a repository's weights, safetensors first; `name` is the one open_clip's table gives."""
    if not name:
        return _HUB_FILES
    return (str(Path(name).with_suffix(".safetensors")), name)


def find_hub_file(repo: str, names: tuple[str, ...]) -> Found:
    """The first of `names` that the Hugging Face cache holds of a repository."""
    from huggingface_hub import constants, try_to_load_from_cache

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    for name in names:
        path = try_to_load_from_cache(repo, name)
        if isinstance(path, str) and Path(path).is_file():
            return Found(path=Path(path), looked_for=())
    return Found(path=None, looked_for=(f"{folder} ({' or '.join(names)})",))


def find_in_folder(folder: Path) -> Path:
    """The one weights file of a `local-dir:`; well-known names win over others."""
    here = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    known = [path for name in _PREFERRED for path in here if path.name == name]
    if known:
        return known[0]
    if len(here) == 1:
        return here[0]
    names = ", ".join(path.name for path in here)
    raise InputError(
        f"{folder} holds {len(here)} weights files{f': {names}' if here else ''}.",
        so="It is not clear which to load." if here else f"A model needs one ({', '.join(SUFFIXES)}).",
        do=f"Name the file itself, e.g. --model local-dir:{folder / (here[0].name if here else _PREFERRED[0])}",
    )


# ---- bringing


def download_tag(model: str, pretrained: str, tag: Mapping[str, Any]) -> Path:
    """Fetches a tag's weights through open_clip into its usual cache; InputError if that fails."""
    import open_clip

    try:
        with network(True), quiet_root_logger():
            return Path(open_clip.download_pretrained(dict(tag)))
    except (OSError, RuntimeError, ValueError) as exc:
        raise InputError(
            f"The weights {pretrained!r} of {model} could not be downloaded: {first_line(exc, lines=2)}",
            do="Check the network (and that HF_HUB_OFFLINE is not set), or bring a file with --pretrained FILE.",
        ) from exc


def download_hub_repo(repo: str) -> Path:
    """Fetches the configuration, tokenizer and weights of a Hugging Face repository; gives the snapshot folder."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        with network(True):
            folder = Path(snapshot_download(repo, allow_patterns=["*.json", "*.txt", "*.model"]))
            for name in _HUB_FILES:
                try:
                    hf_hub_download(repo, name)
                    return folder
                except EntryNotFoundError:
                    continue
    except (OSError, HfHubHTTPError, ValueError) as exc:
        raise InputError(
            f"{repo} could not be downloaded from the Hugging Face hub: {first_line(exc, lines=2)}",
            do="Check the name and the network (and that HF_HUB_OFFLINE is not set).",
        ) from exc
    raise InputError(
        f"{repo} holds none of {', '.join(_HUB_FILES)}.",
        so="It is not an open_clip model.",
        do="Name a repository that open_clip can load.",
    )


def missing_weights(what: str, looked_for: tuple[str, ...], repo: str | None) -> InputError:
    """The error for weights that are not on this disk while the network is shut."""
    bring = f"or copy them from another machine: hf download {repo} there, then its folder here; " if repo else ""
    return InputError(
        f"The weights of {what} are not on this disk: looked for {'; '.join(looked_for)}.",
        so="Nothing is downloaded unless asked for.",
        do=f"Add --download to fetch them once; {bring}or give --pretrained FILE or --model local-dir:DIR "
        "(cleanctl doctor --models lists what is here).",
    )


# ---- reading


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as hex, streamed."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise InputError(f"The weights {path} cannot be read: {exc.strerror}.", do="Check the path.") from exc


def read_logits(path: Path) -> tuple[float | None, float | None]:
    """(exp(logit_scale), logit_bias) as a weights file holds them; None for what it does not hold or cannot be read.

    Only these two numbers are read of a safetensors file, and of a pickle what torch's restricted reader maps.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys() if _is_logit(name)}  # noqa: SIM118
        else:
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            state = held.get("state_dict", held) if isinstance(held, dict) else {}
            found = {name: value for name, value in state.items() if _is_logit(str(name))}
    except (RuntimeError, SafetensorError, OSError, ValueError, EOFError, pickle.UnpicklingError):
        return None, None  # `load_weights` says what is wrong with such a file
    values = {name.rpartition(".")[2]: float(value) for name, value in found.items() if value.numel() == 1}
    scale = values.get("logit_scale")
    return None if scale is None else math.exp(scale), values.get("logit_bias")


def _is_logit(name: str) -> bool:
    return name.removeprefix("module.") in ("logit_scale", "logit_bias")


def load_weights(model: Any, path: Path) -> None:
    """Loads a state dict (safetensors, or a pickle through torch's restricted reader) into an open_clip model.

    Raises InputError if the file is of another kind, would run code, or does not fit the architecture.
    """
    import open_clip
    from safetensors import SafetensorError

    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} does not look like weights.",
            so=f"Weights are read from {', '.join(SUFFIXES)} files only.",
            do="Convert it to safetensors.",
        )
    try:
        with quiet_root_logger():
            open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True, device="cpu")
    except pickle.UnpicklingError as exc:
        raise _needs_code(path) from exc
    except (RuntimeError, SafetensorError, OSError, ValueError, KeyError, AttributeError, StopIteration) as exc:
        if "TorchScript" in str(exc) or "weights_only" in str(exc):
            raise _needs_code(path) from exc
        raise InputError(
            f"{path} does not fit the architecture or is damaged: {first_line(exc, lines=2)}",
            do="Check --model against the file, or bring the file again.",
        ) from exc


def _needs_code(path: Path) -> InputError:
    return InputError(
        f"{path} is not a plain state dict.",
        so="Reading it could run code from the file, which cleanctl never does.",
        do="Convert it to safetensors on a machine where you trust it.",
    )
