"""Who computes the scores of `select`: this process, or several that share the rows.

The stored scores are those of one process, but for the order in which float64 sums are added: docs/scale.md says how
far that reaches. Rows are shared by whole blocks of the store, so that each process reads its own files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cleanctl.config import SelectConfig
from cleanctl.distributed.sharing import shared_among
from cleanctl.errors import UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.runtime import choose_device, torchrun_place
from cleanctl.score.compute import Plan, compute_scores, plan_scores
from cleanctl.score.scorer import ALONE, Reduce
from cleanctl.store import Split, Store
from cleanctl.store.locks import writer_lock


@contextmanager
def started_parts(config: SelectConfig) -> Iterator[Reduce]:
    """The processes that torchrun started, each of which calls this; else this one alone. UsageError where `config`
    asks for other processes beside them."""
    count = torchrun_place()[1]
    if count == 1:
        yield ALONE
        return
    if (config.processes or 1) > 1 or config.engine == "ray":
        given = "--engine ray" if config.engine == "ray" else f"--processes {config.processes}"
        raise UsageError(
            f"{given} was given under torchrun, which started {count} processes.",
            do="Leave one of them out.",
        )
    from cleanctl.distributed.torch_parts import torchrun_parts

    with torchrun_parts(choose_device(config.device).value) as parts:
        yield parts


def score_rows(
    store: Store, split: Split, config: SelectConfig, started: Reduce = ALONE, *, progress: Progress = SILENT
) -> None:
    """Computes and stores what the strategy needs and is not stored yet. started: by `started_parts`; each of them
    calls this.

    Raises UsageError for a scorer that must see all rows itself.
    """
    plan = started.from_first(lambda: _planned(store, split, config, progress))
    if not plan.basis:
        return
    if started.parts > 1:
        from cleanctl.distributed.torch_parts import TorchParts

        assert isinstance(started, TorchParts)
        parts = shared_among(started.parts, f"torchrun with {started.parts}", split, config, plan, progress)
        few = started.few(parts)
        if started.number < parts:
            compute_scores(store, split, config, plan, progress=progress, reduce=few)
        return
    if config.engine == "ray":
        from cleanctl.distributed.ray_select import score_on_ray

        score_on_ray(store, split, config, plan, progress=progress)
        return
    wanted = config.processes or 1
    parts = shared_among(wanted, f"--processes {wanted}", split, config, plan, progress)
    if parts == 1:
        compute_scores(store, split, config, plan, progress=progress)
        return
    from cleanctl.distributed.processes import score_in_processes

    score_in_processes(store, split, config, plan, parts=parts, progress=progress)


def _planned(store: Store, split: Split, config: SelectConfig, progress: Progress) -> Plan:
    """What is to be computed; StoreError where another process writes the store: no score could be stored."""
    plan = plan_scores(store, split, config, progress=progress)
    if plan.basis:
        with writer_lock(store.path):
            pass
    return plan
