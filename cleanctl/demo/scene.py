"""One drawn image: what is in it (`Scene`), and its pixels (`render`).

A scene is chosen first and painted second, so that the caption writer of the training script and the painter speak of
the same thing: one shape in a colour and a fill, on a background of another colour, among clutter, now and then with
something in front. Both take all their chance from the generator that they are given: the same generator state gives
the same pixels. Nothing is left on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cleanctl.demo.shapes import CLASSES, SHAPES, Shape, ellipse_points

Color = tuple[int, int, int]
# Shapes are bright and what lies behind them is dim: a small network sees a shape sooner if light and dark keep their
# roles, and a demo has minutes.
COLORS: dict[str, Color] = {
    "red": (228, 72, 62),
    "orange": (245, 150, 50),
    "yellow": (250, 220, 85),
    "green": (120, 212, 92),
    "turquoise": (80, 215, 205),
    "blue": (110, 170, 250),
    "violet": (190, 140, 240),
    "pink": (245, 150, 195),
    "white": (242, 242, 238),
    "beige": (232, 212, 172),
}
GROUNDS: dict[str, Color] = {
    "black": (28, 28, 32),
    "navy": (26, 38, 92),
    "brown": (86, 56, 36),
    "olive": (76, 80, 36),
    "gray": (88, 88, 92),
    "maroon": (98, 26, 42),
    "forest": (26, 76, 46),
    "plum": (72, 38, 98),
}
FILLS = ("plain", "shaded", "striped", "dotted", "outlined")
BACKDROPS = ("plain", "cloudy", "noisy", "striped", "checkered", "spotted")
MIN_SIDE, MAX_SIDE = 64, 200


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`label` indexes CLASSES, `color` names one of COLORS, `ground` of GROUNDS; sides in pixels, quality is JPEG's."""

    label: int
    color: str
    ground: str
    fill: str
    backdrop: str
    width: int
    height: int
    quality: int
    crowded: bool
    covered: bool


