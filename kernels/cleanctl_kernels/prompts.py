"""Prompts laid out by class for the zero-shot statistics, on any device.

Layouts of the same text embeddings, each made at its first use:
  `slabs`     column j·C' + k is prompt j of class k, classes ordered by falling prompt count, so that pooling over
              prompts is an addition of contiguous slabs and needs no padding (CPU);
  `padded_QD` row k·M + j is prompt j of class k, M a power of two, unused rows zero with bias -inf (reference);
  `tiled`     the same, but in tiles of T classes, row j·T + k of each: of a tile's logits a class's prompts then lie
              a multiple of T columns apart, where the layout of a matrix product gives them to one thread (GPU).
1/τ is folded into both, and ln(1/prompt count) of mean pooling into the bias. Leaves nothing on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cleanctl_kernels.arrays import Array, as_array_like, contiguous, namespace, to_numpy

TILE_BYTES = 4 << 20  # logits of one tile of the CPU path


@dataclass(frozen=True, kw_only=True)
class Slabs:
    """text_DQ: as above. widths: classes that have more than j prompts, for each j. place_C: class → position in a
    slab, None where the two are the same. weight_C: of mean pooling, else None."""

    text_DQ: Array
    widths: tuple[int, ...]
    place_C: Array | None
    weight_C: Array | None


@dataclass(frozen=True, kw_only=True)
class PromptBank:
    """scaled_PD: float32, prompts over τ. class_P: its class, count_C: of prompts. bound: largest possible |logit|."""

    scaled_PD: Array
    class_P: np.ndarray
    count_C: np.ndarray
    pooling: str
    bound: float
    spare: list[Array] = field(default_factory=list, repr=False)

    @property
    def num_classes(self) -> int:
        return len(self.count_C)

    @property
    def num_prompts(self) -> int:
        return len(self.class_P)

    @property
    def slots(self) -> int:
        return 1 << (int(self.count_C.max()) - 1).bit_length()

    @property
    def tile_rows(self) -> int:
        return max(1, TILE_BYTES // (4 * self.num_prompts))

    @cached_property
    def slabs(self) -> Slabs:
        count_C = self.count_C
        order_C = np.argsort(-count_C, kind="stable")
        place_C = np.argsort(order_C)
        order_P = np.argsort(self._rank_P * self.num_classes + place_C[self.class_P])
        in_order = bool((place_C == np.arange(self.num_classes)).all())
        return Slabs(
            text_DQ=contiguous(self.scaled_PD[self._there(order_P)].T),
            widths=tuple(int((count_C > j).sum()) for j in range(int(count_C.max()))),
            place_C=None if in_order else self._there(place_C),
            weight_C=self._there((1.0 / count_C).astype(np.float32)) if self.pooling == "mean" else None,
        )

    @property
    def padded_QD(self) -> Array:
        return self._padded[0]

    @property
    def bias_Q(self) -> Array:
        return self._padded[1]

    @cached_property
    def _padded(self) -> tuple[Array, Array]:
        xp, rows = namespace(self.scaled_PD), self.num_classes * self.slots
        log_weight_C = -np.log(self.count_C) if self.pooling == "mean" else np.zeros(self.num_classes)
        where_P = self.class_P * self.slots + self._rank_P
        bias_Q = np.full(rows, -np.inf, np.float32)
        bias_Q[where_P] = log_weight_C[self.class_P]
        padded_QD = xp.zeros((rows, self.scaled_PD.shape[1]), dtype=xp.float32, device=self.scaled_PD.device)
        padded_QD[self._there(where_P)] = self.scaled_PD
        return padded_QD, self._there(bias_Q)

    def tiled(self, tile_classes: int) -> tuple[Array, Array]:
        """(Q, D) float32 and bias (Q,), Q whole tiles of tile_classes · slots rows; what fills up has bias -inf."""
        if tile_classes not in self._tiled:
            xp, dim = namespace(self.scaled_PD), self.scaled_PD.shape[1]
            tiles = -(-self.num_classes // tile_classes)
            rest = tiles * tile_classes - self.num_classes
            text_QD, bias_Q = self.padded_QD, self.bias_Q
            text_QD = xp.concat([text_QD, xp.zeros((rest * self.slots, dim), dtype=xp.float32, device=text_QD.device)])
            none_Q = xp.full((rest * self.slots,), -np.inf, dtype=xp.float32, device=bias_Q.device)
            bias_Q = xp.concat([bias_Q, none_Q])
            shape = (tiles, tile_classes, self.slots)
            text_QD = xp.reshape(xp.permute_dims(xp.reshape(text_QD, (*shape, dim)), (0, 2, 1, 3)), (-1, dim))
            bias_Q = xp.reshape(xp.permute_dims(xp.reshape(bias_Q, shape), (0, 2, 1)), (-1,))
            self._tiled[tile_classes] = contiguous(text_QD), contiguous(bias_Q)
        return self._tiled[tile_classes]

    @cached_property
    def _tiled(self) -> dict[int, tuple[Array, Array]]:
        return {}

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What a kernel makes of the layouts, under a key of its own."""
        return {}

    @property
    def _rank_P(self) -> np.ndarray:
        """(P,) which prompt of its class each prompt is: 0, 1, …"""
        order = np.argsort(self.class_P, kind="stable")
        first_C = np.cumsum(self.count_C) - self.count_C
        rank_P = np.empty_like(order)
        rank_P[order] = np.arange(len(order)) - first_C[self.class_P[order]]
        return rank_P

    def _there(self, values: np.ndarray) -> Array:
        return as_array_like(values, self.scaled_PD)


def prompt_bank(
    text_PD: Array,
    class_P: Array,
    *,
    num_classes: int,
    temperature: float,
    pooling: str = "sum",
) -> PromptBank:
    """text_PD: float (P, D), L2-normalised. class_P: int, 0…C-1, every class present. pooling: sum or mean."""
    xp, class_P = namespace(text_PD), to_numpy(class_P).astype(np.int64)
    count_C = np.bincount(class_P, minlength=num_classes)
    assert int(count_C.min()) > 0, "a class without prompts"
    scaled_PD = xp.astype(text_PD, xp.float32) / temperature
    bound = float(xp.max(xp.linalg.vector_norm(scaled_PD, axis=1)))
    return PromptBank(scaled_PD=scaled_PD, class_P=class_P, count_C=count_C, pooling=pooling, bound=bound)
