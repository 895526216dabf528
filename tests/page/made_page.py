"""A page of made-up data for tests, bench and screenshots, whose columns agree with each other as a report's do."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from cleanctl.report.page import PageData, Rule, Section

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def made_page(count: int = 300, images: int = 40, seed: int = 0, **changes) -> PageData:
    """`count` rows, a fifth of them with another class suggested; the first `images` have thumbnails."""
    rng = np.random.default_rng(seed)
    label_N = np.sort(rng.integers(0, len(CLASSES), count))
    wrong_N = rng.random(count) < 0.2
    suggested_N = np.where(wrong_N, (label_N + rng.integers(1, len(CLASSES), count)) % len(CLASSES), label_N)
    p_max_N = rng.uniform(0.35, 1, count).astype(np.float32)
    p_label_N = np.where(wrong_N, rng.uniform(0, 0.3, count) * p_max_N, p_max_N).astype(np.float32)
    loss_N, ratio_N = np.log(p_label_N + 1e-6), p_label_N / p_max_N
    cut_C = np.linspace(-2, -1, len(CLASSES))
    rules = (
        Rule(
            name="zeroshot.loss",
            score_N=loss_N,
            keep_N=loss_N >= cut_C[label_N],
            cut=cut_C,
            criterion="loss belongs to the clean component with a probability of at least 0.5",
        ),
        Rule(
            name="knn.consistency",
            score_N=ratio_N,
            keep_N=ratio_N >= 0.8,
            cut=0.8,
            criterion="probability is at least 0.8 of the most probable class's",
        ),
    )
    facts = {
        "title": "Which labels to trust: made-up images",
        "subtitle": f"{count:,} images, split train, selection intersection",
        "made": "made by a test",
        "store": "5f" * 32,
        "split": "train",
        "selection": "intersection",
        "classes": CLASSES,
        "key": [f"{CLASSES[label]}/{row:06d}.jpg" for row, label in enumerate(label_N)],
        "label_N": label_N,
        "keep_N": rules[0].keep_N & rules[1].keep_N,
        "suggested_N": suggested_N,
        "p_label_N": p_label_N,
        "p_max_N": p_max_N,
        "rules": rules,
        "truth_N": np.where(wrong_N, suggested_N, label_N),
        "digest_N": rng.integers(0, 256, (count, 8), dtype=np.uint8),
        "gain_N": (1 - np.abs(ratio_N - 0.8)).astype(np.float32),
        "thumbnails": {row: drawn_image(row, int(label_N[row])) for row in range(min(images, count))},
        "before": (Section(id="summary", title="Summary", html=SUMMARY),),
    }
    return PageData(**{**facts, **changes})


SUMMARY = """<p class="note">Made-up numbers, to see how text, tables and galleries look.</p>
<div class="strip"><button data-row="3"><img data-row="3" alt="cat/3"></button></div>
<p><a href="#table?class=cat&amp;kept=no">cats that were dropped</a></p>
"""


def drawn_image(row: int, label: int) -> bytes:
    """A JPEG file of 96 pixels: a colour by class, a shape by row."""
    rng = np.random.default_rng(row)
    image = Image.new("RGB", (96, 96), tuple(40 + 20 * ((label * k) % 10) for k in (3, 7, 9)))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, size = rng.integers(0, 70, 3)
        draw.ellipse((x, y, x + 10 + size // 2, y + 10 + size // 2), fill=tuple(rng.integers(60, 250, 3).tolist()))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
