"""What `embed`, `import` and `embed --show-failures` return."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cleanctl.results.result import Result


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
class EmbedSummary(Result):
    """One run of `embed` or `import`. shard: I/N if it embedded one shard of the rows. complete: no row is pending."""

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


@dataclass(frozen=True)
class Failure:
    """first_bytes: the type that they tell, or `missing` where there is no such file."""

    key: str
    reason: str
    first_bytes: str


@dataclass(frozen=True, kw_only=True)
class FailureKind:
    """How many images failed with one reason and one type of first bytes, with one key as an example."""

    reason: str
    first_bytes: str
    images: int
    example: str


@dataclass(frozen=True, kw_only=True)
class FailureReport(Result):
    """Every failed image of a store. tables: split → the Parquet file that lists them."""

    store: Path
    images: int
    failures: dict[str, list[Failure]]
    tables: dict[str, Path]

    @property
    def count(self) -> int:
        return sum(map(len, self.failures.values()))

    def kinds(self) -> list[FailureKind]:
        """The failures by reason and first bytes, most frequent first."""
        examples: dict[tuple[str, str], list[str]] = {}
        for failure in chain.from_iterable(self.failures.values()):
            examples.setdefault((failure.reason, failure.first_bytes), []).append(failure.key)
        kinds = [
            FailureKind(reason=reason, first_bytes=first_bytes, images=len(keys), example=keys[0])
            for (reason, first_bytes), keys in examples.items()
        ]
        return sorted(kinds, key=lambda kind: -kind.images)

    def to_json(self) -> dict[str, Any]:
        """JSON values: counts by kind, then every failure."""
        listed = [
            {"split": split, **asdict(failure)} for split, failures in self.failures.items() for failure in failures
        ]
        return {
            "store": str(self.store),
            "images": self.images,
            "failed": self.count,
            "kinds": [asdict(kind) for kind in self.kinds()],
            "tables": {split: str(path) for split, path in self.tables.items()},
            "failures": listed,
        }
