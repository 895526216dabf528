"""What ends a loader, held against each; the contract of the pass that packs: rows once; torch keeps its threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import commands
import numpy as np
import psutil
import pytest
from loading import collect
from PIL import Image

from cleanctl.records import PixelSpec

SMALL = PixelSpec(size=16)
COUNT = 23
KINDS = ("torch", "torch in two processes", "ffcv", "ffcv while packing", "nvjpeg on cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[Path, list[str]]:
    """23 flat images whose red value is ten times their row."""
    root = tmp_path_factory.mktemp("images")
    for row in range(COUNT):
        Image.new("RGB", (20 + row, 40 - row), (10 * row, 100, 50)).save(root / f"{row:02d}.jpg", quality=98)
    return root, sorted(path.name for path in root.iterdir())


def open_kind(opened, kind: str, images: tuple[Path, list[str]]):
    if kind == "torch in two processes":
        return opened("torch", *images, SMALL, workers=2)
    if kind == "ffcv while packing":
        return opened("ffcv", *images, SMALL, first_row=0)
    return opened(kind, *images, SMALL)


def helpers() -> tuple[set[int], set[int]]:
    """Threads and child processes of this process."""
    threads = {thread.ident for thread in threading.enumerate() if thread.ident is not None}
    return threads, {child.pid for child in psutil.Process().children(recursive=True)}


def left_over(before: tuple[set[int], set[int]]) -> tuple[set[int], set[int]]:
    """What is there beyond `before`, after at most a minute in which it may end."""
    until = time.monotonic() + 60
    while True:
        threads, children = helpers()
        rest = threads - before[0], children - before[1]
        if not any(rest) or time.monotonic() > until:
            return rest
        time.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_loader_leaves_no_thread_and_no_process(kind, opened, images):
    if kind == "torch in two processes":  # its resource tracker starts with the first pool, and outlives every pool
        list(open_kind(opened, kind, images).batches(np.arange(4), batch_size=2))
    before = helpers()
    loader = open_kind(opened, kind, images)
    taken = loader.batches(np.arange(COUNT), batch_size=4)
    next(taken)
    taken.close()
    loader.close()
    assert left_over(before) == (set(), set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_may_be_closed_twice_and_before_its_first_pass(kind, opened, images):
    open_kind(opened, kind, images).close()
    loader = open_kind(opened, kind, images)
    loader.close()
    loader.close()


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_the_pass_that_packs_gives_every_row_once_in_order(opened, images, batch_size):
    loader = open_kind(opened, "ffcv while packing", images)
    row, pixel, ok, reason = collect(loader, range(COUNT), batch_size=batch_size)
    assert row.tolist() == list(range(COUNT)) == np.rint(pixel[..., 0].mean(axis=(1, 2)) / 10).astype(int).tolist()
    assert ok.all()
    assert reason == {}


def test_the_pass_that_packs_may_come_in_several_calls(opened, images):
    loader = open_kind(opened, "ffcv while packing", images)
    seen = [
        row
        for part in (range(0, 9), range(9, 20), range(20, COUNT))
        for batch in loader.batches(np.array(part), batch_size=4)
        for row in batch.row_B.tolist()
    ]
    assert seen == list(range(COUNT))


def test_opening_a_loader_leaves_torch_its_threads(tmp_path):
    """Importing FFCV sets torch's thread count to 1; what computes after it would lose the other cores."""
    code = (
        "import sys, torch; from pathlib import Path; from cleanctl.images.loaders import LoaderRequest, open_loader;"
        "from cleanctl.files.local import LocalStorage;"
        "from cleanctl.records import PixelSpec; torch.set_num_threads(2); assert 'ffcv' not in sys.modules;"
        "request = LoaderRequest(files=LocalStorage.of(sys.argv[1]), keys=['a.png'], spec=PixelSpec(size=8),"
        " beton=Path(sys.argv[1]) / 'x.beton'); loader = open_loader(request, 'ffcv');"
        "list(loader.batches([0], batch_size=1));"
        "print(torch.get_num_threads())"
    )
    pytest.importorskip("ffcv")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    done = commands.run("-c", code, tmp_path)
    assert done.stdout.strip() == "2", done.stderr
