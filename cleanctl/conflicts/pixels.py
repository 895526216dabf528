"""Two thumbnails → how alike they are once one is laid over the other: 1 for the same picture, near 0 for another.

A copy may be cut a little and scaled, so a thumbnail is first registered to the other: two scales and two shifts by
Gauss-Newton steps (inverse compositional alignment: S. Baker, I. Matthews, Lucas-Kanade 20 years on, IJCV 2004), at
half the size and then at the full one. What they then have in common is compared by the mean structural similarity
(Z. Wang et al., Image quality assessment, IEEE TIP 2004) of grey values, times how near their colours are. Pure, NumPy
alone.

Legend: P pairs, S side of a thumbnail (even).
"""

from __future__ import annotations

from functools import cache

import numpy as np

GREY = np.array([0.299, 0.587, 0.114], np.float32)
STEPS = (6, 5)  # Gauss-Newton steps at half the size, at the full size
MOST_SCALE, MOST_SHIFT = 0.16, 0.12  # beyond this a picture is not a slightly cut copy; shares of the side
WINDOW = 7  # of the structural similarity
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # its usual constants
COLOR_SCALE = 40.0  # a mean colour difference of so many levels divides the likeness by e


def likeness(first_PSSC: np.ndarray, second_PSSC: np.ndarray) -> np.ndarray:
    """(P,) float32 in [0, 1]; both uint8 (P, S, S, 3). The order of the two matters a little, by their rounding."""
    a_PSSC, b_PSSC = first_PSSC.astype(np.float32), second_PSSC.astype(np.float32)
    a_PSS, b_PSS = a_PSSC @ GREY, b_PSSC @ GREY
    warp_P4 = registration(a_PSS, b_PSS)
    return _alike(a_PSSC, b_PSSC, a_PSS, b_PSS, warp_P4)


def registration(a_PSS: np.ndarray, b_PSS: np.ndarray) -> np.ndarray:
    """(P, 4) float32: row scale, column scale, row shift, column shift, in shares of the half side.

    Point u in [-1, 1] of `a` lies at scale·u + shift in `b`.
    """
    warp_P4 = np.tile(np.array([1, 1, 0, 0], np.float32), (len(a_PSS), 1))
    for steps, a, b in ((STEPS[0], _halved(a_PSS), _halved(b_PSS)), (STEPS[1], a_PSS, b_PSS)):
        warp_P4 = _refined(a, b, warp_P4, steps)
    return warp_P4


def _refined(a_PSS: np.ndarray, b_PSS: np.ndarray, warp_P4: np.ndarray, steps: int) -> np.ndarray:
    size = a_PSS.shape[1]
    a_PSS = a_PSS - a_PSS.mean(axis=(1, 2), keepdims=True)
    step = 2 / size  # from one pixel to the next
    row_PSS, column_PSS = np.gradient(a_PSS, step, axis=(1, 2))
    at_S = _centres(size)
    jacobian_P4Q = np.stack([row_PSS * at_S[:, None], column_PSS * at_S, row_PSS, column_PSS], axis=1).reshape(
        len(a_PSS), 4, -1
    )
    hessian_P44 = jacobian_P4Q @ jacobian_P4Q.transpose(0, 2, 1)
    hessian_P44 += (1e-3 * np.trace(hessian_P44, axis1=1, axis2=2) + 1.0)[:, None, None] * np.eye(4, dtype=np.float32)
    for _ in range(steps):
        seen_PSS, inside_PSS = _warped(b_PSS, warp_P4)
        count_P = np.maximum(inside_PSS.sum(axis=(1, 2)), 1)[:, None, None]
        seen_PSS -= (seen_PSS * inside_PSS).sum(axis=(1, 2), keepdims=True) / count_P
        error_PQ1 = ((seen_PSS - a_PSS) * inside_PSS).reshape(len(a_PSS), -1, 1)
        delta_P4 = np.linalg.solve(hessian_P44, jacobian_P4Q @ error_PQ1)[..., 0]
        delta_P4 = np.clip(delta_P4, -0.1, 0.1)
        scale_P2 = warp_P4[:, :2] / (1 + delta_P4[:, :2])
        shift_P2 = warp_P4[:, 2:] - scale_P2 * delta_P4[:, 2:]
        warp_P4 = np.concatenate(
            [
                np.clip(scale_P2, 1 - MOST_SCALE, 1 / (1 - MOST_SCALE)),
                np.clip(shift_P2, -2 * MOST_SHIFT, 2 * MOST_SHIFT),
            ],
            axis=1,
        ).astype(np.float32)
    return warp_P4


