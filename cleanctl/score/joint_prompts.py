"""Zero-shot logits for the scorer `joint`: computed of all prompts once, and kept for its later passes.

In: tiles of images, first all of them by `first`, then again by what `mixing` returns. Out: L (B, C), ln of what
zero-shot makes P of, the largest of a row 0; then a G + b L. Where N × C float32 fit KEPT_BYTES, L is kept whole. With
one prompt a class it is a linear function of the image, as G is, and the two are one product. Else of each row its
given label's L and its TOP highest are kept, and a linear function, the best of the sample's, stands for the others: it
costs a product with C columns instead of one a prompt. Leaves nothing on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from cleanctl_kernels.arrays import as_array, at_least_, namespace, namespace_on, numbers

from cleanctl.score.joint_arrays import highest, index, row_max, single, zeros
from cleanctl.score.joint_head import Linear
from cleanctl.score.scorer import Reduce

if TYPE_CHECKING:
    from cleanctl_kernels import PromptBank

TOP = 16
LOWEST_MASS = 1e-30
Mixing = Callable[
    [slice, Any, np.ndarray], Any
]  # of rows, their images and folds: a G + b L (B, C), up to a number a row
SCRATCH_BYTES = 4 << 20  # logits of all prompts that are held at once; they stay in a CPU's cache
RIDGE, FIT_ROWS = 1e-6, 512  # rows whose sums float32 adds up


class Logits:
    """(B, C) and each row's highest logit of a prompt, of float32 images."""

    def __init__(self, bank: PromptBank, device: str) -> None:
        self._bank, self._numpy = bank, namespace_on(device) is np
        # Of one prompt a class, in the order of the classes.
        self.text_DC: Any = bank.slabs.text_DQ if bank.num_prompts == bank.num_classes else None
        if self._numpy:
            self._slab_DQ = bank.slabs.text_DQ
            self._rows = max(16, SCRATCH_BYTES // (4 * self._slab_DQ.shape[1]))
            self._own = threading.local()
            self._order_C, self._weight_C = bank.slabs.place_C, bank.slabs.weight_C

    def __call__(self, image_BD: Any) -> tuple[Any, Any]:
        if not self._numpy:
            from cleanctl_kernels.zeroshot import class_logits

            return class_logits(image_BD, self._bank), image_BD.new_zeros(len(image_BD))
        if self.text_DC is not None:
            logit_BC = image_BD @ self.text_DC
            high_B = logit_BC.max(axis=1)
            logit_BC -= high_B[:, None]
            return logit_BC, high_B
        logit_BC = np.empty((len(image_BD), self._bank.num_classes), np.float32)
        high_B = np.empty(len(image_BD), np.float32)
        if not hasattr(self._own, "scratch_BQ"):  # each thread has one
            self._own.scratch_BQ = np.empty((self._rows, self._slab_DQ.shape[1]), np.float32)
        for start in range(0, len(image_BD), self._rows):
            rows = slice(start, start + self._rows)
            self._tile(image_BD[rows], logit_BC[rows], high_B[rows], self._own.scratch_BQ)
        return logit_BC, high_B

    def _tile(self, image_BD: np.ndarray, out_BC: np.ndarray, high_B: np.ndarray, scratch_BQ: np.ndarray) -> None:
        mass_BQ = np.matmul(image_BD, self._slab_DQ, out=scratch_BQ[: len(image_BD)])
        np.max(mass_BQ, axis=1, out=high_B)
        mass_BQ -= high_B[:, None]
        np.exp(mass_BQ, out=mass_BQ)
        widths, classes = self._bank.slabs.widths, self._bank.num_classes
        pooled_BC, start = mass_BQ[:, :classes], classes
        for width in widths[1:]:
            pooled_BC[:, :width] += mass_BQ[:, start : start + width]
            start += width
        if self._weight_C is not None:
            pooled_BC = pooled_BC if self._order_C is None else pooled_BC[:, self._order_C]
            pooled_BC = pooled_BC * self._weight_C
        elif self._order_C is not None:
            pooled_BC = pooled_BC[:, self._order_C]
        np.maximum(pooled_BC, LOWEST_MASS, out=out_BC)
        np.log(out_BC, out=out_BC)


def logits_of(
    bank: PromptBank, label_B: np.ndarray, device: str, *, whole: bool
) -> WholeLogits | LinearLogits | TopLogits:
    """whole: whether N × C are kept."""
    logits = Logits(bank, device)
    if whole:
        return WholeLogits(logits, len(label_B), bank.num_classes, device)
    return TopLogits(logits, label_B, bank.num_classes, device) if logits.text_DC is None else LinearLogits(logits)


def lowered(logit_BC: Any) -> Any:
    """The same with the largest of each row 0, and none below ln LOWEST_MASS; in place."""
    logit_BC -= row_max(logit_BC)
    return at_least_(logit_BC, float(np.log(LOWEST_MASS)))


class WholeLogits:
    """L of all rows."""

    def __init__(self, logits: Logits, num_rows: int, num_classes: int, device: str) -> None:
        self._logits = logits
        self._kept_NC = zeros(device, num_rows, num_classes)

    def first(self, part: slice, image_BD: Any) -> tuple[Any, Any]:
        logit_BC, high_B = self._logits(image_BD)
        self._kept_NC[part] = lowered(logit_BC)
        return self._kept_NC[part] + 0.0, high_B

    def finish(self, image_MD: Any, logit_MC: Any, high_M: Any, reduce: Reduce) -> None:
        pass

    def mixing(self, head: Linear, of_head: float, of_prompts: float) -> Mixing:
        def mix(part: slice, image_BD: Any, fold_B: np.ndarray) -> Any:
            mix_BC = head(image_BD, fold_B)
            mix_BC -= row_max(mix_BC)
            mix_BC *= of_head
            mix_BC += self._kept_NC[part] * of_prompts
            return mix_BC

        return mix


class LinearLogits:
    """L where each class has one prompt: a linear function of the image, of which nothing is kept."""

    def __init__(self, logits: Logits) -> None:
        self._logits = logits

    def first(self, part: slice, image_BD: Any) -> tuple[Any, Any]:
        logit_BC, high_B = self._logits(image_BD)
        return lowered(logit_BC), high_B

    def finish(self, image_MD: Any, logit_MC: Any, high_M: Any, reduce: Reduce) -> None:
        pass

    def mixing(self, head: Linear, of_head: float, of_prompts: float) -> Mixing:
        coef_DC = self._logits.text_DC
        assert coef_DC is not None, "the other bank mixes itself"
        mixed = head.plus(coef_DC, coef_DC[0] * 0.0, own=of_head, by=of_prompts)
        return lambda part, image_BD, fold_B: mixed(image_BD, fold_B)


class TopLogits:
    """See the head of this file. _beyond_NK: what the kept classes' L has beyond the linear function, once the first
    mix has found it; L itself before that."""

    def __init__(self, logits: Logits, label_B: np.ndarray, num_classes: int, device: str) -> None:
        self._logits, self._label, self._top = logits, as_array(label_B, device), min(TOP, num_classes)
        self._device = device
        count = len(label_B)
        self._beyond_NK = zeros(device, count, self._top + 1)
        self._class_NK = as_array(np.zeros((count, self._top + 1), np.int32), device)
        self._mixed = False

    def first(self, part: slice, image_BD: Any) -> tuple[Any, Any]:
        """L, and each row's number that makes it the logit."""
        logit_BC, high_B = self._logits(image_BD)
        xp = namespace(logit_BC)
        most_B1 = row_max(logit_BC)
        column_BK = xp.concat([self._label[part][:, None], highest(logit_BC, self._top)], axis=1)
        row_B1 = numbers(logit_BC)[:, None]
        self._class_NK[part] = column_BK
        self._beyond_NK[part] = logit_BC[row_B1, column_BK] + high_B[:, None]
        return lowered(logit_BC), high_B + most_B1[:, 0]

    def finish(self, image_MD: Any, logit_MC: Any, high_M: Any, reduce: Reduce) -> None:
        """Of the part's rows of the sample: the images, and what `first` returned."""
        xp, dim, classes = namespace(logit_MC), image_MD.shape[1], logit_MC.shape[1]
        gram_DD, cross_DC = (zeros(self._device, dim + 1, size, double=True) for size in (dim + 1, classes))
        for start in range(0, len(image_MD), FIT_ROWS):
            rows = slice(start, start + FIT_ROWS)
            row_BD = xp.concat([image_MD[rows], image_MD[rows, :1] * 0.0 + 1.0], axis=1)
            gram_DD += row_BD.T @ row_BD
            cross_DC += row_BD.T @ (logit_MC[rows] + high_M[rows, None])
        gram_DD, cross_DC = reduce.sum(gram_DD), reduce.sum(cross_DC)
        diagonal = numbers(gram_DD)
        gram_DD[diagonal, diagonal] += RIDGE * float(gram_DD[diagonal, diagonal].sum()) / len(gram_DD)
        found_DC = xp.linalg.solve(gram_DD, cross_DC)
        self._coef_DC, self._shift_C = single(found_DC[:-1]), single(found_DC[-1])

    def mixing(self, head: Linear, of_head: float, of_prompts: float) -> Mixing:
        """The first mix takes the linear function apart from the head's, all later ones in one product."""
        if self._mixed:
            mixed = head.plus(self._coef_DC, self._shift_C, own=of_head, by=of_prompts)
        first, self._mixed = not self._mixed, True

        def mix(part: slice, image_BD: Any, fold_B: np.ndarray) -> Any:
            class_BK = index(self._class_NK[part])
            if first:
                mix_BC = self._first_mix(part, image_BD, class_BK)
                mix_BC *= of_prompts
                mix_BC += head(image_BD, fold_B) * of_head
            else:
                mix_BC = mixed(image_BD, fold_B)
            row_B1 = numbers(mix_BC)[:, None]  # a class that is kept twice is written twice
            mix_BC[row_B1, class_BK] = mix_BC[row_B1, class_BK] + self._beyond_NK[part] * of_prompts
            return mix_BC

        return mix

    def _first_mix(self, part: slice, image_BD: Any, class_BK: Any) -> Any:
        linear_BC = image_BD @ self._coef_DC
        linear_BC += self._shift_C
        self._beyond_NK[part] -= linear_BC[numbers(linear_BC)[:, None], class_BK]
        return linear_BC
