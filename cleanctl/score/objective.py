"""The logistic objective, its gradient and its curvature, streamed over tiles (docs/method.md A.4).

    Σ_i w_i · CE(softmax(W x_i + b), y_i) + ½/C ‖W‖²,   w_i = N / (#classes · N_{y_i})

In: Float32Blocks (N, D), labels, which rows to use. Out: value and gradient at any x of shape (D + 1, K), and a
preconditioner for `cleanctl.score.lbfgs`. Memory: one tile of K × B. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.scorer import ALONE, Reduce

if TYPE_CHECKING:
    import torch

CURVATURE_ROWS_PER_DIM = 24  # rows per dimension that estimate curvature; they shape the path, not the optimum
REFINE_AFTER = (2, 4)  # steps: a first guess, then near the optimum; oftener does not pay
KEPT_BYTES = 64 << 20  # of a sample's probabilities
TILE_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}


class Problem:
    """The objective over (D + 1, K): coefficients of centred features, last row the intercepts.

    Centring moves a constant between W and the unpenalised b, so the optimum is the same; it takes the common mean of
    CLIP's embeddings, by far their largest direction, out of the curvature.
    """

    def __init__(
        self,
        data: Float32Blocks,
        label_N: np.ndarray,
        use_N: np.ndarray,
        class_K: np.ndarray,
        count_K: np.ndarray,
        inverse_l2: float,
        reduce: Reduce = ALONE,
    ) -> None:
        """count_K: over all parts of the rows; the other arrays are of the part that `data` holds."""
        import torch

        position_C = np.zeros(int(class_K[-1]) + 1, np.int64)
        position_C[class_K] = np.arange(len(class_K))
        self.data, self.device, self.num_classes, self.reduce = data, data.device, len(class_K), reduce
        device = data.device
        weight_K = count_K.sum() / (len(count_K) * count_K)
        target_N = position_C[np.minimum(label_N, len(position_C) - 1)]
        weight_N = np.where(use_N, weight_K[target_N], 0.0)
        self.target_N = torch.from_numpy(target_N).to(device)
        self.weight_N = torch.from_numpy(weight_N.astype(np.float32)).to(device)
        self.total_weight = float(count_K.sum())
        # scikit-learn fits two classes with one vector u and ½‖u‖²; as two vectors ±u/2 that is twice the penalty.
        self.l2 = (2.0 if len(class_K) == 2 else 1.0) / inverse_l2
        num_rows = int(reduce.sum(torch.tensor(data.num_rows, dtype=torch.float64)))
        self.stride = max(1, num_rows // (CURVATURE_ROWS_PER_DIM * data.dim))
        self.mean_D: torch.Tensor = torch.zeros(data.dim, device=device)

    def start(self) -> tuple[torch.Tensor, float, torch.Tensor]:
        """Value and gradient at zero, where every probability is 1/K, and the preconditioner: one light pass."""
        import torch

        dim, classes = self.data.dim, self.num_classes
        sum_KD = torch.zeros(classes, dim, device=self.device, dtype=torch.float64)
        gram_DD = torch.zeros(dim, dim, device=self.device, dtype=torch.float64)
        sampled_weight = torch.zeros((), device=self.device, dtype=torch.float64)
        for rows, image in self.data:
            weight_B, target_B = self.weight_N[rows], self.target_N[rows]
            part_KD = torch.zeros(classes, dim, device=self.device)
            part_KD.index_add_(0, target_B, image * weight_B[:, None])
            sum_KD += part_KD
            few, few_weight = image[:: self.stride], weight_B[:: self.stride]
            gram_DD += (few * few_weight[:, None]).T @ few
            sampled_weight += few_weight.double().sum()
        sum_KD, gram_DD = self.reduce.sum(sum_KD), self.reduce.sum(gram_DD)
        total_D = sum_KD.sum(dim=0)
        mean_D = total_D / self.total_weight
        self.mean_D = mean_D.float()
        covariance_DD = gram_DD / self.reduce.sum(sampled_weight).clamp(min=1e-30) - torch.outer(mean_D, mean_D)
        value_D, vector_DD = torch.linalg.eigh(covariance_DD)
        self.spectrum_D, self.basis_DD = value_D.clamp(min=0.0).float(), vector_DD.float()
        even = self.total_weight * (1.0 - 1.0 / classes) / classes  # every p(1-p) is that of 1/K
        self._set_curvature(
            torch.full((classes,), even, device=self.device), torch.zeros(classes, dim, device=self.device)
        )
        class_weight_K = torch.zeros(classes, device=self.device, dtype=torch.float64)
        class_weight_K.index_add_(0, self.target_N, self.weight_N.double())
        class_weight_K = self.reduce.sum(class_weight_K)
        gradient = torch.zeros(dim + 1, classes, device=self.device, dtype=torch.float64)
        gradient[:-1] = -(sum_KD - class_weight_K[:, None] * mean_D).T
        gradient[-1] = self.total_weight / classes - class_weight_K
        x = torch.zeros(dim + 1, classes, device=self.device)
        return x, self.total_weight * float(np.log(classes)), gradient.float()

    def sampled(self, data: Float32Blocks, row_M: np.ndarray) -> Problem:
        """The same problem on some of its rows, which `data` holds, weighted so as to stand for all; after `start`."""
        import torch

        few = copy(self)
        few.data, few.stride = data, 1
        chosen = torch.from_numpy(row_M).to(self.device)
        few.target_N, few.weight_N = self.target_N[chosen], self.weight_N[chosen]
        few.weight_N *= self.total_weight / float(self.reduce.sum(few.weight_N.double().sum()))
        return few

    def refine(self, x: torch.Tensor) -> None:
        """The curvature at x, class by class: H_k = Σ_i w_i p_ik (1 - p_ik) x_i x_iᵀ + I/C.

        Where a class is in doubt its features lie about a centre of their own, so H_k is close to
        h_k (S + c_k c_kᵀ) + I/C with the common covariance S: a diagonal in S's basis and a rank-one update.
        """
        import torch

        mass_K = torch.zeros(self.num_classes, device=self.device, dtype=torch.float64)
        sum_KD = torch.zeros(self.num_classes, self.data.dim, device=self.device, dtype=torch.float64)
        sampled_weight = torch.zeros((), device=self.device, dtype=torch.float64)
        for rows, image in tiles(self.data, self.num_classes):
            few, weight_B = image[:: self.stride] - self.mean_D, self.weight_N[rows][:: self.stride]
            prob_BK = torch.softmax(torch.addmm(x[-1], few, x[:-1]), dim=1)
            prob_BK *= (1.0 - prob_BK) * weight_B[:, None]
            mass_K += prob_BK.sum(dim=0)
            sum_KD += prob_BK.T @ few
            sampled_weight += weight_B.double().sum()
        mass_K, sum_KD = self.reduce.sum(mass_K).clamp(min=1e-12), self.reduce.sum(sum_KD)
        scale = self.total_weight / max(float(self.reduce.sum(sampled_weight)), 1e-30)
        self._set_curvature((mass_K * scale).float(), (sum_KD / mass_K[:, None]).float())

    def _set_curvature(self, curvature_K: torch.Tensor, centre_KD: torch.Tensor) -> None:
        """Prepares (h_k (S + c_k c_kᵀ) + I/C)⁻¹ by Sherman-Morrison in the basis of S."""
        self.curvature_K = curvature_K.clamp(min=1e-3 * float(curvature_K.max()))
        self.inverse_DK = 1.0 / (self.spectrum_D[:, None] * self.curvature_K + self.l2)
        centre_DK = self.basis_DD.T @ centre_KD.T
        self.bent_DK = self.inverse_DK * centre_DK
        self.bent_norm_K = 1.0 / self.curvature_K + (centre_DK * self.bent_DK).sum(dim=0)

    def precondition(self, gradient: torch.Tensor) -> torch.Tensor:
        import torch

        turned_DK = self.basis_DD.T @ gradient[:-1]
        solved_DK = self.inverse_DK * turned_DK
        solved_DK -= self.bent_DK * ((self.bent_DK * turned_DK).sum(dim=0) / self.bent_norm_K)
        return torch.cat([self.basis_DD @ solved_DK, gradient[-1:] / self.curvature_K])

    def evaluate(self, x: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Objective and gradient: two matrix products a block."""
        import torch

        coef_DK, intercept_K = x[:-1], x[-1] - self.mean_D @ x[:-1]
        coef_KD = coef_DK.T.contiguous()
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        gradient_KD = torch.zeros(coef_KD.shape, device=self.device, dtype=torch.float64)
        residual_K = torch.zeros(self.num_classes, device=self.device, dtype=torch.float64)
        for rows, image in tiles(self.data, self.num_classes):
            weight_B, target_1B = self.weight_N[rows], self.target_N[rows][None]
            # Classes × rows: both products then run along long contiguous rows, a third faster than rows × classes.
            prob_KB = torch.addmm(intercept_K[:, None], coef_KD, image.T)
            prob_KB -= prob_KB.amax(dim=0)
            target_logit_B = prob_KB.gather(0, target_1B).squeeze(0)
            mass_B = prob_KB.exp_().sum(dim=0)
            loss += (weight_B * (mass_B.log() - target_logit_B)).sum(dtype=torch.float64)
            prob_KB *= weight_B / mass_B
            prob_KB.scatter_add_(0, target_1B, -weight_B[None])
            gradient_KD += prob_KB @ image
            residual_K += prob_KB.sum(dim=1)
        loss, residual_K = self.reduce.sum(loss), self.reduce.sum(residual_K)
        gradient_DK = self.reduce.sum(gradient_KD).T
        gradient_DK -= torch.outer(self.mean_D.double(), residual_K)
        gradient_DK += self.l2 * coef_DK
        value = float(loss) + 0.5 * self.l2 * float(coef_DK.double().square().sum())
        return value, torch.cat([gradient_DK, residual_K[None]]).float()

    def curvature_at(self, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """v ↦ the second derivative at x, times v: two matrix products a block, a third where x's probabilities do not
        fit KEPT_BYTES."""
        import torch

        coef_KD = x[:-1].T.contiguous()
        intercept_K = x[-1] - coef_KD @ self.mean_D

        def probabilities(image: torch.Tensor) -> torch.Tensor:
            return torch.softmax(torch.addmm(intercept_K[:, None], coef_KD, image.T), dim=0)

        fits = 4 * self.num_classes * self.data.num_rows <= KEPT_BYTES
        kept = {rows.start: probabilities(image) for rows, image in self._halves()} if fits else {}

        def times(v: torch.Tensor) -> torch.Tensor:
            turn_KD = v[:-1].T.contiguous()
            shift_K = v[-1] - turn_KD @ self.mean_D
            bent_KD, bent_K = torch.zeros_like(turn_KD), torch.zeros_like(shift_K)
            for rows, image in self._halves():
                prob_KB = kept[rows.start] if fits else probabilities(image)
                turn_KB = torch.addmm(shift_K[:, None], turn_KD, image.T)
                turn_KB -= torch.linalg.vecdot(prob_KB, turn_KB, dim=0)
                turn_KB *= prob_KB
                turn_KB *= self.weight_N[rows]
                bent_KD += turn_KB @ image
                bent_K += turn_KB.sum(dim=1)
            bent_KD, bent_K = self.reduce.sum(bent_KD), self.reduce.sum(bent_K)
            bent_KD -= torch.outer(bent_K, self.mean_D)
            bent_KD += self.l2 * turn_KD
            return torch.cat([bent_KD.T, bent_K[None]])

        return times

    def _halves(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Tiles for work that holds two of them."""
        return tiles(self.data, 2 * self.num_classes)

    def centred(self, coef_KD: np.ndarray, intercept_K: np.ndarray) -> torch.Tensor:
        """(D + 1, K) x of a model that another solver found; the inverse of `uncentred`."""
        import torch

        coef_DK = torch.from_numpy(np.ascontiguousarray(coef_KD.T, dtype=np.float32)).to(self.device)
        shift_K = torch.from_numpy(np.asarray(intercept_K, np.float64)).to(self.device)
        shift_K = shift_K + self.mean_D.double() @ coef_DK.double()
        return torch.cat([coef_DK, shift_K[None].float()])

    def uncentred(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        intercept_K = x[-1].double() - self.mean_D.double() @ x[:-1].double()
        return x[:-1].cpu().numpy(), intercept_K.float().cpu().numpy()


def tiles(data: Float32Blocks, num_classes: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks cut so that rows × classes float32 fit TILE_BYTES."""
    size = max(256, TILE_BYTES[data.device] // (4 * num_classes))
    for rows, image in data:
        for start in range(rows.start, rows.stop, size):
            part = slice(start, min(start + size, rows.stop))
            yield part, image[part.start - rows.start : part.stop - rows.start]
