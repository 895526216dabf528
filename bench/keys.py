"""What a source of many small images costs before one is encoded: listing, opening, resuming, status, reading keys.

    python -m bench.keys --rows 100000 1000000 5000000 [--keep FOLDER] [--out FILE]

The source is WebDataset tars of 10,000 samples each: a JPEG of 600 to 700 bytes and a `.cls` with one of 1,000 names.
All tars are hard links to one file, so that the disk holds 25 MB of it; their keys differ by the tar's name. The store
is filled through the product's own writer with random embeddings (64 numbers a row) and no encoder. Then each stage is
a process of its own:

    list     the tars' headers are walked, the index of tars is written, the dataset is made
    open     the same with the index of tars at hand
    resume   `cleanctl embed` again, with nothing to embed
    status   `cleanctl status`
    keys     the store's keys, read from the first to the last

cpu_s is what all cores spent, peak_mib the process's own high-water mark of resident memory; both hold Python's start.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import report

SAMPLES = 10_000  # of a tar
CLASSES, DIM = 1_000, 64
LOOK = 0.05  # seconds between two looks at a process's memory
STAGES = ("list", "open", "resume", "status", "keys")


def main() -> None:
    options = _options()
    if options.stage:
        stage(options.stage, options.keep)
        return
    lines: list[dict[str, Any]] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.keep) as folder:
            home = Path(folder)
            write_tars(home / "tars", rows)
            (home / "classes.txt").write_text("".join(f"{name}\n" for name in names()))
            for name in ("index" if options.no_walk else "list", "fill", "prompts", *STAGES[1:]):
                line = {"rows": rows, "stage": name, **measured(name, home)}
                if name in STAGES:
                    lines.append(line | {"us_a_row": line["cpu_s"] / rows * 1e6})
                    print(lines[-1], file=sys.stderr)
    report("keys", lines, out=options.out)


def names() -> list[str]:
    return [f"class {number:03d}" for number in range(CLASSES)]


# ---- the source


def write_tars(folder: Path, rows: int) -> None:
    folder.mkdir(parents=True)
    count, last = divmod(rows, SAMPLES)
    for number in range(count):
        path = folder / f"{number:05d}.tar"
        if number:
            os.link(folder / "00000.tar", path)
        else:
            path.write_bytes(tar_of(SAMPLES))
    if last:
        (folder / f"{count:05d}.tar").write_bytes(tar_of(last))


def tar_of(samples: int) -> bytes:
    image = _jpeg()
    parts = []
    for number in range(samples):
        parts.append(_member(f"{number:09d}.jpg", image))
        parts.append(_member(f"{number:09d}.cls", f"class {number % CLASSES:03d}".encode()))
    return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, data: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _jpeg() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 120, 40)).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


# ---- the stages, each in its own process


def stage(name: str, home: Path) -> None:
    if name in ("list", "open"):
        if name == "list":
            (home / "s.tars.parquet").unlink(missing_ok=True)
        (manifest,) = _opened(home).splits
        assert len(manifest)
    elif name == "index":
        write_index(home)
    elif name == "fill":
        fill(home)
    elif name == "keys":
        from cleanctl.store import Store

        split = Store.open(home / "s.zarr").split("train")
        assert len(split.keys()) == split.num_rows


def _opened(home: Path) -> Any:
    from cleanctl.datasets.source import open_source

    return open_source(_config(home), cache=home / "s.tars.parquet")


def _config(home: Path) -> Any:
    from cleanctl.config import EmbedConfig

    return EmbedConfig(
        source=home / "tars", classes=home / "classes.txt", model=f"local-dir:{home / 'model'}", prompts="photo"
    )


def write_index(home: Path) -> None:
    """The index of tars as a walk would leave it: all tars are one file."""
    from dataclasses import replace

    from cleanctl.files.local import LocalStorage
    from cleanctl.files.tar_cache import write_indices
    from cleanctl.files.tar_index import LabelFields, index_tar

    storage, fields = LocalStorage.of(home / "tars"), LabelFields()
    tars = [storage.tar(path.name) for path in sorted((home / "tars").iterdir())]
    first = index_tar(storage, tars[0], fields)
    assert {tar.size for tar in tars} == {tars[0].size}
    write_indices(home / "s.tars.parquet", [replace(first, tar=tar) for tar in tars], fields)


def fill(home: Path) -> None:
    """Every row embedded, as the verb would leave it, without a network."""
    from bench.embed import random_model
    from cleanctl.clip.models import resolve_model
    from cleanctl.embed.opening import EncoderMachine
    from cleanctl.progress import SILENT
    from cleanctl.records import Fingerprints
    from cleanctl.store import Store

    random_model("tiny", home / "model")
    config, dataset = _config(home), _opened(home)
    machine = EncoderMachine(
        resolve_model(config.model, None), device="cpu", precision=config.precision, progress=SILENT
    )
    store = Store.create(home / "s.zarr", classes=dataset.classes, encoder=machine.info.to_json())
    (manifest,) = dataset.splits
    now = dataset.files.stat(manifest.keys)
    random, step = np.random.default_rng(0), 65_536
    with store.write_split(manifest, dim=DIM, fingerprints=now) as writer:
        for start in range(0, len(manifest), step):
            row_B = np.arange(start, min(start + step, len(manifest)))
            image_BD = random.standard_normal((len(row_B), DIM), np.float32)
            image_BD /= np.linalg.norm(image_BD, axis=1, keepdims=True)
            digest_B16 = random.integers(1, 256, (len(row_B), 16)).astype(np.uint8)
            of_B = Fingerprints(digest_N16=digest_B16, size_N=now.size_N[row_B], mtime_ns_N=now.mtime_ns_N[row_B])
            writer.put(row_B, image_BD.astype(np.float16), of_B)
        writer.finish()


# ---- measuring


def measured(name: str, home: Path) -> dict[str, float]:
    """wall_s, cpu_s, peak_mib of a fresh process."""
    store = ["--store", str(home / "s.zarr"), "--quiet"]
    python = [sys.executable, "-m"]
    config = ["--classes", str(home / "classes.txt"), "--model", f"local-dir:{home / 'model'}", "--prompts", "photo"]
    command = [*python, "bench.keys", "--stage", name, "--keep", str(home)]
    if name in ("resume", "prompts"):  # the first one embeds the prompts
        command = [*python, "cleanctl", "embed", str(home / "tars"), *config, "--device", "cpu", *store]
    if name == "status":
        command = [*python, "cleanctl", "status", *store]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "passive"}
    started, before, peak = time.perf_counter(), _cpu(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as child:
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:  # what the kernel says at the end would hold this process's own peak
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            peak = int(found[1]) if found else peak
            time.sleep(LOOK)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed.")
    return {"wall_s": time.perf_counter() - started, "cpu_s": _cpu() - before, "peak_mib": peak / 1024}


def _cpu() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--keep", type=Path, help="the folder for temporary files (default: the system's)")
    parser.add_argument("--no-walk", action="store_true", help="without the stage list: the index of one tar for all")
    parser.add_argument("--stage", choices=(*STAGES, "index", "fill", "prompts"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
