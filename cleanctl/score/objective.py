"""The logistic objective, its gradient and its curvature, streamed over tiles (docs/method.md A.4).

    Σ_i w_i · CE(softmax(W x_i + b), y_i) + ½/C ‖W‖²,   w_i = N / (#classes · N_{y_i})

In: Float32Blocks (N, D), labels, which rows to use. Out: value and gradient at any x of shape (D + 1, K), and a
preconditioner for `cleanctl.score.lbfgs`. Sums are float32 within a tile, float64 over the tiles, in their order.
Memory: K × B of the tiles that threads work on. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, at_least_, contiguous, put, to_numpy

from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.scorer import ALONE, Reduce

CURVATURE_ROWS_PER_DIM = 24  # rows per dimension that estimate curvature; they shape the path, not the optimum
REFINE_AFTER = (2, 4)  # steps: a first guess, then near the optimum; oftener does not pay
KEPT_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}  # of a sample's probabilities


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
        position_C = np.zeros(int(class_K[-1]) + 1, np.int64)
        position_C[class_K] = np.arange(len(class_K))
        self.data, self.device, self.num_classes, self.reduce = data, data.device, len(class_K), reduce
        self.xp = data.namespace
        weight_K = count_K.sum() / (len(count_K) * count_K)
        target_N = position_C[np.minimum(label_N, len(position_C) - 1)]
        weight_N = weight_K.astype(np.float32)[target_N]
        weight_N[~use_N] = 0.0
        self.target_N = as_array(target_N, data.device)
        self.weight_N = as_array(weight_N, data.device)
        self.total_weight = float(count_K.sum())
        # scikit-learn fits two classes with one vector u and ½‖u‖²; as two vectors ±u/2 that is twice the penalty.
        self.l2 = (2.0 if len(class_K) == 2 else 1.0) / inverse_l2
        num_rows = int(reduce.sum(as_array(np.array(data.num_rows, np.float64), data.device)))
        self.stride = max(1, num_rows // (CURVATURE_ROWS_PER_DIM * data.dim))
        self.mean_D = self._zeros(data.dim, single=True)

    def start(self) -> tuple[Array, float, Array]:
        """Value and gradient at zero, where every probability is 1/K, and the preconditioner: one light pass."""
        xp, dim, classes = self.xp, self.data.dim, self.num_classes

        def work(rows: slice, image: Array) -> tuple[Array, ...]:
            weight_B, target_B = self.weight_N[rows], self.target_N[rows]
            own_KB = xp.zeros((classes, len(image)), dtype=xp.float32, device=image.device)
            put(own_KB.T, target_B, weight_B)
            few, few_weight = image[:: self.stride], weight_B[:: self.stride]
            gram_DD = (few * few_weight[:, None]).T @ few
            return own_KB @ image, xp.sum(own_KB, axis=1, dtype=xp.float64), gram_DD, self._sum(few_weight)

        zeros = self._zeros(classes, dim), self._zeros(classes), self._zeros(dim, dim), self._zeros()
        sum_KD, class_weight_K, gram_DD, sampled_weight = self._total(self._map(work), *zeros)
        total_D = xp.sum(sum_KD, axis=0)
        mean_D = total_D / self.total_weight
        self.mean_D = self._single(mean_D)
        covariance_DD = gram_DD / max(float(sampled_weight), 1e-30) - mean_D[:, None] * mean_D
        value_D, vector_DD = xp.linalg.eigh(covariance_DD)
        self.spectrum_D, self.basis_DD = self._single(at_least_(value_D, 0.0)), self._single(vector_DD)
        even = self.total_weight * (1.0 - 1.0 / classes) / classes  # every p(1-p) is that of 1/K
        self._set_curvature(self._zeros(classes, single=True) + even, self._zeros(classes, dim, single=True))
        slope_DK = -(sum_KD - class_weight_K[:, None] * mean_D).T
        gradient = xp.concat([slope_DK, (self.total_weight / classes - class_weight_K)[None]])
        x = self._zeros(dim + 1, classes, single=True)
        return x, self.total_weight * float(np.log(classes)), self._single(gradient)

    def sampled(self, data: Float32Blocks, row_M: np.ndarray) -> Problem:
        """The same problem on some of its rows, which `data` holds, weighted so as to stand for all; after `start`."""
        few = copy(self)
        few.data, few.stride = data, 1
        chosen = as_array(row_M, self.device)
        few.target_N, few.weight_N = self.target_N[chosen], self.weight_N[chosen]
        few.weight_N *= self.total_weight / float(self.reduce.sum(self._sum(few.weight_N)))
        return few

    def refine(self, x: Array) -> None:
        """The curvature at x, class by class: H_k = Σ_i w_i p_ik (1 - p_ik) x_i x_iᵀ + I/C.

        Where a class is in doubt its features lie about a centre of their own, so H_k is close to
        h_k (S + c_k c_kᵀ) + I/C with the common covariance S: a diagonal in S's basis and a rank-one update.
        """
        xp, coef_KD, intercept_K = self.xp, contiguous(x[:-1].T), x[-1]

        def work(rows: slice, image: Array) -> tuple[Array, ...]:
            few, weight_B = image[:: self.stride] - self.mean_D, self.weight_N[rows][:: self.stride]
            prob_KB = self._probabilities(few, coef_KD, intercept_K)
            prob_KB *= (1.0 - prob_KB) * weight_B
            return xp.sum(prob_KB, axis=1), prob_KB @ few, self._sum(weight_B)

        zeros = self._zeros(self.num_classes), self._zeros(self.num_classes, self.data.dim), self._zeros()
        mass_K, sum_KD, sampled_weight = self._total(self._map(work), *zeros)
        mass_K = at_least_(mass_K, 1e-12)
        scale = self.total_weight / max(float(sampled_weight), 1e-30)
        self._set_curvature(self._single(mass_K * scale), self._single(sum_KD / mass_K[:, None]))

    def _set_curvature(self, curvature_K: Array, centre_KD: Array) -> None:
        """Prepares (h_k (S + c_k c_kᵀ) + I/C)⁻¹ by Sherman-Morrison in the basis of S."""
        xp = self.xp
        self.curvature_K = at_least_(curvature_K, 1e-3 * float(xp.max(curvature_K)))
        self.inverse_DK = 1.0 / (self.spectrum_D[:, None] * self.curvature_K + self.l2)
        centre_DK = self.basis_DD.T @ centre_KD.T
        self.bent_DK = self.inverse_DK * centre_DK
        self.bent_norm_K = 1.0 / self.curvature_K + xp.sum(centre_DK * self.bent_DK, axis=0)

    def precondition(self, gradient: Array) -> Array:
        xp = self.xp
        turned_DK = self.basis_DD.T @ gradient[:-1]
        solved_DK = self.inverse_DK * turned_DK
        solved_DK -= self.bent_DK * (xp.sum(self.bent_DK * turned_DK, axis=0) / self.bent_norm_K)
        return xp.concat([self.basis_DD @ solved_DK, gradient[-1:] / self.curvature_K])

    def evaluate(self, x: Array) -> tuple[float, Array]:
        """Objective and gradient: two matrix products a block."""
        from cleanctl_kernels import softmax_residual

        xp, coef_DK, intercept_K = self.xp, x[:-1], x[-1] - self.mean_D @ x[:-1]
        coef_KD = contiguous(coef_DK.T)

        def work(rows: slice, image: Array) -> tuple[Array, ...]:
            weight_B, target_B = self.weight_N[rows], self.target_N[rows]
            # Classes × rows: both products then run along long contiguous rows, a third faster than rows × classes.
            residual_KB = coef_KD @ image.T
            loss_B = softmax_residual(residual_KB, intercept_K, target_B, weight_B)
            return self._sum(loss_B), residual_KB @ image, xp.sum(residual_KB, axis=1)

        zeros = self._zeros(), self._zeros(*coef_KD.shape), self._zeros(self.num_classes)
        loss, gradient_KD, residual_K = self._total(self._map(work), *zeros)
        gradient_DK = gradient_KD.T
        gradient_DK -= xp.astype(self.mean_D, xp.float64)[:, None] * residual_K
        gradient_DK += self.l2 * coef_DK
        value = float(loss) + 0.5 * self.l2 * float(xp.sum(xp.square(coef_DK), dtype=xp.float64))
        return value, self._single(xp.concat([gradient_DK, residual_K[None]]))

    def curvature_at(self, x: Array) -> Callable[[Array], Array]:
        """v ↦ the second derivative at x, times v: two matrix products a block, a third where x's probabilities do not
        fit KEPT_BYTES."""
        xp, coef_KD = self.xp, contiguous(x[:-1].T)
        intercept_K = x[-1] - coef_KD @ self.mean_D

        def probabilities(rows: slice, image: Array) -> tuple[int, Array]:
            return rows.start, self._probabilities(image, coef_KD, intercept_K)

        fits = 4 * self.num_classes * self.data.num_rows <= KEPT_BYTES[self.device.partition(":")[0]]
        kept = dict(self._map(probabilities, held=2)) if fits else {}

        def times(v: Array) -> Array:
            turn_KD = contiguous(v[:-1].T)
            shift_K = v[-1] - turn_KD @ self.mean_D

            def work(rows: slice, image: Array) -> tuple[Array, ...]:
                prob_KB = kept[rows.start] if fits else probabilities(rows, image)[1]
                turn_KB = turn_KD @ image.T
                turn_KB += shift_K[:, None]
                turn_KB -= xp.sum(prob_KB * turn_KB, axis=0)
                turn_KB *= prob_KB
                turn_KB *= self.weight_N[rows]
                return turn_KB @ image, xp.sum(turn_KB, axis=1)

            zeros = self._zeros(*turn_KD.shape), self._zeros(self.num_classes)
            bent_KD, bent_K = self._total(self._map(work, held=2), *zeros)
            bent_KD -= bent_K[:, None] * self.mean_D
            bent_KD += self.l2 * turn_KD
            return self._single(xp.concat([bent_KD.T, bent_K[None]]))

        return times

    def _probabilities(self, image: Array, coef_KD: Array, intercept_K: Array) -> Array:
        """(K, B) softmax of each row's logits."""
        xp = self.xp
        prob_KB = coef_KD @ image.T
        prob_KB += intercept_K[:, None]
        prob_KB -= xp.max(prob_KB, axis=0)
        xp.exp(prob_KB, out=prob_KB)
        prob_KB /= xp.sum(prob_KB, axis=0)
        return prob_KB

    def centred(self, coef_KD: np.ndarray, intercept_K: np.ndarray) -> Array:
        """(D + 1, K) x of a model that another solver found; the inverse of `uncentred`."""
        coef_DK = coef_KD.T.astype(np.float64)
        shift_K = intercept_K + to_numpy(self.mean_D) @ coef_DK
        return as_array(np.concatenate([coef_DK, shift_K[None]]).astype(np.float32), self.device)

    def uncentred(self, x: Array) -> tuple[np.ndarray, np.ndarray]:
        at = to_numpy(x)
        intercept_K = at[-1] - to_numpy(self.mean_D).astype(np.float64) @ at[:-1]
        return at[:-1], intercept_K.astype(np.float32)

    def _map(self, work: Callable[[slice, Array], Any], *, held: int = 1) -> Iterator[Any]:
        """held: how many arrays of K a row `work` holds."""
        return self.data.map(work, row_bytes=4 * held * self.num_classes)

    def _total(self, parts: Iterator[tuple[Array, ...]], *total: Array) -> list[Array]:
        """Sums over the tiles, added to zeros of float64, and over the parts of the rows."""
        sums = list(total)
        for part in parts:
            for index, one in enumerate(part):
                sums[index] += one
        return [self.reduce.sum(one) for one in sums]

    def _zeros(self, *shape: int, single: bool = False) -> Array:
        xp = self.xp
        return xp.zeros(shape, dtype=xp.float32 if single else xp.float64, device=self.device)

    def _sum(self, values: Array) -> Array:
        return self.xp.sum(values, dtype=self.xp.float64)

    def _single(self, values: Array) -> Array:
        return self.xp.astype(values, self.xp.float32)
