"""The augmentation policies as data (docs/method.md B.5): AutoAugment's 25 sub-policies and their magnitudes.

A sub-policy is two operations, each with a probability in tenths and a level from 0 to 9. The tables are those of the
AutoAugment paper in the form of the DeepVoltaire port, whose CIFAR row 17 is equalize 0.2 / equalize 0.8.
"""

from __future__ import annotations

import numpy as np

OPERATIONS = (
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "posterize", "solarize", "contrast",
    "sharpness", "brightness", "autocontrast", "equalize", "invert", "cutout",
)  # fmt: skip

_CIFAR10 = """
    invert 1 7        contrast 2 6      | rotate 7 2        translate_x 3 9   | sharpness 8 1     sharpness 9 3
    shear_y 5 8       translate_y 7 9   | autocontrast 5 8  equalize 9 2      | shear_y 2 7       posterize 3 7
    color 4 3         brightness 6 7    | sharpness 3 9     brightness 7 9    | equalize 6 5      equalize 5 1
    contrast 6 7      sharpness 6 5     | color 7 7         translate_x 5 8   | equalize 3 7      autocontrast 4 8
    translate_y 4 3   sharpness 2 6     | brightness 9 6    color 2 8         | solarize 5 2      invert 0 3
    equalize 2 0      autocontrast 6 0  | equalize 2 8      equalize 8 4      | color 9 9         equalize 6 6
    autocontrast 8 4  solarize 2 8      | brightness 1 3    color 7 0         | solarize 4 5      autocontrast 9 3
    translate_y 9 9   translate_y 7 9   | autocontrast 9 2  solarize 8 3      | equalize 8 8      invert 1 3
    translate_y 7 9   autocontrast 9 1
"""
_IMAGENET = """
    posterize 4 8     rotate 6 9        | solarize 6 5      autocontrast 6 5  | equalize 8 8      equalize 6 3
    posterize 6 7     posterize 6 6     | equalize 4 7      solarize 2 4      | equalize 4 4      rotate 8 8
    solarize 6 3      equalize 6 7      | posterize 8 5     equalize 10 2     | rotate 2 3        solarize 6 8
    equalize 6 8      posterize 4 6     | rotate 8 8        color 4 0         | rotate 4 9        equalize 6 2
    equalize 0 7      equalize 8 8      | invert 6 4        equalize 10 8     | color 6 4         contrast 10 8
    rotate 8 8        color 10 2        | color 8 8         solarize 8 7      | sharpness 4 7     invert 6 8
    shear_x 6 5       equalize 10 9     | color 4 0         equalize 6 3      | equalize 4 7      solarize 2 4
    solarize 6 5      autocontrast 6 5  | invert 6 4        equalize 10 8     | color 6 4         contrast 10 8
    equalize 8 8      equalize 6 3
"""


def table(policy: str) -> np.ndarray:
    """float64 (25, 2, 3): operation number, probability, level. policy: "autoaugment-cifar10" or "-imagenet"."""
    text = {"autoaugment-cifar10": _CIFAR10, "autoaugment-imagenet": _IMAGENET}[policy]
    words = text.replace("|", " ").split()
    rows = [
        (OPERATIONS.index(words[at]), int(words[at + 1]) / 10, int(words[at + 2])) for at in range(0, len(words), 3)
    ]
    return np.array(rows, dtype=np.float64).reshape(25, 2, 3)


MAGNITUDES = {
    "shear_x": np.linspace(0, 0.3, 10),  # x moves by this share of y
    "shear_y": np.linspace(0, 0.3, 10),
    "translate_x": np.linspace(0, 150 / 331, 10),  # share of the side
    "translate_y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),  # degrees, counter-clockwise only
    "color": np.linspace(0, 0.9, 10),  # enhancement factor is 1 ± this
    "contrast": np.linspace(0, 0.9, 10),
    "sharpness": np.linspace(0, 0.9, 10),
    "brightness": np.linspace(0, 0.9, 10),
    "posterize": np.round(np.linspace(8, 4, 10)),  # bits kept
    "solarize": np.linspace(256, 0, 10),  # values from here on are inverted
    "autocontrast": np.zeros(10),
    "equalize": np.zeros(10),
    "invert": np.zeros(10),
    "cutout": np.round(np.linspace(0, 20, 10)),  # pixels
}
SIGNED = frozenset(("shear_x", "shear_y", "translate_x", "translate_y", "color", "contrast", "sharpness", "brightness"))
