"""Options that several verbs share, declared once; each function makes a new field for one config."""

from __future__ import annotations

from typing import Any, Literal, get_args

from cleanctl.config.option import MAX_SEED, option, require_plain_name

Loader = Literal["auto", "ffcv", "torch", "nvjpeg"]
Device = Literal["auto", "cuda", "cpu"]
Precision = Literal["auto", "fp16", "bf16", "fp32"]
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
