"""The head of the scorer `joint`: a Gaussian model of the classes with one covariance, fitted on soft classes.

In: tiles of images and each row's soft classes r (B, C). Out: logits of a row from the model of the other fold, so that
no row has a part in its own: a linear function of the image for each fold. Two folds, dealt by a hash of the row's
number. Sums are float64, over the parts too; memory is D² + C D. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace, numbers

from cleanctl.score.joint_arrays import double, row_max, single, zeros
from cleanctl.score.scorer import Reduce

FOLDS, SHRINK = 2, 0.05
FLOOR = 1e-8  # of the variance, where all images are alike


def hashed(rows: slice) -> np.ndarray:
    """uint64: a fixed hash of the numbers of the rows."""
    number = np.arange(rows.start, rows.stop, dtype=np.uint64)
    return (number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)


def spread_sample(num_rows: int, size: int) -> np.ndarray:
    """int64, ascending: the rows with the `size` lowest hashes, or all rows where they are no more."""
    if num_rows <= size:
        return np.arange(num_rows)
    hash_N = hashed(slice(0, num_rows))
    return np.flatnonzero(hash_N <= np.partition(hash_N, size - 1)[size - 1])


def fold_of(rows: slice) -> np.ndarray:
    """int64 (N,), 0…FOLDS-1."""
    return (hashed(rows) % np.uint64(FOLDS)).astype(np.int64)


def by_fold(fold_B: np.ndarray, device: str) -> Iterator[tuple[int, Any]]:
    """Each fold and its rows, as numbers to index with."""
    for fold in range(FOLDS):
        yield fold, as_array(np.flatnonzero(fold_B == fold), device)


class Spread:
    """Σ x, Σ x xᵀ and the number of rows of each fold: what the head needs of the images alone."""

    def __init__(self, dim: int, device: str) -> None:
        self.device = device
        self._sum = zeros(device, FOLDS, dim, double=True)
        self._gram = zeros(device, FOLDS, dim, dim, double=True)
        self._rows = zeros(device, FOLDS, double=True)

    def of(self, image: Any, fold_B: np.ndarray) -> list[tuple[Any, Any, int]]:
        """The sums of some rows, which `add` adds; threads may share it."""
        owns = [image[rows] for _, rows in by_fold(fold_B, self.device)]
        return [(own.sum(axis=0), own.T @ own, len(own)) for own in owns]

    def add(self, sums: list[tuple[Any, Any, int]]) -> None:
        for fold, (total_D, gram_DD, rows) in enumerate(sums):
            self._sum[fold] += total_D
            self._gram[fold] += gram_DD
            self._rows[fold] += rows

    def finish(self, reduce: Reduce) -> None:
        self._sum, self._gram, self._rows = (reduce.sum(one) for one in (self._sum, self._gram, self._rows))
        self.mean_D = self._sum.sum(axis=0) / self._rows.sum()

    def centred(self, fold: int) -> Any:
        """Σ (x - mean) (x - mean)ᵀ of one fold, (D, D)."""
        cross = self._sum[fold][:, None] * self.mean_D[None]
        return self._gram[fold] - cross - cross.T + self._rows[fold] * (self.mean_D[:, None] * self.mean_D[None])


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Logits (x - mean) coef + shift of the classes, of a row those of its fold. coef: (D, C) float32 for each fold,
    shift: (C,)."""

    device: str
    mean_D: Any
    coef: Sequence[Any]
    shift: Sequence[Any]

    def __call__(self, image: Any, fold_B: np.ndarray) -> Any:
        """(B, C) float32"""
        out = zeros(self.device, len(image), len(self.shift[0]))
        for fold, rows in by_fold(fold_B, self.device):
            own = image[rows]
            own -= self.mean_D
            logit = own @ self.coef[fold]
            logit += self.shift[fold]
            out[rows] = logit
        return out

    def plus(self, coef_DC: Any, shift_C: Any, *, by: float, own: float) -> Linear:
        """`own` times this and `by` times the linear function x coef + shift, in one."""
        at_mean_C = single(double(self.mean_D) @ double(coef_DC)) + shift_C
        coef = [one * own + coef_DC * by for one in self.coef]
        shift = [one * own + at_mean_C * by for one in self.shift]
        return Linear(device=self.device, mean_D=self.mean_D, coef=coef, shift=shift)


class Head:
    """Add r of all rows with `of` and `add`, then `finish`; `linear` is there after that. Its logits are ln P(x | z),
    but for what all classes of a row have in common."""

    def __init__(self, spread: Spread, num_classes: int) -> None:
        self._spread, self._device, self._mean = spread, spread.device, single(spread.mean_D)
        self._sum = zeros(self._device, FOLDS, len(spread.mean_D), num_classes, double=True)
        self._rows = zeros(self._device, FOLDS, num_classes, double=True)

    def of(self, image: Any, r_BC: Any, fold_B: np.ndarray) -> list[tuple[Any, Any]]:
        """The sums of some rows, which `add` adds; threads may share it."""
        sums = []
        for _, rows in by_fold(fold_B, self._device):
            r = r_BC[rows]
            sums.append((self._centred(image, rows).T @ r, r.sum(axis=0)))
        return sums

    def add(self, sums: list[tuple[Any, Any]]) -> None:
        for fold, (sum_DC, rows_C) in enumerate(sums):
            self._sum[fold] += sum_DC
            self._rows[fold] += rows_C

    def finish(self, reduce: Reduce) -> None:
        total, rows = reduce.sum(self._sum), reduce.sum(self._rows)
        coef, shift = [], []
        for fold in range(FOLDS):
            others = [one for one in range(FOLDS) if one != fold]
            rows_C = sum(rows[one] for one in others)
            mean_DC = sum(total[one] for one in others) / (rows_C + 1)  # one more row, at the common mean
            gram_DD = sum(self._spread.centred(one) for one in others)
            cov_DD = (gram_DD - (mean_DC * rows_C) @ mean_DC.T) / rows_C.sum().clip(1.0)
            diagonal = numbers(cov_DD)
            level = float(cov_DD[diagonal, diagonal].sum()) / len(cov_DD)
            cov_DD *= 1 - SHRINK
            cov_DD[diagonal, diagonal] += SHRINK * max(level, FLOOR)
            coef_DC = namespace(cov_DD).linalg.solve(cov_DD, mean_DC)
            coef.append(single(coef_DC))
            shift.append(single(-0.5 * (mean_DC * coef_DC).sum(axis=0)))
        self.linear = Linear(device=self._device, mean_D=self._mean, coef=coef, shift=shift)
        del self._sum

    def logits(self, image: Any, fold_B: np.ndarray) -> Any:
        """(B, C) float32, the largest of a row 0."""
        out = self.linear(image, fold_B)
        out -= row_max(out)
        return out

    def _centred(self, image: Any, rows: Any) -> Any:
        own = image[rows]
        own -= self._mean
        return own