def _warped(b_PSS: np.ndarray, warp_P4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`b` as seen from `a`, and where `b` has pixels (0 or 1, float32). Both axes are interpolated by matrices."""
    rows_PSS, row_in_PS = _interpolation(b_PSS.shape[1], warp_P4[:, 0], warp_P4[:, 2])
    columns_PSS, column_in_PS = _interpolation(b_PSS.shape[2], warp_P4[:, 1], warp_P4[:, 3])
    seen_PSS = rows_PSS @ b_PSS @ columns_PSS.transpose(0, 2, 1)
    return seen_PSS, row_in_PS[:, :, None] * column_in_PS[:, None, :]


def _interpolation(size: int, scale_P: np.ndarray, shift_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation at scale·u + shift: matrices (P, S, S), and which places lie inside (P, S)."""
    at_PS = scale_P[:, None] * _centres(size) + shift_P[:, None]
    pixel_PS = (at_PS + 1) * (size / 2) - 0.5
    inside_PS = ((pixel_PS > -0.75) & (pixel_PS < size - 0.25)).astype(np.float32)
    pixel_PS = np.clip(pixel_PS, 0, size - 1)
    near_PSS = 1 - np.abs(pixel_PS[:, :, None] - np.arange(size, dtype=np.float32))
    return np.maximum(near_PSS, 0), inside_PS


@cache
def _centres(size: int) -> np.ndarray:
    """(S,) float32: the pixels' centres in [-1, 1]."""
    return ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)


def _halved(image_PSS: np.ndarray) -> np.ndarray:
    count, size = image_PSS.shape[:2]
    return image_PSS.reshape(count, size // 2, 2, size // 2, 2).mean(axis=(2, 4))


# ---- what is compared


def _alike(
    a_PSSC: np.ndarray, b_PSSC: np.ndarray, a_PSS: np.ndarray, b_PSS: np.ndarray, warp_P4: np.ndarray
) -> np.ndarray:
    seen_PSS, inside_PSS = _warped(b_PSS, warp_P4)
    similar_P = structural_similarity(a_PSS, seen_PSS, inside_PSS)
    weight_P = np.maximum(inside_PSS.sum(axis=(1, 2)), 1)
    color_P = np.zeros(len(a_PSS), np.float32)
    for channel in range(3):
        seen_PSS, _ = _warped(b_PSSC[..., channel], warp_P4)
        apart_PSS = _blurred(seen_PSS - a_PSSC[..., channel]) * inside_PSS
        color_P += np.abs(apart_PSS).sum(axis=(1, 2)) / weight_P / 3
    return np.clip(similar_P, 0, 1) * np.exp(-color_P / COLOR_SCALE)


def structural_similarity(a_PSS: np.ndarray, b_PSS: np.ndarray, inside_PSS: np.ndarray) -> np.ndarray:
    """(P,) float32 in [-1, 1]: its mean over the windows that lie inside."""
    weight_PSS = np.maximum(_summed(inside_PSS), 1e-6)
    a_PSS, b_PSS = a_PSS * inside_PSS, b_PSS * inside_PSS
    mean_a, mean_b = _summed(a_PSS) / weight_PSS, _summed(b_PSS) / weight_PSS
    aa = _summed(a_PSS * a_PSS) / weight_PSS - mean_a**2
    bb = _summed(b_PSS * b_PSS) / weight_PSS - mean_b**2
    ab = _summed(a_PSS * b_PSS) / weight_PSS - mean_a * mean_b
    each = (2 * mean_a * mean_b + C1) * (2 * ab + C2) / ((mean_a**2 + mean_b**2 + C1) * (aa + bb + C2))
    return (each * inside_PSS).sum(axis=(1, 2)) / np.maximum(inside_PSS.sum(axis=(1, 2)), 1)


def _summed(image_PSS: np.ndarray) -> np.ndarray:
    box_SS = _box(image_PSS.shape[1], WINDOW)
    return box_SS @ image_PSS @ box_SS


def _blurred(image_PSS: np.ndarray) -> np.ndarray:
    box_SS = _box(image_PSS.shape[1], 5)
    box_SS = box_SS / box_SS.sum(axis=1, keepdims=True)
    return box_SS @ image_PSS @ box_SS.T


@cache
def _box(size: int, window: int) -> np.ndarray:
    """(S, S) float32: 1 where two places are at most half a window apart."""
    place_S = np.arange(size)
    return (np.abs(place_S[:, None] - place_S) <= window // 2).astype(np.float32)
