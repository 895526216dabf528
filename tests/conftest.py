"""What several suites need: a folder of real JPEG files with a few unreadable ones, and a small open_clip model."""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
import sys
import zlib
from contextlib import suppress
from pathlib import Path

# A process of tests a core. With two threads in each of two processes on two cores numpy's waited for one another: a
# fit of scikit-learn's took twenty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
with suppress(ModuleNotFoundError):  # the kernels are tested without it, too
    import cleanctl  # noqa: F401 - before torch, whose threads then sleep while they wait, as they do in every verb

# isort: split

import numpy as np
import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no hub is asked for anything; its client reads this once, as it is imported

if not torch.cuda.is_available():
    # Without a GPU the kernels run in Triton's interpreter; triton reads this once, at its first import by any test.
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)  # importing FFCV does it anyway, in whichever test is the first

settings.register_profile("any machine", deadline=None)  # a busy one takes its time over an example
settings.load_profile("any machine")

# Files that take twenty seconds and more go first: the last one to start should not keep the other processes waiting.
LONG = (
    "embed/test_kills.py",
    "embed/test_run.py",
    "kernels/test_compile.py",
    "test_doctor.py",
    "distributed/test_devices.py",
    "adapt/test_resume.py",
    "adapt/test_adapt.py",
    "adapt/test_image_path.py",
    "test_damaged_journey.py",
    "images/test_loaders.py",
    "distributed/test_ray.py",
    "embed/test_shards.py",
    "cli/test_ends.py",
    "datasets/test_adapters.py",
    "distributed/test_processes.py",
    "cli/test_journey.py",
    "store/test_readers.py",
    "kernels/test_resize.py",
    "test_runtime.py",
)
SLOW_SECONDS = 1800  # slow tests start processes, which share a machine that may be busy

CLASSES = ("cat", "dog", "owl")
TINY_CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of LONG first, in its order; the others stay as they are. Gives slow ones their time, and skips
    those for a card where there is none."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    if missing := [path.name for path in place if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py puts {', '.join(missing)} first, which is not there")
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """The collector need not go through the modules, and the half a million objects of the libraries, in each test."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else a library tells at the end of what it has leaked


@pytest.fixture(autouse=True)
def _one_tokenizer():
    """open_clip reads its 49,408 words for each model that is opened, a tenth of a second; here once a process."""
    factory = sys.modules.get("open_clip.factory")
    if factory is not None and isinstance(factory.SimpleTokenizer, type):
        factory.SimpleTokenizer = functools.cache(factory.SimpleTokenizer)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder for `local-dir:` with a random two-layer CLIP of 32 px; a second of work."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny-clip")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def draw(seed: int, label: int, size: tuple[int, int]) -> np.ndarray:
    """A noisy picture whose colour tells the class, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    base = np.full((*size, 3), 60, dtype=np.float64)
    base[..., label] = 190
    base += np.linspace(-30, 30, size[1])[None, :, None] + rng.normal(0, 20, (*size, 1))
    return base.clip(0, 255).astype(np.uint8)


def write_images(root: Path, counts: dict[str, int], *, wrong: float = 0.0, seed: int = 0) -> None:
    """root/<split>/<class>/NNN.jpg; a share `wrong` of the training files lies in another class's folder."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for label, name in enumerate(CLASSES):
            for number in range(count):
                moved = split == "train" and rng.random() < wrong
                shown = CLASSES[(label + 1) % len(CLASSES)] if moved else name
                file = root / split / shown / f"{name}-{number:03d}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                size = (int(rng.integers(30, 70)), int(rng.integers(30, 70)))
                Image.fromarray(draw(zlib.crc32(f"{split}/{label}/{number}".encode()), label, size)).save(
                    file, quality=92
                )


@pytest.fixture(scope="session")
def web_folder(tmp_path_factory) -> Path:
    """train/ with 40 files a class, a fifth of them in the wrong folder, and a clean test/ with 8; read only."""
    root = tmp_path_factory.mktemp("web") / "images"
    write_images(root, {"train": 40, "test": 8}, wrong=0.2)
    return root


def _load_helper(name: str):
    """A module beside this file, which tests then import by its name."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- for files and datasets

_load_helper("tars")
_load_helper("published_copy")
_load_helper("python2_pickle")
_s3 = _load_helper("s3")
s3_server, s3 = _s3.s3_server, _s3.s3


# ---- for tests of whole processes

_load_helper("commands")


# ---- for clip, embed and distributed


@pytest.fixture(scope="session")
def tiny():
    """The module tiny.py: a random model, a few images, what a store holds."""
    return _load_helper("tiny")


@pytest.fixture(scope="session")
def arrays(tiny):
    return tiny.arrays


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory, tiny):
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def other_model_dir(tmp_path_factory, tiny):
    return tiny.write_model(tmp_path_factory.mktemp("other-model"), seed=1)


@pytest.fixture
def images(tmp_path, tiny):
    return tiny.write_images(tmp_path / "images")


@pytest.fixture
def recorder(tiny):
    return tiny.Recorder()


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    """No test depends on weights that happen to lie on this disk, and none reaches for the network."""
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
