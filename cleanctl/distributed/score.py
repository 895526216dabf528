"""Who computes the scores of `select`: this process, or several that share the rows.

The stored scores are those of one process, but for the order in which float64 sums are added: docs/scale.md says how
far that reaches. Rows are shared by whole blocks of the store, so that each process reads its own files.
"""

from __future__ import annotations

from cleanctl.config import SelectConfig
from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.score.compute import Plan, compute_scores, plan_scores
from cleanctl.store import Split, Store


def score_rows(store: Store, split: Split, config: SelectConfig, *, progress: Progress = SILENT) -> None:
    """Computes and stores what the strategy needs and is not stored yet, as `config` says: `processes`.

    Raises UsageError for a scorer that must see all rows itself.
    """
    plan = plan_scores(store, split, config, progress=progress)
    parts = shared_among(config.processes, f"--processes {config.processes}", split, config, plan, progress)
    if parts == 1:
        compute_scores(store, split, config, plan, progress=progress)
        return
    from cleanctl.distributed.processes import score_in_processes

    score_in_processes(store, split, config, plan, parts=parts, progress=progress)


def shared_among(wanted: int, asked: str, split: Split, config: SelectConfig, plan: Plan, progress: Progress) -> int:
    """How many processes can share the rows: no more than there are blocks. asked: by what they were asked for."""
    if wanted == 1 or not plan.basis:
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
