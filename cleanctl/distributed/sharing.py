"""Among how many processes the rows of a split can be shared: whole blocks of the store, and scorers that allow it."""

from __future__ import annotations

from cleanctl.config import SelectConfig
from cleanctl.errors import UsageError
from cleanctl.progress import Progress
from cleanctl.score.compute import Plan
from cleanctl.store import Split


def shared_among(wanted: int, asked: str, split: Split, config: SelectConfig, plan: Plan, progress: Progress) -> int:
    """How many processes can share the rows: no more than there are blocks. asked: by what they were asked for."""
    if wanted == 1:
        return 1
    for one in plan.scores(config):
        if not one.scorer.in_parts:
            because = f" as --compat {config.compat} computes it" if config.compat else ""
            raise UsageError(
                f"The score {one.title}{because} needs all rows in one process; {asked} was given.",
                do=f"Leave {asked.split()[0]} out, or choose a strategy without {one.title}.",
            )
    blocks = split.blocks()
    parts = blocks.parts(wanted)
    rows = f"{blocks.num_rows:,} rows in blocks of {split.shard_rows:,}"
    if len(parts) < wanted:
        ones = "one process computes" if len(parts) == 1 else f"{len(parts)} processes share"
        progress.note(f"{asked}: {ones} the {rows}, because a block is read by one process.")
    else:
        progress.note(f"{wanted} processes share the {rows}.")
    return len(parts)
