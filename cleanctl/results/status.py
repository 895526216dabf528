"""What `status` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class SelectionStatus:
    """made: local time, as text. stale: why it no longer fits the store; empty where it does. newer_verdicts: people's,
    that it does not know or knows otherwise; train, export and eval obey them, its table does not show them."""

    name: str
    strategy: str
    kept: int
    count: int
    made: str
    stale: str
    newer_verdicts: int = 0


@dataclass(frozen=True, kw_only=True)
class VerdictStatus:
    """What people decided and holds: so many keep, drop, relabel; skip are undecided. idle: which verdicts do not hold
    and why, in words. contradictions: images on which people contradict each other."""

    keep: int
    drop: int
    relabel: int
    skip: int
    idle: str
    contradictions: int


@dataclass(frozen=True, kw_only=True)
class SplitStatus:
    """images = ok + failed + pending. scores: their names. packed_bytes: of the FFCV file, 0 without one. verdicts:
    None where nobody decided anything."""

    split: str
    images: int
    ok: int
    failed: int
    pending: int
    truth: bool
    scores: tuple[str, ...]
    selections: tuple[SelectionStatus, ...]
    packed_bytes: int
    verdicts: VerdictStatus | None = None


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One training run. state: "finished", "stopped", "diverged" or "damaged". epochs_done of epochs.

    top1: of the last epoch on `test_split`, in [0, 1]. stale: why it no longer fits the store; empty where it does.
    """

    name: str
    method: str
    selection: str
    state: str
    epochs_done: int
    epochs: int
    test_split: str | None
    top1: float | None
    stale: str


@dataclass(frozen=True, kw_only=True)
class StatusReport(Result):
    """What a store and what lies beside it hold. source: where the images are; source_here: whether they still are.

    pretrained: the tag or file of the weights. store_bytes: size on disk. damaged: what could not be read.
    following: commands to type next, the most urgent first; empty where nothing is missing.
    """

    store: str
    store_bytes: int
    source: str
    source_here: bool
    model: str
    pretrained: str | None
    prompts: str | None
    classes: int
    splits: tuple[SplitStatus, ...]
    runs: tuple[RunStatus, ...]
    damaged: tuple[str, ...]
    following: tuple[str, ...]
