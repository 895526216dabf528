"""The zero-shot scorer: what prompts alone say of each image (docs/method.md A.3).

In: EmbeddingBlocks, labels (N,), TextEmbeddings. Out: ClassPosterior, and on request the cosine to the nearest prompt
of the given label, which the `similarity` mechanism thresholds. Memory: one tile of B × P logits on a CPU, neither
N × P nor N × C anywhere. Leaves nothing on disk.
"""

from __future__ import annotations

import numpy as np

from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks, TextEmbeddings
from cleanctl.score.blocks import Float32Blocks, PosteriorWriter, require_labels


def zeroshot_posterior(
    blocks: EmbeddingBlocks,
    label_N: np.ndarray,
    text: TextEmbeddings,
    *,
    num_classes: int,
    temperature: float = 0.07,
    pooling: str = "sum",
    device: str = "cpu",
    progress: Progress = SILENT,
) -> ClassPosterior:
    """P(k | i) = Σ_j exp(⟨f_i, t_kj⟩/τ) / Σ_k' …, `pooling` "mean" dividing each class by its prompt count.

    label_N: int, 0…C-1. Raises InputError on non-finite embeddings (rows named) and on classes without a prompt.
    """
    import torch
    from cleanctl_kernels import prompt_bank, zeroshot_stats

    require_text(text, blocks.dim, num_classes)
    label = torch.from_numpy(require_labels(label_N, blocks.num_rows, num_classes)).to(device)
    bank = prompt_bank(
        torch.from_numpy(np.ascontiguousarray(text.embedding_PD, dtype=np.float32)).to(device),
        torch.from_numpy(text.class_P.astype(np.int64)).to(device),
        num_classes=num_classes,
        temperature=temperature,
        pooling=pooling,
    )
    writer = PosteriorWriter(blocks.num_rows)
    with progress.track("zero-shot", total=blocks.num_rows, unit="rows") as task:
        for rows, image in Float32Blocks(blocks, device=device, cache_bytes=0):
            writer.put(rows, zeroshot_stats(image, label[rows], bank))
            task.advance(rows.stop - rows.start)
    return writer.posterior


def label_similarity(
    blocks: EmbeddingBlocks, label_N: np.ndarray, text: TextEmbeddings, *, num_classes: int, device: str = "cpu"
) -> np.ndarray:
    """(N,) float32 in [-1, 1]: cosine of each image to the nearest prompt of its given label."""
    import torch

    require_text(text, blocks.dim, num_classes)
    label = require_labels(label_N, blocks.num_rows, num_classes)
    text_PD = torch.from_numpy(np.ascontiguousarray(text.embedding_PD, dtype=np.float32)).to(device)
    count_C = np.bincount(text.class_P, minlength=num_classes)
    order_P = np.argsort(text.class_P, kind="stable")
    first_C = np.cumsum(count_C) - count_C
    similarity = np.full(blocks.num_rows, -1.0, np.float32)
    for rows, image in Float32Blocks(blocks, device=device, cache_bytes=0):
        label_B = label[rows]
        for j in range(int(count_C.max())):
            prompt_B = order_P[first_C[label_B] + np.minimum(j, count_C[label_B] - 1)]
            cosine_B = (image * text_PD[torch.from_numpy(prompt_B).to(device)]).sum(dim=1).cpu().numpy()
            np.maximum(similarity[rows], cosine_B, out=similarity[rows])
    return similarity


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