def choose_scene(label: int, rng: np.random.Generator) -> Scene:
    short = int(rng.integers(MIN_SIDE, 141))
    long = min(MAX_SIDE, int(short * rng.uniform(1.0, 1.6)))
    wide = rng.random() < 0.5
    return Scene(
        label=label,
        color=_any_of(COLORS, rng),
        ground=_any_of(GROUNDS, rng),
        fill=str(rng.choice(FILLS, p=(0.30, 0.25, 0.17, 0.13, 0.15))),
        backdrop=str(rng.choice(BACKDROPS, p=(0.15, 0.25, 0.20, 0.15, 0.12, 0.13))),
        width=long if wide else short,
        height=short if wide else long,
        quality=int(rng.integers(45, 96)),
        crowded=bool(rng.random() < 0.55),
        covered=bool(rng.random() < 0.25),
    )


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The scene as an RGB image of (width, height)."""
    image = _backdrop(scene, rng)
    if scene.crowded:
        _clutter(image, scene, rng)
    _place_shape(image, scene, rng)
    if scene.covered:
        _cover(image, rng)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 1.0)))
    return _grain(image, rng)


def _any_of(palette: dict[str, Color], rng: np.random.Generator) -> str:
    return list(palette)[rng.integers(len(palette))]


def _shade(color: Color, rng: np.random.Generator, spread: int = 22) -> Color:
    """A colour near the given one."""
    red, green, blue = (
        min(max(c + d, 0), 255) for c, d in zip(color, rng.integers(-spread, spread + 1, size=3).tolist())
    )
    return (red, green, blue)


def _any_shade(rng: np.random.Generator) -> Color:
    """What clutter is made of: anything that a background may be, a little brighter."""
    red, green, blue = GROUNDS[_any_of(GROUNDS, rng)]
    return _shade((red + 45, green + 45, blue + 45), rng, 40)


def _backdrop(scene: Scene, rng: np.random.Generator) -> Image.Image:
    size = (scene.width, scene.height)
    one, two = _shade(GROUNDS[scene.ground], rng), _shade(GROUNDS[scene.ground], rng, 45)
    if scene.backdrop in ("cloudy", "noisy"):
        cells = 3 if scene.backdrop == "cloudy" else int(rng.integers(9, 22))
        mix_HW1 = rng.random((cells, cells, 1))
        small = (mix_HW1 * one + (1 - mix_HW1) * two).astype(np.uint8)
        return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    image = Image.new("RGB", size, one)
    if scene.backdrop != "plain":
        _pattern(ImageDraw.Draw(image), scene.backdrop, size, two, rng)
    return image


def _pattern(
    draw: ImageDraw.ImageDraw,
    kind: str,
    size: tuple[int, int],
    ink: Color,
    rng: np.random.Generator,
    pitch: float | None = None,
) -> None:
    """Stripes, checks or spots over the whole of `size`, in one colour."""
    width, height = size
    pitch = pitch or rng.uniform(0.10, 0.22) * min(size)
    if kind == "striped":
        lean = rng.uniform(-1.0, 1.0) * height
        for x in np.arange(-height, width + height, 2 * pitch):
            draw.polygon([(x, 0), (x + pitch, 0), (x + pitch + lean, height), (x + lean, height)], fill=ink)
        return
    for row, y in enumerate(np.arange(0, height, pitch)):
        for x in np.arange((row % 2) * pitch, width, 2 * pitch):
            box = (x, y, x + pitch, y + pitch)
            if kind == "checkered":
                draw.rectangle(box, fill=ink)
            else:
                draw.ellipse((x, y, x + 0.8 * pitch, y + 0.8 * pitch), fill=ink)


def _clutter(image: Image.Image, scene: Scene, rng: np.random.Generator) -> None:
    """Small things of any colour near the rim: lines, blots and triangles."""
    draw = ImageDraw.Draw(image)
    size_2 = np.array(image.size)
    for kind in rng.integers(0, 3, size=int(rng.integers(3, 9))):
        ink = _any_shade(rng)
        reach = rng.uniform(0.05, 0.13) * min(image.size)
        x, y = (rng.random(2) * size_2).tolist()
        if kind == 0:
            dx, dy = (rng.normal(size=2) * 3 * reach).tolist()
            draw.line((x, y, x + dx, y + dy), fill=ink, width=max(1, int(reach / 4)))
        elif kind == 1:
            draw.ellipse((x - reach, y - reach * 0.7, x + reach, y + reach * 0.7), fill=ink)
        else:
            draw.polygon([(x + a, y + b) for a, b in (rng.normal(size=(3, 2)) * reach).tolist()], fill=ink)


def _pose(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """How the unit disc lands in the image: a 2×2 matrix, an offset and a radius, in pixels.

    The shape stays within the middle square, which is what a centre crop keeps, but for a sliver at most.
    """
    short = min(scene.width, scene.height)
    radius = short * rng.uniform(0.27, 0.45)
    turn, shear = rng.normal() * 0.6, rng.normal() * 0.05
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    slack = max(0.03 * short, 0.5 * short - radius)
    center = np.array([scene.width, scene.height]) / 2 + rng.uniform(-1, 1, size=2) * slack
    return radius * (np.array([[1.0, shear], [0.0, 1.0]]) @ rotate @ mirror), center, radius


def _mask(shape: Shape, size: tuple[int, int], pose: np.ndarray, center: np.ndarray, grow: float = 1.0) -> Image.Image:
    """Coverage of the shape as an 8-bit image: painted at twice the size and averaged, for smooth edges."""
    mask = Image.new("L", (2 * size[0], 2 * size[1]), 0)
    draw = ImageDraw.Draw(mask)
    for points, paints in shape:
        spot = 2 * (grow * points @ pose.T + center)
        draw.polygon(spot.ravel().tolist(), fill=255 if paints else 0)
    return mask.reduce(2)


def _place_shape(image: Image.Image, scene: Scene, rng: np.random.Generator) -> None:
    pose, center, radius = _pose(scene, rng)
    shape = SHAPES[CLASSES[scene.label]](rng)
    mask = _mask(shape, image.size, pose, center)
    if rng.random() < 0.35:
        drop = max(1, int(radius * rng.uniform(0.05, 0.14)))
        shadow = mask.point(lambda value: int(value * 0.45))
        image.paste((15, 15, 20), (drop, drop), shadow)
    image.paste(_paint(scene, image.size, radius, rng), (0, 0), mask)
    if scene.fill == "outlined":
        inner = _mask(shape, image.size, pose, center, grow=rng.uniform(0.66, 0.80))
        both = Image.composite(inner, Image.new("L", image.size, 0), mask)
        image.paste(_shade(COLORS[scene.color], rng, 70), (0, 0), both)


def _paint(scene: Scene, size: tuple[int, int], radius: float, rng: np.random.Generator) -> Image.Image:
    """What fills the shape, over the whole image: a colour, a slope between two, stripes or dots."""
    one, two = _shade(COLORS[scene.color], rng), _shade(COLORS[scene.color], rng, 75)
    if scene.fill == "shaded":
        corners = np.array([one, two, _shade(COLORS[scene.color], rng, 50), one], dtype=np.uint8).reshape(2, 2, 3)
        return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    paint = Image.new("RGB", size, one)
    if scene.fill in ("striped", "dotted"):
        kind = "striped" if scene.fill == "striped" else "spotted"
        _pattern(ImageDraw.Draw(paint), kind, size, two, rng, pitch=radius * rng.uniform(0.14, 0.30))
    return paint


def _cover(image: Image.Image, rng: np.random.Generator) -> None:
    """Something in front: a bar across the image or a blot, hiding a tenth or so of the shape."""
    draw = ImageDraw.Draw(image)
    ink = _any_shade(rng)
    x, y = (np.array(image.size) * rng.uniform(0.2, 0.8, size=2)).tolist()
    short = min(image.size)
    if rng.random() < 0.5:
        dx, dy = (rng.normal(size=2) * 2 * short).tolist()
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=ink, width=max(2, int(short * rng.uniform(0.03, 0.08))))
    else:
        reach = short * rng.uniform(0.07, 0.14)
        points = ellipse_points(reach, reach * rng.uniform(0.6, 1.0), center=(x, y))
        draw.polygon(points.ravel().tolist(), fill=ink)


@cache
def _grain_tile() -> np.ndarray:
    """Fixed film grain, int16, from which each image takes a window: cheaper than fresh noise for each."""
    return np.random.default_rng(20240229).normal(scale=16, size=(2 * MAX_SIDE, 2 * MAX_SIDE, 3)).astype(np.int16)


def _grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    y, x = rng.integers(0, MAX_SIDE, size=2)
    window = _grain_tile()[y : y + image.height, x : x + image.width]
    pixels = np.asarray(image, dtype=np.int16) + window // int(rng.integers(1, 5))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
