"""All readable images that take part, those of the split first and then those of the splits it is compared with.

An image of the pool has a number; images of the same bytes (content digests of the store) are twins, and one of them,
the first, stands for all in the search. Nothing on disk.

Legend: M images of the pool, of which the first `own` are of the split itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cleanctl.store import Split

HASHED_ROWS = 8_192


@dataclass(frozen=True)
class Part:
    """One split's readable images: pool numbers first…first + len(row_K) stand for its rows row_K (int64)."""

    split: Split
    row_K: np.ndarray
    first: int

    @property
    def stop(self) -> int:
        return self.first + len(self.row_K)


class Pool:
    def __init__(self, splits: list[Split]) -> None:
        self.parts: list[Part] = []
        for split in splits:
            self.parts.append(Part(split, split.ok_rows(), self.parts[-1].stop if self.parts else 0))
        self.own = self.parts[0].stop
        self.dim = splits[0].dim

    def __len__(self) -> int:
        return self.parts[-1].stop

    @cached_property
    def label_M(self) -> np.ndarray:
        """int32."""
        return np.concatenate([part.split.label_N()[part.row_K] for part in self.parts])

    @cached_property
    def part_M(self) -> np.ndarray:
        """int32: which of `parts` an image belongs to."""
        return np.repeat(np.arange(len(self.parts), dtype=np.int32), [len(part.row_K) for part in self.parts])

    @cached_property
    def row_M(self) -> np.ndarray:
        """int64: an image's row in its split."""
        return np.concatenate([part.row_K for part in self.parts])

    @cached_property
    def twin_M(self) -> np.ndarray:
        """int64: the first image of the same bytes, itself where it is the first. Rows without a digest have none."""
        digest = np.concatenate([part.split.fingerprints().digest_N16[part.row_K] for part in self.parts])
        known_U = np.flatnonzero(digest.any(axis=1))
        twin_M = np.arange(len(self))
        twin_M[known_U] = known_U[_first_of_equals(digest[known_U].view(np.uint64))]
        return twin_M

    def same_embedding_M(self) -> np.ndarray:
        """int64: the first image with the very same embedding, itself where it is the first."""
        hash_M2 = np.empty((len(self), 2), np.uint64)
        weight_D2 = np.random.default_rng(0).integers(1, 2**63, (self.dim, 2), dtype=np.uint64) | np.uint64(1)
        for number_B, image_BD in self.blocks():
            for start in range(0, len(number_B), HASHED_ROWS):
                part = slice(start, start + HASHED_ROWS)
                bits_BD = (image_BD[part] + np.float16(0)).view(np.uint16)  # minus zero is zero
                hash_M2[number_B[part]] = bits_BD.astype(np.uint64) @ weight_D2  # modulo 2^64
        return _first_of_equals(hash_M2)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(pool numbers (B,), embeddings (B, D) float16) of all images, in order; a split's block at a time."""
        for part in self.parts:
            for rows, image_BD in part.split.blocks():
                yield np.arange(part.first + rows.start, part.first + rows.stop), image_BD


def _first_of_equals(value_M2: np.ndarray) -> np.ndarray:
    """(M,) int64: for each row the lowest number of a row with the same two values."""
    order_M = np.lexsort((np.arange(len(value_M2)), value_M2[:, 1], value_M2[:, 0]))
    begins_M = np.ones(len(value_M2), bool)
    begins_M[1:] = (np.diff(value_M2[order_M].view(np.int64), axis=0) != 0).any(axis=1)
    first_M = np.empty(len(value_M2), np.int64)
    first_M[order_M] = order_M[np.flatnonzero(begins_M)[np.cumsum(begins_M) - 1]] if len(value_M2) else 0
    return first_M
