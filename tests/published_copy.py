"""Small copies of published datasets, laid out as their authors distribute them: tests/datasets/layouts/*.py, a file a
layout, each with `build(folder)`, which writes one, and `COPIES`, which says what cleanctl must find there.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LAYOUTS = Path(__file__).parent / "datasets" / "layouts"

Row = tuple[str, int] | tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One way to open what `build` writes.

    rows: split → (key, label) or (key, label, truth) of each image, in the published order. ordered: the splits that
    have such an order. num_classes, and names by number. annotations: files without which it cannot be opened.
    variant: what `--variant` is given. rivals: other datasets that the folder is recognised as.
    """

    dataset: str
    build: Callable[[Path], None]
    rows: dict[str, list[Row]]
    num_classes: int
    names: dict[int, str]
    ordered: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    variant: str | None = None
    rivals: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.dataset if self.variant is None else f"{self.dataset}:{self.variant}"


def copies() -> list[Copy]:
    """Those of every file in layouts/."""
    found = []
    for path in sorted(LAYOUTS.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"layout_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += module.COPIES
    return found


def write_image(path: Path, label: int, *, size: int = 40) -> None:
    """A JPEG whose colour tells the class; another one for each path."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    colour = np.random.default_rng(label).integers(40, 216, 3)
    pixel_HWC = (colour + rng.normal(0, 20, (size, size + 6, 1))).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixel_HWC).save(path, "JPEG", quality=85)


def write_text(path: Path, text: str) -> None:
    """Bytes as they are: line ends are those of `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
