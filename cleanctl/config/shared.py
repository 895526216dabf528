"""Options that several verbs share, declared once; each function makes a new field for one config."""

from __future__ import annotations

from typing import Any, Literal, get_args

from cleanctl.config.option import MAX_SEED, option, require_plain_name
from cleanctl.errors import UsageError

Loader = Literal["auto", "ffcv", "torch", "nvjpeg"]
Device = Literal["auto", "cuda", "cpu"]
Precision = Literal["auto", "fp16", "bf16", "fp32"]
Engine = Literal["local", "ray"]
LOADERS: tuple[str, ...] = get_args(Loader)
MAX_SPLIT_NAME = 80  # it is part of the names of files beside the store


def require_split_name(option: str, name: str) -> None:
    """UsageError unless a split may be named so; `text` is the group of the store that holds the prompts."""
    require_plain_name(option, name, most=MAX_SPLIT_NAME, kept=("text",))


def loader_option() -> Any:
    help = "How images are read; auto: FFCV if it is there; nvjpeg: on the GPU."
    return option("auto", help, "Machine")


def device_option() -> Any:
    return option("auto", "Where to compute.", "Machine")


def precision_option() -> Any:
    return option("auto", "auto: fp16 on CUDA, native bf16, else fp32.", "Machine")


def workers_option() -> Any:
    help = "Processes that read images (default: one a core)."
    return option(None, help, "Machine", low=0, high=1024)


def seed_option(default: int, help: str = "Seed of every random choice.", panel: str = "") -> Any:
    return option(default, help, panel, low=0, high=MAX_SEED)


def batch_size_option(default: int | None, help: str, panel: str) -> Any:
    return option(default, help, panel, low=1, high=65_536)


def split_option(help: str) -> Any:
    return option("train", help, check=require_split_name)


def splits_option(help: str, panel: str = "") -> Any:
    return option((), help, panel, flag="--split", check=require_split_name)


# ---- an engine that runs a verb in many processes


def engine_option(help: str) -> Any:
    return option("local", help, "Many processes")


def ray_address_option() -> Any:
    help = "A running cluster, HOST:PORT, or auto: this machine's (default: one is started here)."
    return option(None, help, "Many processes", metavar="HOST:PORT", check=_require_address)


def ray_cores_option() -> Any:
    help = "Cores of each actor (default: 4, or all; beside a GPU its share of the node's)."
    return option(None, help, "Many processes", low=1, high=4096)


def refuse_without_ray(engine: str, given: dict[str, bool]) -> None:
    """UsageError where an option of `--engine ray` was given beside another engine. given: flag → whether it was."""
    wrong = [flag for flag, on in given.items() if on]
    if engine != "ray" and wrong:
        raise UsageError(
            f"{' and '.join(wrong)} {'were' if len(wrong) > 1 else 'was'} given with --engine {engine}.",
            so="Nothing would be done with it.",
            do="Add --engine ray, or leave it out.",
        )


def _require_address(option: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in address or not port.isdecimal()):
        raise UsageError(
            f"{option} is {address!r}.",
            do="Give HOST:PORT as `ray start --head` shows it, e.g. 10.0.0.1:6379, or auto.",
        )
