"""Synthetic embeddings with the geometry of CLIP's: (N, C, P, D, seed) → image, text, noisy and true labels.

Plain Gaussian embeddings make a logistic fit look easy. CLIP's rows share a mean of norm 0.72 and their centred
spectrum falls from 0.20 to 0.01 over 400 directions, which is what makes the published fit slow. Texts sit apart from
images by a constant gap and point to their class with noise. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Rank → standard deviation of the centred rows along that principal direction.
SPECTRUM = ((1, 0.20), (2, 0.16), (3, 0.14), (50, 0.043), (100, 0.031), (200, 0.021), (400, 0.010), (512, 0.007))
MEAN_NORM = 0.72
BETWEEN_SHARE = 0.12  # share of the centred variance that lies between classes
LIKENESS, MODE_SHARE = 0.75, 0.5
CHUNK = 65_536


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """image_ND: float16, L2-normalised. text_PD: float32, L2-normalised. Labels int32 in 0…C-1."""

    image_ND: np.ndarray
    label_N: np.ndarray
    truth_N: np.ndarray
    text_PD: np.ndarray
    class_P: np.ndarray


def spectrum(dim: int) -> np.ndarray:
    """(D,) standard deviations, log-log interpolation of SPECTRUM."""
    rank, value = np.array(SPECTRUM).T
    return np.exp(np.interp(np.log(np.arange(1, dim + 1)), np.log(rank), np.log(value)))


class Generator:
    """Draws any number of rows from one fixed set of classes, chunk by chunk."""

    def __init__(
        self,
        *,
        dim: int = 512,
        classes: int = 100,
        prompts: int = 800,
        seed: int = 0,
        groups: int = 0,
        between: float = BETWEEN_SHARE,
        modes: int = 1,
    ) -> None:
        """groups: of neighbouring classes that look alike, of whose centres LIKENESS of the variance is the group's; 0
        is none. between: share of the centred variance that lies between classes. modes: places around
        its centre that a class's images lie at, with MODE_SHARE of the variance within it."""
        self.rng = np.random.default_rng(seed)
        self.dim, self.classes = dim, classes
        self.basis_DD = np.linalg.qr(self.rng.standard_normal((dim, dim)))[0].astype(np.float32)
        self.scale_D = spectrum(dim).astype(np.float32)
        self.mean_D = np.zeros(dim, np.float32)
        self.mean_D[:] = self.basis_DD[-1] * MEAN_NORM
        self.centre_CD, self.between = self._normal(classes), between
        if groups:
            group_CD = self._normal(groups)[np.arange(classes) * groups // classes]
            self.centre_CD = np.sqrt(1 - LIKENESS) * self.centre_CD + np.sqrt(LIKENESS) * group_CD
            self.centre_CD = self.centre_CD.astype(np.float32)
        self.mode_CMD = self._normal(classes * modes).reshape(classes, modes, dim) if modes > 1 else None
        self.class_P = (np.arange(prompts) * classes // prompts).astype(np.int32)
        self.text_PD = self._texts()

    def images(self, truth_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(B, D) float16, L2-normalised: an image of each of these classes."""
        within, between = np.sqrt(1 - self.between), np.sqrt(self.between)
        coordinate = rng.standard_normal((len(truth_B), self.dim), dtype=np.float32)
        coordinate *= within
        if self.mode_CMD is not None:
            mode_B = rng.integers(0, self.mode_CMD.shape[1], len(truth_B))
            coordinate *= np.float32(np.sqrt(1 - MODE_SHARE))
            coordinate += np.float32(within * np.sqrt(MODE_SHARE)) * self.mode_CMD[truth_B, mode_B]
        coordinate += between * self.centre_CD[truth_B]
        coordinate *= self.scale_D
        image = coordinate @ self.basis_DD
        image += self.mean_D
        image /= np.linalg.norm(image, axis=1, keepdims=True)
        return image.astype(np.float16)

    def _normal(self, rows: int) -> np.ndarray:
        return self.rng.standard_normal((rows, self.dim), dtype=np.float32)

    def _texts(self) -> np.ndarray:
        gap_D = self.basis_DD[-2] * 0.6 + self.basis_DD[-3] * 0.3
        offset_CD = self._normal(self.classes)  # what the text tower gets wrong about a class
        class_CD = 0.55 * self.centre_CD + 0.35 * offset_CD
        coordinate_PD = (class_CD[self.class_P] + 0.3 * self._normal(len(self.class_P))) * self.scale_D
        text_PD = self.mean_D * 0.3 + gap_D + coordinate_PD @ self.basis_DD
        return (text_PD / np.linalg.norm(text_PD, axis=1, keepdims=True)).astype(np.float32)

    def chunks(self, rows: int, *, noise: float = 0.4) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields (image float16, noisy label, truth) of at most CHUNK rows; symmetric noise incl. the true class."""
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            truth = self.rng.integers(0, self.classes, count).astype(np.int32)
            image = self.images(truth, self.rng)
            flip = self.rng.random(count) < noise
            label = np.where(flip, self.rng.integers(0, self.classes, count), truth).astype(np.int32)
            yield image, label, truth


def clip_like(
    rows: int, *, dim: int = 512, classes: int = 100, prompts: int = 800, noise: float = 0.4, seed: int = 0, **look: Any
) -> Geometry:
    """One whole set in memory. look: `groups`, `between` and `modes` of the Generator."""
    generator = Generator(dim=dim, classes=classes, prompts=prompts, seed=seed, **look)
    parts = list(generator.chunks(rows, noise=noise))
    image, label, truth = (np.concatenate([part[column] for part in parts]) for column in range(3))
    return Geometry(
        image_ND=image,
        label_N=label,
        truth_N=truth,
        text_PD=generator.text_PD,
        class_P=generator.class_P,
    )
