"""Options of `cleanctl demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cleanctl.config.option import Config, option
from cleanctl.config.shared import Device, device_option

LEAST_IMAGES = 600  # 50 a class; with fewer the mixtures have nothing to fit


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Config):
    """images: training images to draw; the test split has a quarter as many."""

    folder: Path = option(Path("cleanctl-demo"), "Where to leave images, store and runs.")
    images: int = option(4000, "Training images to draw.", metavar="N", low=LEAST_IMAGES, high=1_000_000)
    fresh: bool = option(False, "Start over; else what is there is used again.")
    device: Device = device_option()
