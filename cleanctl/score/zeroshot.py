"""The zero-shot scorer: what prompts alone say of each image (docs/method.md A.3).

In: Rows with TextEmbeddings. Out: ClassStats a row, and on request the cosine to the nearest prompt of the given label,
which the `similarity` mechanism thresholds. Memory: one tile of B × P logits on a CPU, neither
N × P nor N × C anywhere. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from cleanctl_kernels.arrays import Array, as_array, to_numpy

from cleanctl.errors import InputError
from cleanctl.records import TextEmbeddings
from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.scorer import Extra, Reduce, Rows, Scorer

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats, PromptBank

    from cleanctl.config import SelectConfig


def similarity(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """Cosine to the nearest prompt of the given label, in [-1, 1], against θ_similarity."""
    cosine_N = score["similarity"]
    return RuleResult(score_N=cosine_N, keep_N=cosine_N >= np.float32(config.theta_similarity))


def label_similarity(rows: Rows) -> np.ndarray:
    """(N,) float32 in [-1, 1]: cosine of each image of the part to the nearest prompt of its given label."""
    assert rows.text is not None
    text = rows.text
    require_text(text, rows.blocks.dim, rows.num_classes)
    label, device = rows.own_labels, rows.device.value
    text_PD = as_array(np.ascontiguousarray(text.embedding_PD, dtype=np.float32), device)
    count_C = np.bincount(text.class_P, minlength=rows.num_classes)
    order_P = np.argsort(text.class_P, kind="stable")
    first_C = np.cumsum(count_C) - count_C
    cosine_N = np.full(len(label), -1.0, np.float32)

    def work(part: slice, image: Array) -> None:
        label_B = label[part]
        for j in range(int(count_C.max())):
            prompt_B = order_P[first_C[label_B] + np.minimum(j, count_C[label_B] - 1)]
            cosine_B = to_numpy(vecdot(image, text_PD[as_array(prompt_B, device)], axis=1))
            np.maximum(cosine_N[part], cosine_B, out=cosine_N[part])

    data = rows.own_tiles(cache_bytes=0)
    vecdot = data.namespace.linalg.vecdot
    for _ in data.map(work, row_bytes=4 * data.dim):
        pass
    return cosine_N


class ZeroShot(Scorer):
    """P(k | i) = Σ_j exp(⟨f_i, t_kj⟩/τ) / Σ_k' …, `pooling` "mean" dividing each class by its prompt count."""

    name = "zeroshot"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {**SHARED, "similarity": similarity}
    extras: ClassVar[Mapping[str, Extra]] = {"similarity": label_similarity}
    uses_text = True
    evidence = 2

    def parameters(self) -> dict[str, Any]:
        return {"temperature": self.config.temperature, "pooling": self.config.prompt_pooling}

    def fit(self, rows: Rows, reduce: Reduce) -> PromptBank:
        assert rows.text is not None
        assert isinstance(self.config.temperature, float), "open_scorer gives the number"
        return bank_of(rows.text, rows, temperature=self.config.temperature, pooling=self.config.prompt_pooling)

    def score(self, model: PromptBank, rows: Rows) -> Iterator[tuple[slice, ClassStats]]:
        from cleanctl_kernels import zeroshot_stats

        label = as_array(rows.own_labels, rows.device.value)

        def work(part: slice, image: Array) -> tuple[slice, ClassStats]:
            return part, zeroshot_stats(image, label[part], model)

        with rows.progress.track("zero-shot", total=len(label), unit="rows") as task:
            for part, stats in rows.own_tiles().map(work, stored=True):
                yield part, stats
                task.advance(part.stop - part.start)

    def ran(self, model: PromptBank, rows: Rows) -> dict[str, Any]:
        from cleanctl_kernels import path_taken

        device = rows.device
        return {"by": f"{path_taken(device.value)} on {device.value} ({device.reason})"}


def bank_of(text: TextEmbeddings, rows: Rows, *, temperature: float, pooling: str) -> PromptBank:
    """The prompts on the rows' device; InputError where they do not fit the rows, or a class has none."""
    from cleanctl_kernels import prompt_bank

    require_text(text, rows.blocks.dim, rows.num_classes)
    return prompt_bank(
        as_array(np.ascontiguousarray(text.embedding_PD, dtype=np.float32), rows.device.value),
        text.class_P,
        num_classes=rows.num_classes,
        temperature=temperature,
        pooling=pooling,
    )


def class_logits(
    text: TextEmbeddings, rows: Rows, *, temperature: float, pooling: str
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Tile by tile: rows, (B, C) ln of what ZeroShot makes P of, and (B, C) similarity to each class's nearest prompt
    over τ. For those who need more than ClassStats tells, such as a rank."""
    from cleanctl_kernels.zeroshot import pooled_and_nearest

    bank = bank_of(text, rows, temperature=temperature, pooling=pooling)

    def work(part: slice, image: Array) -> tuple[slice, np.ndarray, np.ndarray]:
        pooled, nearest = pooled_and_nearest(image, bank)
        return part, to_numpy(pooled), to_numpy(nearest)

    yield from rows.own_tiles(cache_bytes=0).map(work, row_bytes=8 * bank.num_classes * bank.slots)


def require_text(text: TextEmbeddings, dim: int, num_classes: int) -> None:
    """InputError unless the prompts fit the images' dimension and cover every class with finite rows."""
    if text.embedding_PD.shape[1] != dim:
        raise InputError(
            f"Text embeddings have {text.embedding_PD.shape[1]} dimensions, image embeddings {dim}.",
            do="Make both with the same model.",
        )
    bad = np.flatnonzero(~np.isfinite(text.embedding_PD).all(axis=1))
    if len(bad):
        raise InputError(f"{len(bad)} text embeddings hold NaN or infinity, the first is prompt {bad[0]}.")
    count_C = np.bincount(text.class_P, minlength=num_classes)
    if len(count_C) > num_classes or (count_C == 0).any():
        missing = np.flatnonzero(count_C == 0)[:5].tolist()
        raise InputError(
            f"The prompts do not match the {num_classes} classes; classes without a prompt: {missing}.",
            do="Give at least one prompt for each class (cleanctl embed --prompts).",
        )
