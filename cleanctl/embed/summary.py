"""What an embedding or an import did, as a record that the command line shows or prints as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Counts of one split; ok + failed = images.

    embedded: encoded (or imported) by this run. unchanged: settled by an earlier one. dropped: rows of the store whose
    file is gone from the source. seconds: loading, encoding and writing; packing too where it is the same pass.
    failures: a few of them.
    """

    split: str
    images: int
    ok: int
    failed: int
    embedded: int
    unchanged: int
    dropped: int = 0
    loader: str | None = None
    seconds: float = 0.0
    failures: tuple[tuple[str, str], ...] = ()  # (key, reason)

    @property
    def images_per_second(self) -> float | None:
        return self.embedded / self.seconds if self.embedded and self.seconds > 0 else None


@dataclass(frozen=True, kw_only=True)
class EmbedSummary:
    """One run of `embed` or `import`. shard: I/N if it embedded a share of the rows. complete: no row is pending."""

    store: Path
    splits: tuple[SplitSummary, ...]
    classes: int
    model: str
    prompts: str | None
    num_prompts: int
    prompts_embedded: bool
    dim: int
    device: str | None
    precision: str | None
    seconds: float
    shard: str | None = None
    complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """JSON values; each split also carries images_per_second (None if nothing was embedded)."""
        splits = [
            {
                **asdict(split),
                "failures": [list(pair) for pair in split.failures],
                "images_per_second": split.images_per_second,
            }
            for split in self.splits
        ]
        return {**asdict(self), "store": str(self.store), "splits": splits}
