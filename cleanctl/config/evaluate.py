"""Options of `cleanctl eval`."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.config.option import Config, option, require_plain_name
from cleanctl.config.review import ignore_review_option
from cleanctl.config.shared import (
    Device,
    Loader,
    batch_size_option,
    device_option,
    loader_option,
    splits_option,
    workers_option,
)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Config):
    splits: tuple[str, ...] = splits_option("A split to evaluate on; may repeat (default: all there are).")
    selection: str | None = option(None, "The selection to judge (default: the newest).", check=require_plain_name)
    run: str | None = option(None, "The training run to judge, or all (default: the newest).", check=require_plain_name)
    ignore_review: bool = ignore_review_option()
    batch_size: int = batch_size_option(512, "Images classified at a time.", "Run")
    loader: Loader = loader_option()
    device: Device = device_option()
    workers: int | None = workers_option()
