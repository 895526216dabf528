"""Parts of 16 rows in place of 65,536, so that a few images exercise all of what Ray's actors do.

Actors import it, so its folder must be on their path. BATCH_SECONDS in the environment slows each batch down, for a
test to kill an actor while it is at work.
"""

from __future__ import annotations

import os
import time

from cleanctl.distributed.ray_embed import EmbedJob


def shrink() -> None:
    """In this process."""
    import cleanctl.store.schema
    import cleanctl.store.writer

    cleanctl.store.schema.BLOCK_ROWS, cleanctl.store.schema.CHUNK_ROWS = 16, 8
    cleanctl.store.writer.SEGMENT_ROWS = 1
    seconds = float(os.environ.get("BATCH_SECONDS", 0))
    if seconds:
        put = cleanctl.store.writer.SplitWriter.put

        def slow(*args, **kwargs):
            time.sleep(seconds)
            put(*args, **kwargs)

        cleanctl.store.writer.SplitWriter.put = slow


class SmallParts(EmbedJob):
    def open(self, progress, device):
        shrink()
        return super().open(progress, device)
