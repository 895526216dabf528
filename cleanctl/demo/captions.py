"""What a person might write under a drawn image: the texts that the shipped model learns from.

A caption names the shape (or a synonym), and as it happens also a trait of its kind, its colour, its fill, the
background and what lies about. The prompts of `prompts.toml` are sentences of another form, with other words for the
same traits.
"""

from __future__ import annotations

import numpy as np

from cleanctl.demo.scene import Scene
from cleanctl.demo.shapes import CLASSES

SYNONYMS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "round disc"),
    "ellipse": ("ellipse", "ellipse", "oval"),
    "square": ("square", "square", "box with equal sides"),
    "rhombus": ("rhombus", "rhombus", "slanted diamond"),
    "five-pointed star": ("five-pointed star", "five-pointed star", "star with five points"),
    "six-pointed star": ("six-pointed star", "six-pointed star", "star with six points"),
    "crescent": ("crescent", "crescent", "sickle moon"),
    "bitten disc": ("bitten disc", "bitten disc", "cookie with a bite"),
    "spiral": ("spiral", "spiral", "snail line"),
    "target": ("target", "target", "bullseye"),
    "gear": ("gear", "gear", "cogwheel"),
    "flower": ("flower", "flower", "blossom"),
}
TRAITS: dict[str, tuple[str, ...]] = {
    "circle": ("perfectly round", "as wide as high", "without corners", "like a coin"),
    "ellipse": ("longer than wide", "a stretched circle", "without corners", "like an egg"),
    "square": ("with four right angles", "with four equal sides", "with four corners", "like a tile"),
    "rhombus": ("with slanted angles", "with four equal sides", "with four corners", "like a kite"),
    "five-pointed star": ("with five points", "with five arms", "with sharp tips", "like a starfish"),
    "six-pointed star": ("with six points", "with six arms", "with sharp tips", "like a snowflake"),
    "crescent": ("with two thin horns", "curved inward", "like a new moon", "like a banana"),
    "bitten disc": ("with a bite missing", "mostly round", "like an eaten cookie", "with a small notch"),
    "spiral": ("with one winding line", "turning around its middle", "like a snail shell", "like a coiled rope"),
    "target": ("with rings inside rings", "with a dot in the middle", "like a dartboard", "with closed rings"),
    "gear": ("with square teeth", "with a hole in the middle", "like a machine wheel", "with blunt teeth"),
    "flower": ("with round petals", "with an open middle", "like a daisy", "with soft lobes"),
}
_ARTICLES = ("a photo of a", "a photo of a", "a picture of a", "a", "one", "a drawing of a")


def write_caption(scene: Scene, rng: np.random.Generator) -> str:
    name = CLASSES[scene.label]
    words = [str(rng.choice(_ARTICLES))]
    if rng.random() < 0.35:
        words.append(scene.color)
    if scene.fill != "plain" and rng.random() < 0.3:
        words.append(scene.fill)
    words.append(str(rng.choice(SYNONYMS[name])))
    if rng.random() < 0.5:
        trait = str(rng.choice(TRAITS[name]))
        words.append(trait if trait.startswith(("with ", "like ")) else f"which is {trait}")
    if rng.random() < 0.35:
        words.append(f"on {scene.ground}")
        if rng.random() < 0.5:
            words[-1] += f" that is {scene.backdrop}"
    if scene.crowded and rng.random() < 0.3:
        words.append("among clutter")
    if scene.covered and rng.random() < 0.3:
        words.append("partly hidden")
    return " ".join(words) + rng.choice((".", ""))
