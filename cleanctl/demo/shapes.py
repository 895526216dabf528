"""The twelve things that the demo draws, as outlines; six pairs of them are nearly alike.

A shape is a list of strokes painted one after the other, each a closed polygon (M,2) float64 in the unit disc and
whether it paints (True) or erases (False). Erasing strokes make holes, bites and the gaps between rings.
Every function takes a generator and draws its own proportions from it, so that no two of a class are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Stroke = tuple[np.ndarray, bool]
Shape = list[Stroke]

_TURN = 2 * np.pi


def ellipse_points(radius_x: float, radius_y: float, *, center: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    angle_M = np.linspace(0, _TURN, 48, endpoint=False)
    return np.stack([center[0] + radius_x * np.cos(angle_M), center[1] + radius_y * np.sin(angle_M)], axis=1)


def _polar(radius_M: np.ndarray, angle_M: np.ndarray) -> np.ndarray:
    return np.stack([radius_M * np.cos(angle_M), radius_M * np.sin(angle_M)], axis=1)


def circle(rng: np.random.Generator) -> Shape:
    return [(ellipse_points(1.0, rng.uniform(0.95, 1.0)), True)]


def ellipse(rng: np.random.Generator) -> Shape:
    return [(ellipse_points(1.0, rng.uniform(0.66, 0.86)), True)]


def square(rng: np.random.Generator) -> Shape:
    return _diamond(rng.uniform(0.95, 1.0))


def rhombus(rng: np.random.Generator) -> Shape:
    return _diamond(rng.uniform(0.60, 0.84))


def _diamond(half_height: float) -> Shape:
    return [(np.array([(1.0, 0.0), (0.0, half_height), (-1.0, 0.0), (0.0, -half_height)]), True)]


def _star(points: int, inner: float) -> Shape:
    angle_M = np.arange(2 * points) * (np.pi / points) - np.pi / 2  # a point up
    return [(_polar(np.where(np.arange(2 * points) % 2, inner, 1.0), angle_M), True)]


def five_pointed_star(rng: np.random.Generator) -> Shape:
    return _star(5, rng.uniform(0.36, 0.58))


def six_pointed_star(rng: np.random.Generator) -> Shape:
    return _star(6, rng.uniform(0.42, 0.62))


def crescent(rng: np.random.Generator) -> Shape:
    """A disc less a disc about as large."""
    bite, shift = rng.uniform(0.70, 0.96), rng.uniform(0.46, 0.68)
    return [(ellipse_points(1.0, 1.0), True), (ellipse_points(bite, bite, center=(shift, 0.0)), False)]


def bitten_disc(rng: np.random.Generator) -> Shape:
    """A disc less a clearly smaller disc at its rim."""
    bite, shift = rng.uniform(0.42, 0.62), rng.uniform(0.74, 0.94)
    return [(ellipse_points(1.0, 1.0), True), (ellipse_points(bite, bite, center=(shift, 0.0)), False)]


def spiral(rng: np.random.Generator) -> Shape:
    """An Archimedean spiral with a thick line; it winds either way."""
    turns = rng.uniform(2.0, 3.2)
    angle_M = np.linspace(0, turns * _TURN, 90)
    radius_M = np.linspace(0.04, 0.88, 90)
    half = rng.uniform(0.20, 0.30) / turns
    edge = np.concatenate([_polar(radius_M + half, angle_M), _polar(radius_M - half, angle_M)[::-1]])
    return [(edge * (1.0, rng.choice([-1.0, 1.0])), True)]


def target(rng: np.random.Generator) -> Shape:
    """Rings around a disc, evenly spaced."""
    steps = 2 * int(rng.integers(2, 4)) + 1
    radius = np.linspace(1.0, rng.uniform(0.10, 0.25), steps)
    return [(ellipse_points(float(r), float(r)), i % 2 == 0) for i, r in enumerate(radius)]


def gear(rng: np.random.Generator) -> Shape:
    """Square teeth around a disc with a hole."""
    teeth = int(rng.integers(7, 12))
    root = rng.uniform(0.70, 0.80)
    step_M = np.arange(4 * teeth)
    angle_M = (step_M // 2 + (step_M % 2) * 0.80 + 0.10) * (np.pi / teeth)
    radius_M = np.where((step_M // 2) % 2, root, 1.0)
    hole = rng.uniform(0.22, 0.36)
    return [(_polar(radius_M, angle_M), True), (ellipse_points(hole, hole), False)]


def flower(rng: np.random.Generator) -> Shape:
    """Round petals around a centre that is left open."""
    petals = int(rng.integers(5, 10))
    angle_M = np.linspace(0, _TURN, 144, endpoint=False)
    root = rng.uniform(0.50, 0.66)
    radius_M = root + (1.0 - root) * np.sqrt(np.abs(np.cos(angle_M * petals / 2)))
    hole = rng.uniform(0.18, 0.30)
    return [(_polar(radius_M, angle_M), True), (ellipse_points(hole, hole), False)]


# In label order; the classes at 2i and 2i + 1 look alike.
SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "circle": circle,
    "ellipse": ellipse,
    "square": square,
    "rhombus": rhombus,
    "five-pointed star": five_pointed_star,
    "six-pointed star": six_pointed_star,
    "crescent": crescent,
    "bitten disc": bitten_disc,
    "spiral": spiral,
    "target": target,
    "gear": gear,
    "flower": flower,
}
CLASSES = tuple(SHAPES)


def look_alike(label_N: np.ndarray) -> np.ndarray:
    """The other class of each label's pair, same dtype."""
    return label_N ^ 1
