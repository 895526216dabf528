"""Options of `cleanctl reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cleanctl.config.option import REQUIRED, Config, option
from cleanctl.config.shared import Device, Precision, device_option, workers_option
from cleanctl.errors import UsageError
from cleanctl.meant import meant

TABLES = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "DeFT", "figure3", "figure4")


def require_table(flag: str, name: str) -> None:
    if name not in TABLES:
        raise UsageError(f"{flag} is {name!r}{meant(name, TABLES)}", do=f"Give one of: {', '.join(TABLES)}.")


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(Config):
    table: str = option(
        REQUIRED, f"What to reproduce: {', '.join(TABLES)}.", flag="TABLE", metavar="TABLE", check=require_table
    )
    data: Path | None = option(
        None, "The folder of the datasets, each as it is shipped in a folder of its name, e.g. cifar10/.", metavar="DIR"
    )
    models: Path | None = option(
        None, "The folder of weights: NAME/ or NAME.safetensors of an encoder or network.", metavar="DIR"
    )
    rows: tuple[str, ...] = option(
        (),
        "Rows to run, by name or pattern; may repeat: ours, 'ours/cifar10-*' (default: all).",
        metavar="ROW[/COLUMN]",
    )
    seeds: int = option(1, "Training runs of each value, seeds 3047, 3048, …", "Run", low=1, high=100)
    scale: Literal["full", "small"] = option(
        "full", "small: each row's code in minutes, on small copies of the data; its numbers mean nothing.", "Run"
    )
    out: Path = option(
        Path("cleanctl-reproduce"),
        "Where stores, runs and figures lie; a second call goes on there.",
        "Run",
        metavar="DIR",
    )
    dry_run: bool = option(False, "Say what would run and what is missing; run nothing.", "Run")
    model: str | None = option(None, "Use this encoder in every row instead of the published one.", "Model")
    pretrained: str | None = option(None, "Its weights: an open_clip tag or a file.", "Model")
    device: Device = device_option()
    precision: Precision = option("fp32", "Of training; fp32 is the published arithmetic, auto is faster.", "Machine")
    workers: int | None = workers_option()

    def refuse_contradictions(self) -> None:
        if self.pretrained is not None and self.model is None:
            raise UsageError(
                "--pretrained was given without --model.", so="The rows name their weights.", do="Add --model NAME."
            )
