"""Embeds on two "devices" and says how that ended. Arguments: source, model folder, store."""

from __future__ import annotations

import sys

from saying import Saying

from cleanctl.api import embed
from cleanctl.config import EmbedConfig
from cleanctl.errors import InterruptedRun

if __name__ == "__main__":
    source, model, store = sys.argv[1:]
    config = EmbedConfig(source=source, model=f"local-dir:{model}", devices=("cpu", "cpu"))
    try:
        embed(config, store=store, progress=Saying())
    except InterruptedRun as error:
        sys.stdout.write(f"interrupted {error.exit_code}\n")
