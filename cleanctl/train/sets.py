"""The images of a run: training views, every training image as it is, and the splits it tests on.

A recipe that crops photographs (`Recipe.loader_crop`) trains on random boxes of the whole image, which the loader
cuts anew in every epoch; everything else is read as one square an image and can be kept (pixels.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cleanctl.config import TrainConfig
from cleanctl.images.geometry import Crop
from cleanctl.images.loaders import SeededLoader
from cleanctl.progress import Progress
from cleanctl.records import PixelSpec
from cleanctl.runtime import StopFlag
from cleanctl.store import Store
from cleanctl.train.pixels import Pixels, StreamedPixels, open_pixels
from cleanctl.train.pool import TEST_SPLITS, TrainingPool, find_tests, known_labels
from cleanctl.train.recipe import Recipe


class LoaderFactory(Protocol):
    """Gives a loader of a split of the store, at a geometry and with random crops if asked for."""

    def __call__(self, split: str, spec: PixelSpec, crop: Crop | None = None) -> SeededLoader: ...


@dataclass(frozen=True)
class TestSet:
    """label_T: the true class of each of its T images, all known."""

    pixels: Pixels
    label_T: np.ndarray


class Sets:
    """Opened as they are asked for; `close` when the run is over."""

    def __init__(
        self,
        store: Store,
        pool: TrainingPool,
        recipe: Recipe,
        config: TrainConfig,
        device: str,
        factory: LoaderFactory,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        self._store, self._pool, self._recipe, self._config, self._device = store, pool, recipe, config, device
        self._factory, self._progress, self._stop = factory, progress, stop
        self._loaders: list[SeededLoader] = []
        self._plain: Pixels | None = None
        self._training: Pixels | None = None
        tested = [name for name in store.split_names() if name in TEST_SPLITS and name != config.split]
        self._rows = {name: known for name in tested if len((known := self._known(name))[0])}
        self.splits = find_tests(self._rows)

    def training(self) -> Pixels:
        """What the steps of an epoch are made from."""
        recipe, row_M = self._recipe, self._pool.row_M
        if (crop := recipe.loader_crop()) is None:
            return self.plain()
        loader = self._load(self._config.split, recipe.pixel_spec(recipe.image_size), crop)
        self._progress.note(f"Training images: cropped at random by the {loader.name} loader in every epoch.")
        self._training = StreamedPixels(loader, row_M, np.ones(len(row_M), bool), self._device)
        return self._training

    def plain(self) -> Pixels:
        """Every training image by position, at the load size."""
        if self._plain is None:
            self._plain = self._open(self._config.split, self._pool.row_M, "Training images")
        return self._plain

    def tests(self) -> dict[str, TestSet]:
        """By split. Rows whose truth is unknown are left out, as `eval` leaves them out."""
        return {
            name: TestSet(self._open(name, self._rows[name][0], f"Images of {name}"), self._rows[name][1])
            for name in self.splits
        }

    def unreadable(self) -> set[int]:
        """Positions of training images that streaming could not read, in this process."""
        streamed = [pixels for pixels in (self._plain, self._training) if isinstance(pixels, StreamedPixels)]
        return set().union(*(pixels.unreadable for pixels in streamed))

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()

    def _known(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a split that can be tested on, and their true classes."""
        split = self._store.split(name)
        label_N, _ = known_labels(split)
        row_T = split.ok_rows()
        row_T = row_T[label_N[row_T] >= 0]
        return row_T, label_N[row_T]

    def _open(self, split: str, row: np.ndarray, title: str) -> Pixels:
        return open_pixels(
            self._load(split, self._recipe.pixel_spec(self._recipe.load_size)),
            row,
            side=self._recipe.load_size,
            device=self._device,
            cache=self._config.cache,
            title=title,
            progress=self._progress,
            stop=self._stop,
        )

    def _load(self, split: str, spec: PixelSpec, crop: Crop | None = None) -> SeededLoader:
        loader = self._factory(split, spec) if crop is None else self._factory(split, spec, crop)
        self._loaders.append(loader)
        return loader
