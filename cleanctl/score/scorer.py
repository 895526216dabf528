"""What a scorer is: a model fitted to the rows, then six numbers a row (ClassStats); and what it is given.

Both steps are a map over blocks. `fit` makes as many passes as it needs; each adds its blocks' float64 partial sums and
hands them to `reduce.sum`, so that processes which pass over a part of the rows each fit one and the same model.
`score` maps each block on its own. A new scorer is one file with a subclass of Scorer, and one line of
`cleanctl.registry.SCORERS` or an entry point of `cleanctl.scorers`. Nothing on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks, TextEmbeddings
from cleanctl.runtime import Choice
from cleanctl.score.blocks import Float32Blocks, PartBlocks, PosteriorWriter, require_labels
from cleanctl.score.mechanisms import SHARED, Mechanism

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats
    from cleanctl_kernels.arrays import Array

    from cleanctl.config import SelectConfig

Made = TypeVar("Made")


class Reduce:
    """What the parts of the rows, each in a process of its own, tell one another. All of them call the same methods in
    the same order. This one serves one process that passes over all rows.

    parts: how many there are. number: which of them this one is, from 0.
    """

    parts: int = 1
    number: int = 0

    def sum(self, value: Array) -> Array:
        """The sum over the parts, the same to the last bit in each, in an array that the caller may change. Of numpy
        on a CPU, else of torch."""
        return value

    def gather(self, value_N: np.ndarray, *, at: int = 0) -> np.ndarray | None:
        """In part `at` the rows of all parts, one part after the other; None in the others."""
        return value_N

    def from_first(self, make: Callable[[], Made]) -> Made:
        """What `make` gives in the first part, which alone calls it. It travels as a pickle."""
        return make()


ALONE = Reduce()
CPU = Choice(value="cpu", reason="the default")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a scorer sees: the N readable rows of a split, and which of them it passes over itself.

    label_N: int64, 0…C-1 (InputError otherwise). text: only for a scorer that `uses_text`. part: None is all rows.
    """

    blocks: EmbeddingBlocks
    label_N: np.ndarray
    num_classes: int
    text: TextEmbeddings | None = None
    part: slice | None = None
    device: Choice = CPU
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        label_N = require_labels(self.label_N, self.blocks.num_rows, self.num_classes)
        object.__setattr__(self, "label_N", label_N)

    @property
    def own(self) -> slice:
        return slice(0, self.blocks.num_rows) if self.part is None else self.part

    @property
    def own_labels(self) -> np.ndarray:
        return self.label_N[self.own]

    def own_tiles(self, *, cache_bytes: int | None = None) -> Float32Blocks:
        """The rows of the part, numbered from 0, as float32 on the device. Without `cache_bytes` the same for all who
        ask, so that what one scorer has read and kept the next one need not read."""
        return self._tiles if cache_bytes is None else self._open_tiles(cache_bytes)

    @cached_property
    def _tiles(self) -> Float32Blocks:
        return self._open_tiles(None)

    def _open_tiles(self, cache_bytes: int | None) -> Float32Blocks:
        blocks = self.blocks if self.part is None else PartBlocks(blocks=self.blocks, part=self.part)
        return Float32Blocks(blocks, device=self.device.value, cache_bytes=cache_bytes)


Extra = Callable[[Rows], np.ndarray]  # (N,) float32 of the part's rows


class Scorer(ABC):
    """mechanisms: what a rule SCORER.MECHANISM may be. extras: for those of them that need an array of their own, what
    computes it; it is stored as a score under that name. evidence: of a strategy's scorers the one with the
    highest fills suggested_label, p_label, p_max and the estimate of the noise. usual_temperature: where
    `--temperature` is not given, of a scorer that uses text; the config that it gets holds the number. in_parts: false
    for one that must see all rows itself; `select` then refuses to share them among processes. revision: raised where
    the same parameters give another score than before, so that stored ones are not taken for it."""

    name: ClassVar[str]
    mechanisms: ClassVar[Mapping[str, Mechanism]] = SHARED
    extras: ClassVar[Mapping[str, Extra]] = {}
    uses_text: ClassVar[bool] = False
    usual_temperature: ClassVar[Literal["model", "paper"]] = "paper"
    evidence: ClassVar[int] = 0
    in_parts: ClassVar[bool] = True
    revision: ClassVar[int] = 1

    def __init__(self, config: SelectConfig) -> None:
        self.config = config

    def parameters(self) -> dict[str, Any]:
        """What its score depends on besides the store; JSON values, part of the stored score's name."""
        return {}

    @abstractmethod
    def fit(self, rows: Rows, reduce: Reduce) -> Any:
        """The model. Raises InputError on rows it cannot use, UsageError on options they do not allow."""

    @abstractmethod
    def score(self, model: Any, rows: Rows) -> Iterator[tuple[slice | np.ndarray, ClassStats]]:
        """Every row of the part exactly once: which rows, numbered from the part's first, and their statistics."""

    def ran(self, model: Any, rows: Rows) -> dict[str, Any]:
        """What ran, as JSON values: `by` in words for people, and whatever was measured."""
        return {"by": f"{self.name} on {rows.device.value} ({rows.device.reason})"}

    def findings(self, model: Any, rows: Rows) -> dict[str, Any]:
        """What the model says of all rows together, as JSON values; stored with the score."""
        return {}

    def posterior(self, model: Any, rows: Rows) -> ClassPosterior:
        """The scores of the part's rows, put together."""
        writer = PosteriorWriter(rows.own.stop - rows.own.start)
        for which, stats in self.score(model, rows):
            writer.put(which, stats)
        return writer.posterior
