"""Zero-shot rules over a large store, in its own process: one JSON line.

    python -m bench.select_scale ROWS [DEVICE]

The store is drawn chunk by chunk into a temporary folder; the plain matrix product of the same shapes is measured in
this process before and after, on blocks that are ready in float32.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace

from bench.geometry import CHUNK, Generator

CLASSES, PROMPTS, DIM = 1_000, 8_000, 512


def build(path: Path, rows: int) -> object:
    from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
    from cleanctl.store import Store

    generator = Generator(dim=DIM, classes=CLASSES, prompts=PROMPTS)
    store = Store.create(path, classes=[f"c{k}" for k in range(CLASSES)], encoder={"model": "synthetic"})
    store.write_text(
        TextEmbeddings(embedding_PD=generator.text_PD, class_P=generator.class_P, prompts=("",) * PROMPTS), {}
    )
    label_N = np.random.default_rng(0).integers(0, CLASSES, rows).astype(np.int32)
    zero_N = np.zeros(rows, np.int64)
    fingerprints = Fingerprints(digest_N16=np.zeros((rows, 16), np.uint8), size_N=zero_N, mtime_ns_N=zero_N)
    manifest = SplitManifest(split="train", keys=[f"{row:09d}" for row in range(rows)], label_N=label_N)
    with store.write_split(manifest, dim=DIM, fingerprints=fingerprints) as writer:
        for start, (image, _, _) in zip(range(0, rows, CHUNK), generator.chunks(rows)):
            writer.put(np.arange(start, start + len(image)), image)
        writer.finish()
    return store


def matmul_rate(device: str) -> float:
    """Rows a second of image @ text alone in float32, median of five blocks of 4,096 rows."""
    rng = np.random.default_rng(0)
    image, text = (as_array(rng.standard_normal(shape, np.float32), device) for shape in ((4_096, DIM), (DIM, PROMPTS)))
    xp, seconds = namespace(image), []
    out = image @ text
    for _ in range(6):
        start = time.perf_counter()
        xp.matmul(image, text, out=out)
        float(out[-1, -1])  # waits for it
        seconds.append(time.perf_counter() - start)
    return 4_096 / float(np.median(seconds[1:]))


class PeakResident(threading.Thread):
    """Highest resident MiB while it runs; the kernel's own high-water mark would include building the store."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.done = 0.0, threading.Event()

    def run(self) -> None:
        page = resource.getpagesize()
        while not self.done.wait(0.05):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.peak = max(self.peak, pages * page / 2**20)


def score(path: str, rows: int, device: str) -> None:
    from cleanctl.config import SelectConfig
    from cleanctl.runtime import choose_device
    from cleanctl.score.compute import score_split
    from cleanctl.store import Store

    store = Store.open(Path(path))
    on = choose_device(device).value
    before = matmul_rate(on)
    watch = PeakResident()
    watch.start()
    start = time.perf_counter()
    score_split(store, store.split("train"), SelectConfig(strategy="zeroshot.loss", device=device))
    seconds = time.perf_counter() - start
    watch.done.set()
    rate = rows / seconds
    plain = (before + matmul_rate(on)) / 2
    line = {
        "rows": rows,
        "classes": CLASSES,
        "prompts": PROMPTS,
        "seconds": seconds,
        "rows_per_s": rate,
        "matmul_rows_per_s": plain,
        "share_of_matmul": rate / plain,
        "peak_mib": watch.peak,
    }
    print(json.dumps(line))


def main(rows: int, device: str = "auto") -> None:
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "s.zarr", rows)
        # A fresh process: what building held must not count as scoring's memory.
        command = [sys.executable, "-m", "bench.select_scale", str(rows), device, str(Path(folder) / "s.zarr")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        score(sys.argv[3], int(sys.argv[1]), sys.argv[2])
    else:
        main(int(sys.argv[1]), *sys.argv[2:])
