"""What of an image tower is trained, as `--tune` names it; clip/tune does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cleanctl.errors import UsageError
from cleanctl.meant import meant

# Name → what it trains, in words for a person.
TUNES = {
    "vpt-deep": "prompt tokens at the entry of each block",
    "vpt-shallow": "prompt tokens at the entry of the first block",
    "lora": "low-rank additions to q and v of each block",
    "adapter": "a bottleneck behind the MLP of each block",
    "ssf": "a scale and a shift at four places of each block",
    "bias": "every bias",
    "partial": "the last K blocks, as in partial:2",
    "full": "all blocks",
}


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """docs/method.md C.1.

    last: K of `partial:K`, 0 for the others. tokens: of each VPT prompt. rank: of LoRA. bottleneck: of the adapter.
    With their defaults LoRA and the adapter have about as many numbers as VPT-deep's. published: the released code's
    own starts, none of which is the untuned model: an adapter whose output replaces the MLP branch, scales and shifts
    drawn with deviation 0.02, and √(width/rank) times larger LoRA factors.
    """

    name: str
    last: int = 0
    tokens: int = 20
    rank: int = 4
    bottleneck: int = 8
    published: bool = False

    def __post_init__(self) -> None:
        assert self.name in TUNES, self.name
        assert min(self.tokens, self.rank, self.bottleneck) > 0
        assert (self.last > 0) == (self.name == "partial"), self

    def __str__(self) -> str:
        return f"{self.name}:{self.last}" if self.last else self.name

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TuneSettings:
        return cls(**values)


def spelled() -> tuple[str, ...]:
    """The names as a person types them."""
    return tuple("partial:K" if name == "partial" else name for name in TUNES)


def parse_tune(text: str, *, published: bool = False, also: tuple[str, ...] = ()) -> TuneSettings:
    """`vpt-deep`, `partial:2`, … → settings. Raises UsageError for any other text; `also`: what else it may suggest."""
    name, colon, count = text.partition(":")
    if name not in TUNES:
        raise UsageError(
            f"--tune is {text!r}, which is not known{meant(name, (*also, *TUNES))}",
            do=f"Give one of: {', '.join((*also, *spelled()))}.",
        )
    if name == "partial" and not (count.isascii() and count.isdigit() and 0 < int(count) < 1000):
        raise UsageError(f"--tune is {text!r}.", do="Say how many of the last blocks, e.g. --tune partial:1")
    if name != "partial" and colon:
        raise UsageError(f"--tune is {text!r}, but {name} takes no number.", do=f"Give --tune {name}")
    return TuneSettings(name=name, last=int(count or 0), published=published)
