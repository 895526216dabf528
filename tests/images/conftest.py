"""What the tests of images share: photographs at several sizes, and the way they open every loader."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _load(name: str) -> None:
    """A helper beside this file, which tests import by its name."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_load("odd_images")
_load("loading")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


LOADERS = [
    "torch",
    pytest.param("ffcv", marks=needs("ffcv")),
    pytest.param("nvjpeg on cpu", marks=needs("torchcodec")),  # all of it but the decoder itself
    pytest.param("nvjpeg", marks=[needs("torchcodec"), pytest.mark.gpu]),
]


class Recorder:
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.titles: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def track(self, title, *, total, unit, done=0):
        self.titles.append(title)
        yield self

    def advance(self, amount: int = 1) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(params=LOADERS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def opened(tmp_path_factory):
    """open(kind, root, keys, spec, …) → a loader that the test need not close; `torch` decodes in this process."""
    from cleanctl.files.local import LocalStorage
    from cleanctl.images.loaders import LoaderRequest, open_loader
    from cleanctl.images.nvjpeg_loader import NvjpegLoader
    from cleanctl.progress import SILENT

    loaders = []

    def open_one(kind, root, keys, spec, progress=SILENT, **more):
        files, keys = LocalStorage.of(root), list(keys)
        if kind == "nvjpeg on cpu":
            loader = NvjpegLoader(files=files, keys=keys, spec=spec, threads=2, device="cpu", **more)
        else:
            more.setdefault("workers", 0 if kind == "torch" else 2)
            if kind == "ffcv":
                more.setdefault("beton", tmp_path_factory.mktemp("beton") / "store.train.beton")
            loader = open_loader(LoaderRequest(files=files, keys=keys, spec=spec, **more), kind, progress)
        loaders.append(loader)
        return loader

    yield open_one
    for loader in loaders:
        loader.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Two real photographs as JPEG, PNG and WebP, from ribbons to four times the resolution limit."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    root = tmp_path_factory.mktemp("photos")
    for name, array in zip(("china", "flower"), load_sample_images().images):
        image = Image.fromarray(array)  # 640 × 427
        wall = Image.new("RGB", (1801, 1203))  # fine detail at a large downscale, and odd sides
        for left in range(0, 1801, 640):
            for top in range(0, 1203, 427):
                wall.paste(image, (left, top))
        image.save(root / f"{name}.jpg", quality=90)
        image.resize((501, 333)).save(root / f"{name}-501.jpg", quality=75)
        image.crop((100, 100, 421, 419)).save(root / f"{name}-progressive.jpg", quality=88, progressive=True)
        image.crop((0, 100, 640, 180)).save(root / f"{name}-wide.jpg", quality=92)
        image.crop((300, 0, 381, 427)).save(root / f"{name}-tall.jpg", quality=92)
        image.crop((100, 100, 164, 164)).save(root / f"{name}-64.png")
        image.crop((200, 50, 601, 391)).save(root / f"{name}.webp", quality=90)
        image.save(root / f"{name}.png")
        wall.save(root / f"{name}-wall.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def photo_keys(photos) -> list[str]:
    return sorted(path.name for path in photos.iterdir())


@pytest.fixture
def source(tmp_path) -> Path:
    from odd_images import picture

    root = tmp_path / "images"
    root.mkdir()
    for row in range(9):
        picture(40 + row, 30).save(root / f"{row}.jpg", quality=90 + row)
    return root


@pytest.fixture
def opened_files(monkeypatch) -> list[str]:
    """The files that packing reads, by name."""
    from cleanctl.files import local as reading

    names: list[str] = []
    read = reading.read_file
    monkeypatch.setattr(reading, "read_file", lambda path: names.append(Path(path).name) or read(path))
    return names
