"""What a source of many small images costs before one is encoded: listing, opening, resuming, status, reading keys.

    python -m bench.keys --rows 100000 1000000 5000000 [--stages list open …] [--keep FOLDER] [--out FILE]

The source is WebDataset tars of 10,000 samples each: a JPEG of 600 to 700 bytes and a `.cls` with one of 1,000 names.
All tars are hard links to one file, so that the disk holds 25 MB of it; their keys differ by the tar's name. The store
is filled through the product's own writer with random embeddings (64 numbers a row) and no encoder. Then each stage is
a process of its own:

    list     the tars' headers are walked, the index of tars is written, the dataset is made
    open     the same with the index of tars at hand
    resume   `cleanctl embed` again, with nothing to embed
    status   `cleanctl status`
    keys     the store's keys, read from the first to the last
    table    `open` with the labels in a CSV file, a row an image
    import   `cleanctl import` of as many rows of 64 numbers, keys and labels in that file
    url      the listing of as many files in 1,000 folders behind a URL; what answers makes the names up

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import report

SAMPLES = 10_000  # of a tar
CLASSES, DIM = 1_000, 64
LOOK = 0.05  # seconds between two looks at a process's memory
STAGES = ("list", "open", "resume", "status", "keys", "table", "import", "url")
NEEDED = {"resume": ("fill", "prompts"), "status": ("fill",), "keys": ("fill",), "table": ("csv",), "import": ("csv",)}


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
            (home / "rows.txt").write_text(str(rows))
            (home / "classes.txt").write_text("".join(f"{name}\n" for name in names()))
            for name in _in_turn(options.stages):
                line = {"rows": rows, "stage": name, **measured(name, home)}
                if name in STAGES:
                    lines.append(line | {"us_a_row": line["cpu_s"] / rows * 1e6})
                    print(lines[-1], file=sys.stderr)
    report("keys", lines, out=options.out)


def _in_turn(wanted: Sequence[str]) -> list[str]:
    """What is measured, and before it what it needs; the index of tars is made without a walk where none is wanted."""
    found = ["list" if "list" in wanted else "index"]
    for name in STAGES[1:]:
        if name in wanted:
            found += [one for one in NEEDED.get(name, ()) if one not in found]
            found.append(name)
    return found


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
        write_index(home, home / "s.tars.parquet")
    elif name == "fill":
        fill(home)
    elif name == "keys":
        from cleanctl.store import Store

        split = Store.open(home / "s.zarr").split("train")
        assert len(split.keys()) == split.num_rows
    elif name == "csv":
        write_csv(home)
    elif name == "table":
        (manifest,) = _opened(home, labels=home / "labels.csv").splits
        assert len(manifest)
    elif name == "url":
        list_url(count_of(home))


def _opened(home: Path, **options: Any) -> Any:
    from cleanctl.datasets.source import open_source

    cache = home / ("s.tars.parquet" if not options else "table.tars.parquet")
    if options:  # the index holds no labels then, and would be another
        cache.unlink(missing_ok=True)
        write_index(home, cache, read=False)
    return open_source(_config(home, **options), cache=cache)


def _config(home: Path, **options: Any) -> Any:
    from cleanctl.config import EmbedConfig

    model = f"local-dir:{home / 'model'}"
    return EmbedConfig(source=home / "tars", classes=home / "classes.txt", model=model, prompts="photo", **options)


def count_of(home: Path) -> int:
    return int((home / "rows.txt").read_text())


def write_csv(home: Path) -> None:
    """labels.csv of all samples, and image.npy for the import."""
    rows = count_of(home)
    with open(home / "labels.csv", "w") as file:
        file.write("path,label\n")
        for row in range(rows):
            tar, number = divmod(row, SAMPLES)
            file.write(f"{tar:05d}/{number:09d},class {number % CLASSES:03d}\n")
    image_ND = np.lib.format.open_memmap(home / "image.npy", "w+", np.float16, (rows, DIM))
    image_ND[:] = np.random.default_rng(0).standard_normal(DIM).astype(np.float16)


def list_url(rows: int) -> None:
    import fsspec

    from cleanctl.files.remote import UrlStorage

    each = rows // CLASSES

    class Names(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "names"

        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[dict[str, Any]]:
            path = self._strip_protocol(path)
            if path.count("/") == 0:
                return [{"name": f"{path}/{name}", "type": "directory", "size": 0} for name in names()]
            found = (f"{path}/{number:09d}.jpg" for number in range(each))
            return [{"name": name, "type": "file", "size": 700, "ETag": name, "Key": name} for name in found]

    fsspec.register_implementation("names", Names)
    assert len(UrlStorage("names://bucket").scan().keys) == each * CLASSES


def write_index(home: Path, path: Path, *, read: bool = True) -> None:
    """The index of tars as a walk would leave it: all tars are one file. read: with the labels."""
    from dataclasses import replace

    from cleanctl.files.local import LocalStorage
    from cleanctl.files.tar_cache import write_indices
    from cleanctl.files.tar_index import LabelFields, index_tar

    storage, fields = LocalStorage.of(home / "tars"), LabelFields(read=read)
    tars = [storage.tar(path.name) for path in sorted((home / "tars").iterdir())]
    first = index_tar(storage, tars[0], fields)
    assert {tar.size for tar in tars} == {tars[0].size}
    write_indices(path, [replace(first, tar=tar) for tar in tars], fields)


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
    if name == "import":
        arrays = ["--image-embeddings", str(home / "image.npy"), "--labels", str(home / "labels.csv")]
        classes = ["--classes", str(home / "classes.txt")]
        command = [*python, "cleanctl", "import", *arrays, *classes, "--store", str(home / "i.zarr"), "--quiet"]
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
    parser.add_argument("--stages", choices=STAGES, nargs="+", default=list(STAGES), help="all but these are left out")
    parser.add_argument("--stage", choices=(*STAGES, "index", "fill", "csv"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
