"""What the tests of loaders look with: a whole pass, the promise on pixels, a package that is not there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import open_clip
from PIL import Image

from cleanctl.records import PixelSpec

MEAN = np.array(open_clip.OPENAI_DATASET_MEAN) * 255
STD = np.array(open_clip.OPENAI_DATASET_STD) * 255


def collect(loader, rows, *, batch_size, **more):
    """(rows, pixels, ok, reasons) of a whole pass; pixels are copied, as batches are views."""
    row, pixel, ok, reason = [], [], [], {}
    for batch in loader.batches(np.asarray(rows), batch_size=batch_size, **more):
        assert batch.pixel_BSSC.flags.c_contiguous
        assert batch.pixel_BSSC.dtype == np.uint8
        assert len(batch.row_B) == len(batch.pixel_BSSC) == len(batch.ok_B) <= batch_size
        assert set(batch.reason) == set(batch.row_B[~batch.ok_B].tolist())
        row.append(np.array(batch.row_B))
        pixel.append(np.array(batch.pixel_BSSC))
        ok.append(np.array(batch.ok_B))
        reason |= batch.reason
    return np.concatenate(row), np.concatenate(pixel), np.concatenate(ok), reason


def cosine(got_SSC: np.ndarray, wanted_SSC: np.ndarray) -> float:
    a, b = ((value.astype(np.float64) - MEAN) / STD for value in (got_SSC, wanted_SSC))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def keeps_the_promise(got: np.ndarray, wanted: np.ndarray) -> bool:
    """Cosine of normalised pixels: 0.999 for each image, 0.9998 on the mean; and levels right by one on the mean."""
    cosines = [cosine(one, other) for one, other in zip(got, wanted)]
    level = np.abs(got.astype(float) - wanted).mean()
    return min(cosines) >= 0.999 and float(np.mean(cosines)) >= 0.9998 and level < 1


def as_open_clip(root: Path, keys: list[str], spec: PixelSpec) -> np.ndarray:
    """Levels 0…255 before normalisation; the transform is open_clip's, with its normalisation switched off."""
    transform = open_clip.image_transform(
        *(spec.size, False, (0, 0, 0), (1, 1, 1), spec.resize_mode, spec.interpolation), fill_color=spec.fill
    )
    images = (Image.open(root / key).convert("RGB") for key in keys)
    return np.stack([np.rint(transform(image).permute(1, 2, 0).numpy() * 255) for image in images])


def without(package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
