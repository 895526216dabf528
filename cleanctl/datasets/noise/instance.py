"""Instance-dependent noise as DeFT's loaders generate it (docs/method.md D.2), from the images themselves.

Sample i flips with probability q_i, drawn from a normal distribution around the rate (deviation 0.1), cut to [0, 1].
Where it flips to is drawn from softmax(x_i · W[y_i]) without y_i: x is the image's raw pixels 0…255, W random normal,
C × d × C. NumPy's legacy generator draws q, W and then a number a sample, so that a seed gives the same labels on every
machine; DeFT always seeds with 1. W is drawn a class at a time and never held whole: d · C doubles are in memory, and
a batch of images.

x is the image as it is, channel first, where all are of at most 32 × 32 pixels (CIFAR); others are resized to 64 × 64
as OpenCV's linear resize does, channel last (CUB, Cars).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cleanctl.errors import InputError, UsageError
from cleanctl.images.decode import UnreadableImage, decode_rgb
from cleanctl.progress import Task
from cleanctl.records import Storage

DEVIATION = 0.1
SMALL, RESIZED = 32, 64  # pixels of a side
_BATCH = 256


@dataclass
class PixelVectors:
    """The images of some keys as vectors; `unreadable` counts those that could not be read."""

    files: Storage
    keys: Sequence[str]
    shape: tuple[int, int] = field(init=False)  # height, width
    unreadable: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        for image in self._images(range(min(len(self.keys), 1000))):
            if image is not None:
                self.shape = image.shape[:2]
                self.unreadable = 0
                return
        raise InputError(f"No image of {self.files.location!r} can be read.", so="--noise idn is made from images.")

    @property
    def raw(self) -> bool:
        return max(self.shape) <= SMALL

    @property
    def size(self) -> int:
        """d, numbers an image."""
        return 3 * self.shape[0] * self.shape[1] if self.raw else 3 * RESIZED * RESIZED

    def of(self, row_B: np.ndarray) -> np.ndarray:
        """float64 (B, d), 0…255; NaN where an image could not be read."""
        vector_BD = np.full((len(row_B), self.size), np.nan)
        for index, image in enumerate(self._images(row_B.tolist())):
            if image is not None:
                vector_BD[index] = self._vector(image, self.keys[row_B[index]])
        return vector_BD

    def _images(self, rows: Sequence[int]) -> Iterator[np.ndarray | None]:
        for content in self.files.read([self.keys[row] for row in rows]):
            try:
                yield None if content.reason else np.array(decode_rgb(content.data))
            except UnreadableImage:
                yield None

    def _vector(self, image_HWC: np.ndarray, key: str) -> np.ndarray:
        if not self.raw:
            return resized(image_HWC, RESIZED).reshape(-1)
        if image_HWC.shape[:2] != self.shape:
            raise InputError(
                f"{key!r} has {image_HWC.shape[1]} × {image_HWC.shape[0]} pixels, others {self.shape[1]} × "
                f"{self.shape[0]}.",
                so="--noise idn needs images of one size where they are small.",
                do="Use another kind of noise.",
            )
        return image_HWC.transpose(2, 0, 1).reshape(-1)


def instance_noise(
    label_N: np.ndarray, vectors: PixelVectors, *, rate: float, classes: int, seed: int, task: Task
) -> np.ndarray:
    """New int32 labels (N,). A sample whose image cannot be read keeps its label. UsageError below two classes."""
    from scipy.stats import truncnorm

    if classes < 2:
        raise UsageError("--noise idn needs two classes or more.", do="Use another source.")
    draw = np.random.RandomState(seed)
    low, high = -rate / DEVIATION, (1 - rate) / DEVIATION
    flip_N = truncnorm.rvs(low, high, loc=rate, scale=DEVIATION, size=len(label_N), random_state=draw)
    before = draw.get_state()
    for _ in range(classes):
        draw.randn(vectors.size, classes)  # W is passed over, to come at what is drawn after it
    uniform_N = draw.random_sample(len(label_N))
    draw.set_state(before)
    out_N = np.array(label_N, dtype=np.int32)
    for own in range(classes):
        # DeFT computes in float32 on a GPU; float64 gives the same labels whatever the machine's order of sums.
        weight_DC = draw.randn(vectors.size, classes).astype(np.float32).astype(np.float64)
        row_M = np.flatnonzero(label_N == own)
        for start in range(0, len(row_M), _BATCH):
            row_B = row_M[start : start + _BATCH]
            vector_BD = vectors.of(row_B)
            read_B = np.isfinite(vector_BD[:, 0])
            vectors.unreadable += int((~read_B).sum())
            row_R = row_B[read_B]
            prob_RC = _flip_probability(vector_BD[read_B] @ weight_DC, flip_N[row_R], own)
            out_N[row_R] = _sample(prob_RC, uniform_N[row_R])
            task.advance(len(row_B))
    return out_N


def _flip_probability(logit_BC: np.ndarray, flip_B: np.ndarray, own: int) -> np.ndarray:
    """float64 (B, C): 1 - q on the own class, q times the softmax over the others."""
    logit_BC[:, own] = -np.inf
    prob_BC = np.exp(logit_BC - logit_BC.max(axis=1, keepdims=True))
    prob_BC *= flip_B[:, None] / prob_BC.sum(axis=1, keepdims=True)
    prob_BC[:, own] += 1 - flip_B
    return prob_BC


def _sample(prob_BC: np.ndarray, uniform_B: np.ndarray) -> np.ndarray:
    """The class that `numpy.random.choice` gives for these probabilities and that number: (B,)."""
    cumulated_BC = prob_BC.cumsum(axis=1)
    cumulated_BC /= cumulated_BC[:, -1:]
    return (cumulated_BC <= uniform_B[:, None]).sum(axis=1)


def resized(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """uint8 (side, side, 3) between the four nearest pixels, without smoothing, as cv2.resize does (±1 in rounding)."""
    rows_HWC = _between(image_HWC.astype(np.float64), side)
    both_WHC = _between(rows_HWC.transpose(1, 0, 2), side)
    return np.rint(both_WHC.transpose(1, 0, 2)).astype(np.uint8)


def _between(lines: np.ndarray, count: int) -> np.ndarray:
    """`count` lines, evenly spaced over those of the first axis."""
    at = np.clip((np.arange(count) + 0.5) * len(lines) / count - 0.5, 0, len(lines) - 1)
    first = at.astype(np.int64)
    second = np.minimum(first + 1, len(lines) - 1)
    share = (at - first)[:, None, None]
    return lines[first] * (1 - share) + lines[second] * share
