"""What of a photograph reaches training: boxes of the whole image, as torchvision draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import RECIPE
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from cleanctl.config import EmbedConfig, TrainConfig
from cleanctl.train.methods.cross_entropy import CrossEntropy

WIDTH, HEIGHT = 192, 144
PHOTOS = (
    RECIPE.replace('crop = "pad"\npad = 2', 'crop = "{crop}"\nflip = false')
    .replace("image_size = 16\nload_size = 16", "image_size = 112\nload_size = 128\ninterpolation = \"bilinear\"")
    .replace("epochs = 3", "epochs = 8").replace("autoaugment-cifar10", "none")
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """100 images whose red tells the column and whose green the row, each from 0 to 255."""
    from cleanctl import api

    folder = tmp_path_factory.mktemp("photos")
    pixel = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixel[..., 0] = np.linspace(0, 255, WIDTH)
    pixel[..., 1] = np.linspace(0, 255, HEIGHT)[:, None]
    for number in range(100):
        file = folder / "images" / "train" / ("cat", "dog")[number % 2] / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixel).save(file)
    embed = EmbedConfig(
        source=folder / "images", model=f"local-dir:{tiny_model}", prompts="photo", loader="torch", workers=0
    )
    api.embed(embed, store=folder / "s.zarr")
    return folder / "s.zarr"


def boxes(store: Path, crop: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """left, right, top, bottom in [0, 1] of every crop that a run's steps saw."""
    from cleanctl import api

    seen: list[np.ndarray] = []

    def look(self: CrossEntropy, batch) -> torch.Tensor:
        red, green = batch.image_BCLL[:, 0].float() / 255, batch.image_BCLL[:, 1].float() / 255
        ends = [red.amin((1, 2)), red.amax((1, 2)), green.amin((1, 2)), green.amax((1, 2))]
        seen.append(torch.stack(ends, dim=1).numpy())
        assert batch.image_BCLL.shape[2:] == (112, 112)
        return torch.zeros(())

    monkeypatch.setattr(CrossEntropy, "step", look)
    recipe = store.with_name(f"{crop}.toml")
    recipe.write_text(PHOTOS.replace("{crop}", crop))
    config = TrainConfig(
        selection="all", method="cross-entropy", recipe=str(recipe), name=crop, loader="torch", workers=0, device="cpu"
    )
    api.train(config, store=store)
    return np.concatenate(seen)


def test_random_resized_crops_are_torchvisions_over_the_whole_photograph(store, monkeypatch) -> None:
    box = boxes(store, "random-resized", monkeypatch)
    width, height = box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]
    torch.manual_seed(0)
    drawn = [
        RandomResizedCrop.get_params(torch.empty(3, HEIGHT, WIDTH), (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)
    ]
    their_top, their_left, their_height, their_width = np.array(drawn).T
    for ours, theirs in (
        (width * height, their_width * their_height / (WIDTH * HEIGHT)),
        (width, their_width / WIDTH),
        (height, their_height / HEIGHT),
        (box[:, 0], their_left / WIDTH),
        (box[:, 2], their_top / HEIGHT),
        (box[:, 1] > 7 / 8, (their_left + their_width) / WIDTH > 7 / 8),
    ):
        assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.035)
    assert (box[:, 0] < 1 / 8).mean() > 0.2
    assert (box[:, 1] > 7 / 8).mean() > 0.2


def test_random_windows_move_over_the_whole_photograph(store, monkeypatch) -> None:
    box = boxes(store, "random", monkeypatch)
    side = 112 / 128  # of the short side
    assert np.allclose(box[:, 3] - box[:, 2], side, atol=0.02)
    assert np.allclose(box[:, 1] - box[:, 0], side * HEIGHT / WIDTH, atol=0.02)
    assert box[:, 0].min() < 0.02
    assert box[:, 1].max() > 0.98
    assert box[:, 0].mean() == pytest.approx((1 - side * HEIGHT / WIDTH) / 2, abs=0.03)
