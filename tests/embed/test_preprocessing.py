"""Promise 4 in embeddings: a trained model sees what open_clip's own transform of the original file gives.

The images are real photographs, cut into pieces of many sizes and shapes and scaled up to large ones, so that the
downscale to the model's 64 pixels ranges from none to 40 times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cleanctl.demo
from cleanctl.api import embed
from cleanctl.config import EmbedConfig
from cleanctl.store import Store

MODEL = Path(cleanctl.demo.__file__).with_name("model")
PIECES = 24
FAST = {"compress_level": 1, "method": 0}  # of PNG and WebP: the smallest file is not wanted


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    from sklearn.datasets import load_sample_images

    root, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name, pixels in zip(("china", "flower"), load_sample_images().images):
        image = Image.fromarray(pixels)  # 640 × 427
        (root / name).mkdir()
        for piece in range(PIECES // 2):
            width, height = random.integers(70, 640), random.integers(70, 427)
            left, top = random.integers(0, 641 - width), random.integers(0, 428 - height)
            part = image.crop((left, top, left + width, top + height))
            scale = float(random.choice([1, 1, 2, 5]))
            part = part.resize((int(width * scale), int(height * scale)), Image.Resampling.LANCZOS)
            suffix = ("jpg", "jpg", "jpg", "png", "webp")[piece % 5]
            part.save(root / name / f"{piece:02d}.{suffix}", quality=int(random.integers(60, 96)), **FAST)
    return root


@pytest.fixture(scope="module")
def reference(photographs):
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{MODEL}")
    files = sorted(photographs.rglob("*.*"))
    with torch.no_grad():
        images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
        return model.eval().encode_image(images, normalize=True).numpy()


@pytest.mark.parametrize("loader", ["torch", "ffcv", pytest.param("nvjpeg", marks=pytest.mark.gpu)])
def test_embeddings_of_photographs_are_those_of_open_clips_transform(photographs, reference, loader, tmp_path):
    pytest.importorskip({"nvjpeg": "torchcodec"}.get(loader, loader))
    config = EmbedConfig(source=photographs, model=f"local-dir:{MODEL}", loader=loader, device="cpu", precision="fp32")
    embed(config, store=tmp_path / "s.zarr")
    found = Store.open(tmp_path / "s.zarr").split("train").embeddings(slice(None)).astype(np.float32)
    cosine_N = (found * reference).sum(axis=1)
    assert len(cosine_N) == PIECES
    assert cosine_N.min() >= 0.999
    assert cosine_N.mean() >= 0.9998


def test_the_measure_would_see_another_filter(photographs, reference):
    """The same promise, broken by OpenCV's way to scale down, which FFCV has built in."""
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{MODEL}")
    files = sorted(photographs.rglob("*.*"))
    boxed = []
    for file in files:
        image = Image.open(file).convert("RGB")
        scale = 64 / min(image.size)
        size = (max(64, round(image.width * scale)), max(64, round(image.height * scale)))
        boxed.append(transform(image.resize(size, Image.Resampling.BOX)))
    with torch.no_grad():
        found = model.eval().encode_image(torch.stack(boxed), normalize=True).numpy()
    assert (found * reference).sum(axis=1).min() < 0.999
