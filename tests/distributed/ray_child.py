"""Embeds by Ray in small parts, on a cluster of its own, and says how that ended. Arguments: source, model, store."""

from __future__ import annotations

import sys

import ray_small
from saying import Saying

from cleanctl.api import embed
from cleanctl.config import EmbedConfig
from cleanctl.distributed import ray_embed
from cleanctl.errors import InterruptedRun

if __name__ == "__main__":
    source, model, store = sys.argv[1:]
    ray_small.shrink()
    ray_embed.EmbedJob = ray_small.SmallParts
    config = EmbedConfig(
        source=source, model=f"local-dir:{model}", engine="ray", ray_cores=1, loader="torch", device="cpu",
        batch_size=4, workers=0,
    )  # fmt: skip
    try:
        embed(config, store=store, progress=Saying())
    except InterruptedRun as error:
        sys.stdout.write(f"interrupted {error.exit_code}: {error.found}\n")
