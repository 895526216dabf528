"""The head of the scorer `joint`: a Gaussian model of the classes with one covariance, fitted on soft classes.

In: tiles of images and each row's soft classes r (B, C). Out: logits of a row from the model of the other fold, so that
no row has a part in its own. Two folds, dealt by a hash of the row's number. Sums are float64, over the parts too;
memory is D² + C D. Leaves nothing on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cleanctl.score.scorer import Reduce

if TYPE_CHECKING:
    import torch

FOLDS, SHRINK = 2, 0.05
FLOOR = 1e-8  # of the variance, where all images are alike


def hashed(rows: slice) -> np.ndarray:
    """uint64: a fixed hash of the numbers of the rows."""
    number = np.arange(rows.start, rows.stop, dtype=np.uint64)
    return (number * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)


def fold_of(rows: slice) -> np.ndarray:
    """int64 (N,), 0…FOLDS-1."""
    return (hashed(rows) % np.uint64(FOLDS)).astype(np.int64)


class Spread:
    """Σ x, Σ x xᵀ and the number of rows of each fold: what the head needs of the images alone."""

    def __init__(self, dim: int, device: str) -> None:
        import torch

        self._sum = torch.zeros(FOLDS, dim, dtype=torch.float64, device=device)
        self._gram = torch.zeros(FOLDS, dim, dim, dtype=torch.float64, device=device)
        self._rows = torch.zeros(FOLDS, dtype=torch.float64, device=device)

    def add(self, image: torch.Tensor, fold_B: torch.Tensor) -> None:
        for fold in range(FOLDS):
            own = image[fold_B == fold]
            self._sum[fold] += own.sum(dim=0)
            self._gram[fold] += own.T @ own
            self._rows[fold] += len(own)

    def finish(self, reduce: Reduce) -> None:
        self._sum, self._gram, self._rows = (reduce.sum(one) for one in (self._sum, self._gram, self._rows))
        self.mean_D = self._sum.sum(dim=0) / self._rows.sum()

    def centred(self, fold: int) -> torch.Tensor:
        """Σ (x - mean) (x - mean)ᵀ of one fold, (D, D)."""
        import torch

        cross = torch.outer(self._sum[fold], self.mean_D)
        return self._gram[fold] - cross - cross.T + self._rows[fold] * torch.outer(self.mean_D, self.mean_D)


class Head:
    """Add r of all rows with `add`, then `finish`; `logits` may be asked for after that."""

    def __init__(self, spread: Spread, num_classes: int) -> None:
        import torch

        dim, device = len(spread.mean_D), spread.mean_D.device
        self._spread, self._mean = spread, spread.mean_D.float()
        self._sum = torch.zeros(FOLDS, dim, num_classes, dtype=torch.float64, device=device)
        self._rows = torch.zeros(FOLDS, num_classes, dtype=torch.float64, device=device)

    def add(self, image: torch.Tensor, r_BC: torch.Tensor, fold_B: torch.Tensor) -> None:
        centred = image - self._mean
        for fold in range(FOLDS):
            own = fold_B == fold
            self._sum[fold] += centred[own].T @ r_BC[own]
            self._rows[fold] += r_BC[own].sum(dim=0)

    def finish(self, reduce: Reduce) -> None:
        import torch

        self._sum, self._rows = reduce.sum(self._sum), reduce.sum(self._rows)
        self._coef, self._shift = [], []
        for fold in range(FOLDS):
            others = [one for one in range(FOLDS) if one != fold]
            rows_C = self._rows[others].sum(dim=0)
            mean_DC = self._sum[others].sum(dim=0) / (rows_C + 1)  # one more row, at the common mean
            gram_DD = torch.stack([self._spread.centred(one) for one in others]).sum(dim=0)
            cov_DD = (gram_DD - (mean_DC * rows_C) @ mean_DC.T) / rows_C.sum().clamp(min=1.0)
            level = (cov_DD.trace() / len(cov_DD)).clamp(min=FLOOR)
            cov_DD = (1 - SHRINK) * cov_DD
            cov_DD.diagonal().add_(SHRINK * level)
            coef_DC = torch.linalg.solve(cov_DD, mean_DC)
            self._coef.append(coef_DC.float())
            self._shift.append((0.5 * (mean_DC * coef_DC).sum(dim=0)).float())
        del self._sum

    def logits(self, image: torch.Tensor, fold_B: torch.Tensor) -> torch.Tensor:
        """(B, C) float32, the largest of a row 0."""
        import torch

        out = torch.empty(len(image), self._coef[0].shape[1], device=image.device)
        centred = image - self._mean
        for fold in range(FOLDS):
            own = fold_B == fold
            out[own] = torch.addmm(-self._shift[fold], centred[own], self._coef[fold])
        out -= out.amax(dim=1, keepdim=True)
        return out
