"""Small copies of the published datasets, as `reproduce --data` wants them, and an encoder."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parent.parent


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def write_cifar(root: Path) -> None:
    """A hundred rows of CIFAR-10 and SEAL's label sets, three hundred rows of CIFAR-100; as many of each class."""
    cifar = load("layout_cifar", TESTS / "datasets" / "layouts" / "cifar.py")
    label_N = np.arange(100) % 10
    cifar.build_cifar10(root / "cifar10", each=20, train=label_N)
    cifar.build_cifar100(root / "cifar100", train=np.arange(300) % 100)
    for rate in (0.1, 0.2, 0.3, 0.4):
        noisy_N = np.where(np.arange(100) < 100 * rate, (label_N + 1) % 10, label_N)
        lines = "".join(f"{label},{noisy}\n" for label, noisy in zip(label_N, noisy_N))
        (root / "cifar10" / f"dependent{rate:g}.csv").write_text(f"label,label_noisy\n{lines}")


@pytest.fixture(scope="session")
def cifar(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cifar")
    write_cifar(root)
    return root


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """The folder of every dataset that the tables name."""
    from cleanctl.reproduce.tables import settings

    copies = load("published_copy", TESTS / "published_copy.py").copies()
    root = tmp_path_factory.mktemp("published")
    write_cifar(root)
    for name in {setting.dataset for setting in settings().values()} - {"cifar10", "cifar100"}:
        next(copy for copy in copies if copy.dataset == name).build(root / name)
    split = root / "red-mini-imagenet" / "split"
    for rate in (0.6, 0.8):
        shutil.copy(split / "red_noise_nl_0.4", split / f"red_noise_nl_{rate}")
    return root
