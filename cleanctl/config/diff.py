"""Options of `cleanctl diff`."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.config.option import REQUIRED, Config, option, require_plain_name
from cleanctl.config.shared import split_option


@dataclass(frozen=True, kw_only=True)
class DiffConfig(Config):
    first: str = option(REQUIRED, "A stored selection.", flag="A", check=require_plain_name)
    second: str = option(REQUIRED, "The selection to compare it with.", flag="B", check=require_plain_name)
    split: str = split_option("The split that both were made from.")
