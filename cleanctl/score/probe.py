"""The scorer `probe`: how a label fares while a linear head learns the labels on the embeddings, by SGD; no image pass.

    P(z | i) = softmax(W̄ x_i + b̄)            W̄, b̄: mean of the head's weights after each of its epochs

The area under the margin averages a label's margin over the epochs of a training (docs/training.md). A linear head's
logits, averaged over its epochs, are those of its averaged weights: so one head gives it for any image, and its
averaging over early epochs, in which right labels are learnt before wrong ones, is that of the recorded `dynamics`.

In: Rows. Out: ClassStats a row; the rule `margin` beside the shared ones. The head learns from SAMPLE rows at most, in
an order that is fixed; they are held as float32, of parts by the first one, which learns. Leaves nothing on disk.

Source: G. Pleiss, T. Zhang, E. Elenberg, K. Weinberger, Identifying mislabeled data using the area under the margin
ranking, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, numbers, to_numpy
from cleanctl_kernels.threads import one_blas_thread

from cleanctl.score.joint_arrays import double, single, softmax, zeros
from cleanctl.score.joint_head import spread_sample
from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.scorer import Reduce, Rows, Scorer

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats

    from cleanctl.config import SelectConfig

SAMPLE = 1 << 17
EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 10, 128, 0.1, 0.9, 1e-4
LENGTH = 4.0  # root mean square of the centred images' norm, as the head sees them
NEVER = -1e30  # logit of a class that no label has
TINY = 2.0**-126


def margin(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Logit of the given label less the highest of another class; kept where it is the highest."""
    keep_N = score["suggested"] == label_N
    rival_N = np.where(keep_N, score["p_second"], score["p_max"])
    score_N = score["log_p_label"] - np.log(np.maximum(rival_N, np.float32(TINY)))
    return RuleResult(score_N=score_N.astype(np.float32), keep_N=keep_N)


@dataclass(frozen=True, kw_only=True)
class ProbeModel:
    """Float32. coef_DC, shift_C: of images as they are stored. rows: that it learnt from."""

    coef_DC: Array
    shift_C: Array
    rows: int


class Probe(Scorer):
    name = "probe"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {"margin": margin, **SHARED}
    evidence = 2

    def fit(self, rows: Rows, reduce: Reduce) -> ProbeModel:
        """The first part learns the head from what all parts read of the sample."""
        chosen_M = spread_sample(rows.blocks.num_rows, SAMPLE)
        image_MD = reduce.gather(_own_sample(rows, chosen_M))
        device = rows.device.value
        coef_DC, shift_C = reduce.from_first(lambda: _learnt(rows, chosen_M, image_MD))
        return ProbeModel(coef_DC=as_array(coef_DC, device), shift_C=as_array(shift_C, device), rows=len(chosen_M))

    def score(self, model: ProbeModel, rows: Rows) -> Iterator[tuple[slice, ClassStats]]:
        from cleanctl_kernels.zeroshot import stats_of_logits

        label = as_array(rows.own_labels, rows.device.value)

        def work(part: slice, image: Array) -> tuple[slice, ClassStats]:
            logit_BC = image @ model.coef_DC
            logit_BC += model.shift_C
            return part, stats_of_logits(logit_BC, label[part])

        yield from rows.own_tiles(cache_bytes=0).map(work, row_bytes=8 * rows.num_classes)

    def ran(self, model: ProbeModel, rows: Rows) -> dict[str, Any]:
        device = rows.device
        by = f"{EPOCHS} epochs of SGD on {model.rows:,} rows, on {device.value} ({device.reason})"
        return {"by": by, "rows": model.rows}


def _learnt(rows: Rows, chosen_M: np.ndarray, sample_MD: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """coef_DC and shift_C of ProbeModel. sample_MD is changed."""
    assert sample_MD is not None, "only the first part has the sample"
    device = rows.device.value
    image_MD = as_array(sample_MD, device)
    mean_D = image_MD.mean(axis=0)
    image_MD -= mean_D
    scale = LENGTH / max(float((image_MD**2).sum(axis=1).mean()) ** 0.5, 1e-6)
    image_MD *= scale
    label_M = rows.label_N[chosen_M]
    with rows.progress.track("probe", total=EPOCHS, unit="epochs") as task, one_blas_thread():
        head = _Head(rows.blocks.dim, np.bincount(rows.label_N, minlength=rows.num_classes) > 0, device)
        for epoch in range(EPOCHS):
            order_M = np.random.default_rng(epoch).permutation(len(chosen_M))
            head.learn(image_MD, label_M, order_M, epoch)
            task.advance()
    coef_DC = head.mean_coef * scale
    shift_C = head.mean_shift - double(mean_D) @ coef_DC
    return to_numpy(single(coef_DC)), to_numpy(single(shift_C))


class _Head:
    """present_C: classes that some label has; the others never get a probability."""

    def __init__(self, dim: int, present_C: np.ndarray, device: str) -> None:
        classes = len(present_C)
        self._device, self._past = device, 0
        self._coef, self._shift = zeros(device, dim, classes), zeros(device, classes)
        self._coef_step, self._shift_step = zeros(device, dim, classes), zeros(device, classes)
        self.mean_coef, self.mean_shift = zeros(device, dim, classes, double=True), zeros(device, classes, double=True)
        self._never_C = as_array(np.where(present_C, 0.0, NEVER).astype(np.float32), device)

    def learn(self, image_MD: Array, label_M: np.ndarray, order_M: np.ndarray, epoch: int) -> None:
        """One epoch in batches of one size, and its weights into the mean."""
        count = max(1, len(order_M) // BATCH)
        for number, batch in enumerate(np.array_split(order_M, count)):
            rate = RATE * 0.5 * (1 + np.cos(np.pi * (epoch + number / count) / EPOCHS))
            image, own = image_MD[as_array(batch, self._device)], as_array(label_M[batch], self._device)
            p_BC = image @ self._coef
            p_BC += self._shift + self._never_C
            p_BC = softmax(p_BC)
            p_BC[numbers(p_BC), own] -= 1.0
            p_BC /= len(batch)
            self._coef_step *= MOMENTUM
            self._coef_step += image.T @ p_BC
            self._coef_step += DECAY * self._coef
            self._coef -= rate * self._coef_step
            self._shift_step *= MOMENTUM
            self._shift_step += p_BC.sum(axis=0)
            self._shift -= rate * self._shift_step
        self._past += 1
        self.mean_coef += (self._coef - self.mean_coef) / self._past
        self.mean_shift += (self._shift + self._never_C - self.mean_shift) / self._past


def _own_sample(rows: Rows, chosen_M: np.ndarray) -> np.ndarray:
    """(M, D) float32: those of the sample that are the part's rows; it reads no others."""
    own_M = chosen_M[(chosen_M >= rows.own.start) & (chosen_M < rows.own.stop)] - rows.own.start
    image_MD = np.empty((len(own_M), rows.blocks.dim), np.float32)

    def work(part: slice, image: Array) -> None:
        first, last = np.searchsorted(own_M, (part.start, part.stop))
        image_MD[first:last] = to_numpy(image[as_array(own_M[first:last] - part.start, rows.device.value)])

    for _ in rows.own_tiles(cache_bytes=0).map(work):
        pass
    return image_MD
