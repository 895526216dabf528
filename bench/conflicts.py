"""How many planted copies `conflicts` finds among real images, and what a million embeddings cost.

    python -m bench.conflicts --images CIFAR --model local-dir:M --train 1000:3000 --test 300:700
    python -m bench.conflicts --rows 1000000

Images: class folders `train/CLASS`, `test/CLASS`; planting.py says what is planted, 1 % of each kind. Told are shares
found of each kind, and groups that hold two images of the source, which are to be looked at: a dataset may have copies
of its own. Rows: embeddings of CLIP's geometry (geometry.py) without images, 1 % of them copies moved by noise and
0.1 % equal; the search runs in a process of its own, whose peak memory is told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.geometry import CHUNK, Generator
from bench.harness import report
from bench.planting import plant
from bench.select_scale import PeakResident

DIM = 512
COPY_NOISE = 0.1  # norm of what is added to a copy: its cosine is about 0.995
COPIES, EQUALS = 0.01, 0.001


def quality(images: Path, model: str, train: slice, test: slice, seed: int) -> list[dict[str, Any]]:
    from cleanctl import api
    from cleanctl.config import ConflictsConfig, EmbedConfig
    from cleanctl.conflicts.read import read_conflicts
    from cleanctl.store import Store

    with tempfile.TemporaryDirectory(dir=images.parent) as folder:
        root, path = Path(folder) / "images", Path(folder) / "s.zarr"
        planted = plant(images, root, seed=seed, train=train, test=test)
        api.embed(EmbedConfig(source=root, model=model, loader="torch", workers=0), store=path)
        summary = api.conflicts(ConflictsConfig(loader="torch", workers=0), store=path)
        store = Store.open(path)
        found, keys = read_conflicts(store, store.split("train")), store.split("train").keys()
    assert found is not None
    row_of, added = {key: row for row, key in enumerate(keys)}, {one.key for one in planted}
    total, hit = Counter(one.kind for one in planted), Counter[str]()
    for one in planted:
        number = int(found.group_N[row_of[one.key]])
        if number < 0:
            continue
        group = found.groups[number]
        leaks = {(keys[leak.row], leak.other_key) for leak in group.leaks}
        in_group = {keys[row] for row in group.row_K.tolist()}
        said = {"leak": (one.key, one.donor) in leaks, "placeholder": "placeholder" in group.kinds}
        hit[one.kind] += said.get(one.kind, one.donor in in_group)
    own = sum(
        sum(keys[row] not in added for row in group.row_K.tolist()) > 1
        or any(keys[leak.row] not in added for leak in group.leaks)
        for group in found.groups
    )
    shared = {"images": summary.count, "groups": summary.groups, "groups_to_look_at": own, "seconds": summary.seconds}
    return [{"kind": kind, "planted": total[kind], "found": hit[kind], **shared} for kind in total]


def build(path: Path, rows: int) -> tuple[int, int]:
    """A store of embeddings, the last rows copies of the first; gives how many are moved, how many equal."""
    from cleanctl.records import Fingerprints, SplitManifest
    from cleanctl.store import Store

    generator, rng = Generator(dim=DIM, classes=100, prompts=100), np.random.default_rng(1)
    moved, equal = int(COPIES * rows), int(EQUALS * rows)
    store = Store.create(path, classes=[f"c{k}" for k in range(100)], encoder={"model": "synthetic"})
    zero_N = np.zeros(rows, np.int64)
    prints = Fingerprints(digest_N16=np.zeros((rows, 16), np.uint8), size_N=zero_N, mtime_ns_N=zero_N)
    label_N = rng.integers(0, 100, rows).astype(np.int32)
    keys = [f"{row:09d}" for row in range(rows)]
    manifest = SplitManifest(split="train", keys=keys, label_N=label_N)
    fresh = rows - moved - equal
    with store.write_split(manifest, dim=DIM, fingerprints=prints) as writer:
        first = np.zeros((0, DIM), np.float16)
        for start, (image, _, _) in zip(range(0, fresh, CHUNK), generator.chunks(fresh)):
            first = np.concatenate([first, image[: moved + equal - len(first)]])
            writer.put(np.arange(start, start + len(image)), image)
        noise = rng.standard_normal((moved, DIM), dtype=np.float32) * (COPY_NOISE / DIM**0.5)
        near = first[:moved].astype(np.float32) + noise
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        copies = np.concatenate([near.astype(np.float16), first[moved:]])
        for start in range(0, len(copies), CHUNK):
            part = copies[start : start + CHUNK]
            writer.put(np.arange(fresh + start, fresh + start + len(part)), part)
        writer.finish()
    return moved, equal


def search(path: str, rows: int, moved: int) -> dict[str, Any]:
    from cleanctl import api
    from cleanctl.config import ConflictsConfig
    from cleanctl.store import Store

    watch, started = PeakResident(), time.perf_counter()  # of the processor all is counted, imports too
    watch.start()
    summary = api.conflicts(ConflictsConfig(), store=path)
    seconds, used = time.perf_counter() - started, time.process_time()
    watch.done.set()
    split = Store.open(Path(path)).split("train")
    group_N = split.scores.read("conflict").arrays["group"]
    fresh = rows - moved - int(EQUALS * rows)
    copies = rows - fresh
    hit_E = (group_N[:copies] == group_N[fresh:]) & (group_N[fresh:] >= 0)
    lone = group_N[copies:fresh]
    return {
        "rows": rows,
        "seconds": seconds,
        "cpu_seconds": used,
        "peak_mib": watch.peak,
        "moved_found": float(hit_E[:moved].mean()),
        "equal_found": float(hit_E[moved:].mean()),
        "others_in_groups": float((lone >= 0).mean()),
        "candidates": summary.candidates,
        "by": summary.search,
    }


def scale(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zarr"
        moved, _ = build(path, rows)
        # A fresh process: what building held must not count.
        command = [sys.executable, "-m", "bench.conflicts", "--search", str(path), str(rows), str(moved)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _slice(text: str) -> slice:
    start, _, stop = text.partition(":")
    return slice(int(start), int(stop))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--train", type=_slice, default=slice(None))
    parser.add_argument("--test", type=_slice, default=slice(None))
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--search", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.search:
        print(json.dumps(search(given.search[0], int(given.search[1]), int(given.search[2]))))
        return
    if given.images:
        rows = quality(given.images, given.model, given.train, given.test, given.seed)
        report("conflicts quality", rows, out=given.out, seed=given.seed, model=Path(given.model).name)
    for one in given.rows:
        report("conflicts scale", [scale(one)], out=given.out)


if __name__ == "__main__":
    main()
