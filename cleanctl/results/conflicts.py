"""What `conflicts` returns."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class ConflictCount:
    """kind: "exact", "near", "label", "placeholder" or "leak:SPLIT". A group, and an image, may be of several kinds.

    images: of the split itself that are in such groups; of a leak, those with a copy in the other split.
    """

    kind: str
    groups: int
    images: int


@dataclass(frozen=True, kw_only=True)
class LargestGroup:
    """centre: the key of the image that all others are copies of. labels: class → images, by falling count."""

    number: int
    size: int
    kinds: tuple[str, ...]
    centre: str
    labels: dict[str, int]
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConflictsSummary(Result):
    """count: readable images of the split. duplicates: images that a group has beside the one to keep.

    against: the splits it was compared with. search: how candidates were found. compared_by: how they were compared.
    unreadable: images that could be read by embed and cannot now.
    """

    split: str
    against: tuple[str, ...]
    count: int
    groups: int
    duplicates: int
    counts: tuple[ConflictCount, ...]
    largest: tuple[LargestGroup, ...]
    search: str
    candidates: int
    compared_by: str
    unreadable: int
    seconds: float
    out: str | None = None
