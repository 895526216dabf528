"""Drawn shapes in class folders with copies planted among them, embedded and searched."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import cleanctl.demo
from cleanctl import api
from cleanctl.config import ConflictsConfig, EmbedConfig
from cleanctl.conflicts.read import StoredConflicts, read_conflicts
from cleanctl.demo.draw import draw_jpeg
from cleanctl.demo.shapes import CLASSES
from cleanctl.results import ConflictsSummary
from cleanctl.store import Store

DEMO_MODEL = Path(cleanctl.demo.__file__).parent / "model"


@pytest.fixture(scope="session")
def planting():
    """The module bench/planting.py, which is not installed."""
    file = Path(__file__).resolve().parents[2] / "bench" / "planting.py"
    spec = importlib.util.spec_from_file_location("planting", file)
    module = sys.modules["planting"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_folders(root: Path, counts: dict[str, int], *, seed: int) -> Path:
    """root/SPLIT/CLASS/NNNNN.jpg, as many of each split."""
    for stream, (split, count) in enumerate(counts.items()):
        for number in range(count):
            scene, data = draw_jpeg(seed, stream, number)
            file = root / split / CLASSES[scene.label] / f"{number:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return root


@dataclass(frozen=True)
class Searched:
    """A store, what was planted in its source, and what `conflicts` said and left."""

    root: Path
    path: Path
    planted: list
    summary: ConflictsSummary

    @property
    def store(self) -> Store:
        return Store.open(self.path)

    @property
    def found(self) -> StoredConflicts:
        store = self.store
        found = read_conflicts(store, store.split("train"))
        assert found is not None
        return found

    @property
    def keys(self) -> list[str]:
        return self.store.split("train").keys()

    def of(self, *kinds: str) -> list:
        return [one for one in self.planted if one.kind in kinds]


def search(root: Path, path: Path, planted: list, **options) -> Searched:
    embed = EmbedConfig(source=root, model=f"local-dir:{DEMO_MODEL}", prompts="photo", loader="torch", workers=0)
    api.embed(embed, store=path)
    summary = api.conflicts(ConflictsConfig(loader="torch", workers=0, **options), store=path)
    return Searched(root, path, planted, summary)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory, planting) -> Searched:
    """240 images for training and 60 for testing, and 5 % of the former planted of each kind; read only."""
    folder = tmp_path_factory.mktemp("conflicts")
    drawn = draw_folders(folder / "drawn", {"train": 240, "test": 60}, seed=77)
    planted = planting.plant(drawn, folder / "images", seed=5, share=0.05)
    return search(folder / "images", folder / "cleanctl.zarr", planted)


@pytest.fixture(scope="session")
def few_once(tmp_path_factory, planting) -> Searched:
    """24 and 8 images, with two planted of each kind."""
    folder = tmp_path_factory.mktemp("few")
    drawn = draw_folders(folder / "drawn", {"train": 24, "test": 8}, seed=78)
    planted = planting.plant(drawn, folder / "images", seed=6, share=2 / 24)
    return search(folder / "images", folder / "cleanctl.zarr", planted, placeholder_copies=2)


@pytest.fixture
def few(tmp_path, few_once) -> Searched:
    """A copy of it that a test may change."""
    root, path = tmp_path / "images", tmp_path / "cleanctl.zarr"
    shutil.copytree(few_once.root, root)
    shutil.copytree(few_once.path, path)
    store = Store.open(path)
    store.annotate(source={**store.source, "root": str(root)})
    return replace(few_once, root=root, path=path)
