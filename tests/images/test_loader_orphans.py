"""A loader's processes end with a parent that is killed, even those that wait to hand over a batch."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
from PIL import Image

LOAD = """
import sys, time
import numpy as np
from cleanctl.files.local import LocalStorage
from cleanctl.images.torch_loader import TorchLoader
from cleanctl.records import PixelSpec

loader = TorchLoader(
    files=LocalStorage(sys.argv[1]), keys=["one.jpg"] * 400, spec=PixelSpec(size=224), workers=2
)
batches = iter(loader.batches(np.arange(400), batch_size=40))
next(batches)  # 6 MB each, in a pipe of 64 KiB
print("loading", flush=True)
time.sleep(600)
"""


def test_a_loader_whose_process_is_killed_leaves_none_behind(tmp_path):
    Image.new("RGB", (64, 64), (100, 100, 50)).save(tmp_path / "one.jpg")
    with subprocess.Popen([sys.executable, "-c", LOAD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "loading\n"
            workers = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.5)  # the next batches are ready, and nobody takes them
        finally:
            process.kill()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    for one in alive:
        one.kill()
    assert not alive
