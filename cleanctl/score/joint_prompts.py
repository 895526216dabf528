"""Zero-shot logits for the scorer `joint`: computed of all prompts once, and kept for its later passes.

In: tiles of images, first all of them by `first`, then again by `again`. Out: L (B, C), ln of what zero-shot makes P
of, the largest of a row 0. Where N × C float32 fit KEPT_BYTES, L is kept whole. Else of each row its given label's and
its TOP highest are kept, and a linear function of the image, the best of the sample's, stands for the others: with one
prompt a class it is what they are, with more a close one, and it costs a product with C columns instead of one a
prompt. Leaves nothing on disk.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace, namespace_on, numbers

from cleanctl.score.joint_arrays import double, highest, row_max, single, zeros
from cleanctl.score.scorer import Reduce

if TYPE_CHECKING:
    from cleanctl_kernels import PromptBank

TOP = 16
LOWEST_MASS = 1e-30
SCRATCH_BYTES = 4 << 20  # logits of all prompts that are held at once; they stay in a CPU's cache
RIDGE = 1e-6


class Logits:
    """(B, C) and each row's highest logit of a prompt, of float32 images."""

    def __init__(self, bank: PromptBank, device: str) -> None:
        self._bank, self._numpy = bank, namespace_on(device) is np
        if self._numpy:
            self._slab_DQ = bank.slabs.text_DQ
            self._rows = max(16, SCRATCH_BYTES // (4 * self._slab_DQ.shape[1]))
            self._own = threading.local()
            self._order_C, self._weight_C = bank.slabs.place_C, bank.slabs.weight_C

    def __call__(self, image_BD: Any) -> tuple[Any, Any]:
        if not self._numpy:
            from cleanctl_kernels.zeroshot import class_logits

            return class_logits(image_BD, self._bank), image_BD.new_zeros(len(image_BD))
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


def lowered(logit_BC: Any) -> Any:
    """The same with the largest of each row 0, and none below ln LOWEST_MASS; in place."""
    logit_BC -= row_max(logit_BC)
    return logit_BC.clip(float(np.log(LOWEST_MASS)))


class WholeLogits:
    """L of all rows."""

    def __init__(self, logits: Logits, label_B: np.ndarray, num_classes: int, device: str) -> None:
        self._logits = logits
        self._kept_NC = zeros(device, len(label_B), num_classes)

    def first(self, part: slice, image_BD: Any) -> Any:
        self._kept_NC[part] = lowered(self._logits(image_BD)[0])
        return self._kept_NC[part] + 0.0

    def finish(self, image_MD: Any, reduce: Reduce) -> None:
        pass

    def again(self, part: slice, image_BD: Any) -> Any:
        return self._kept_NC[part]


class TopLogits:
    """See the head of this file."""

    def __init__(self, logits: Logits, label_B: np.ndarray, num_classes: int, device: str) -> None:
        self._logits, self._label, self._top = logits, as_array(label_B, device), min(TOP, num_classes)
        count = len(label_B)
        self._value_NK = zeros(device, count, self._top + 1)
        self._class_NK = as_array(np.zeros((count, self._top + 1), np.int32), device)

    def first(self, part: slice, image_BD: Any) -> Any:
        logit_BC, high_B = self._logits(image_BD)
        xp = namespace(logit_BC)
        column_BK = xp.concat([self._label[part][:, None], highest(logit_BC, self._top)], axis=1)
        row_B1 = numbers(logit_BC)[:, None]
        self._class_NK[part] = column_BK
        self._value_NK[part] = logit_BC[row_B1, column_BK] + high_B[:, None]
        return lowered(logit_BC)

    def finish(self, image_MD: Any, reduce: Reduce) -> None:
        """image_MD: the part's rows of the sample."""
        logit_MC, high_M = self._logits(image_MD)
        logit_MC += high_M[:, None]
        xp = namespace(logit_MC)
        ones_M1 = double(logit_MC[:, :1] * 0 + 1)
        row_MD = xp.concat([double(image_MD), ones_M1], axis=1)
        gram_DD = reduce.sum(row_MD.T @ row_MD)
        cross_DC = reduce.sum(row_MD.T @ double(logit_MC))
        diagonal = numbers(gram_DD)
        gram_DD[diagonal, diagonal] += RIDGE * float(gram_DD[diagonal, diagonal].sum()) / len(gram_DD)
        found_DC = xp.linalg.solve(gram_DD, cross_DC)
        self._coef_DC, self._shift_C = single(found_DC[:-1]), single(found_DC[-1])

    def again(self, part: slice, image_BD: Any) -> Any:
        logit_BC = image_BD @ self._coef_DC
        logit_BC += self._shift_C
        logit_BC[numbers(logit_BC)[:, None], self._class_NK[part]] = self._value_NK[part]
        return lowered(logit_BC)
