"""What a busy machine costs: each verb on two cores, alone, and with one of the two taken by another process.

    python -m bench.busy [--verbs import,select,embed,train] [--rows 50000] [--images 256] [--small-images 4096]
                         [--model ViT-B-32] [--runs 3] [--spin] [--out FILE]

import, select  embeddings of CLIP's geometry, --rows × 512, 100 classes, 800 prompts
embed           --images drawn photographs through --model with random weights, packing included
train           one epoch of the recipe cpu-small on --small-images images of 32 pixels

Each measurement is a fresh process, which has imported what it needs before its clock starts. `ratio` is busy by idle;
threads that wait asleep keep it near 2, threads that spin do not. `--spin` measures those too, for comparison: they
wait as long as GNU OpenMP's do by default. The sides run in turn, idle, busy, idle, … Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.harness import report, summarize

VERBS = ("import", "select", "embed", "train")
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own number where no OMP_WAIT_POLICY is set


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)  # for all that is started here
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        verbs = options.verbs.split(",")
        _prepare(home, verbs, options)
        rows = []
        for verb in verbs:
            for waiting, environment in {"sleep": {}, "spin": SPINNING}.items():
                if waiting == "sleep" or options.spin:
                    rows.append({"verb": verb, "threads": waiting, **_measure(home, verb, environment, options.runs)})
        sizes = {"rows_imported": options.rows, "images": options.images, "small_images": options.small_images}
        report("busy", rows, out=options.out, cores=len(cores), model=options.model, **sizes)


def _measure(home: Path, verb: str, environment: dict[str, str], runs: int) -> dict[str, Any]:
    _seconds(home, verb, environment)  # what the first run leaves in caches
    idle, busy = [], []
    for _ in range(runs):
        idle.append(_seconds(home, verb, environment))
        with _one_core_taken():
            busy.append(_seconds(home, verb, environment))
    alone, beside = summarize(idle), summarize(busy)
    return {
        "n": runs,
        "idle s": alone.median,
        "idle q1 s": alone.low,
        "idle q3 s": alone.high,
        "busy s": beside.median,
        "busy q1 s": beside.low,
        "busy q3 s": beside.high,
        "ratio": beside.median / alone.median,
    }


@contextmanager
def _one_core_taken() -> Iterator[None]:
    last = max(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{last}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as spinner:
        try:
            yield
        finally:
            spinner.kill()


def _seconds(home: Path, verb: str, environment: dict[str, str]) -> float:
    """Of one verb in a fresh process, on a fresh copy of the store that it starts from."""
    store = home / "run.zarr"
    for old in home.glob("run.*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for made in home.glob(f"{verb}-start.*"):
        place = store.with_name(made.name.replace(f"{verb}-start", "run", 1))
        shutil.copytree(made, place) if made.is_dir() else shutil.copy2(made, place)
    command = [sys.executable, "-m", "bench.busy", "--child", verb, "--home", str(home)]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _prepare(home: Path, verbs: list[str], options: argparse.Namespace) -> None:
    """What each verb starts from: arrays, images, and stores named VERB-start.zarr."""
    from cleanctl.api import embed
    from cleanctl.config import EmbedConfig

    if {"import", "select"} & {*verbs}:
        _write_arrays(home, options.rows)
    if "select" in verbs:
        _import(home, home / "select-start.zarr")
    if {"embed", "train"} & {*verbs}:
        from bench.embed import draw_photographs, random_model

        random_model(options.model, home / "model")
        if "embed" in verbs:
            draw_photographs(home / "photographs", options.images, 400)
    if "train" in verbs:
        model = random_model("tiny", home / "tiny")
        _draw_small(home / "small", options.small_images)
        config = EmbedConfig(source=home / "small", model=f"local-dir:{model}", prompts="photo")
        embed(config, store=home / "train-start.zarr")


def _write_arrays(home: Path, rows: int) -> None:
    from bench.geometry import clip_like

    data = clip_like(rows)
    for name, array in (("X", data.image_ND), ("y", data.label_N), ("T", data.text_PD), ("c", data.class_P)):
        np.save(home / f"{name}.npy", array)


def _draw_small(root: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / "train" / "abcdefghij"[number % 10]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.jpg", quality=90)


# ---- in the process that is measured


def _import(home: Path, store: Path) -> None:
    from cleanctl.api import import_arrays
    from cleanctl.config import ImportConfig

    places = {"image_embeddings": "X", "labels": "y", "text_embeddings": "T", "text_classes": "c"}
    import_arrays(ImportConfig(**{field: home / f"{name}.npy" for field, name in places.items()}), store=store)


def _child(verb: str, home: Path) -> None:
    import cleanctl.api as api
    from cleanctl.config import EmbedConfig, SelectConfig, TrainConfig

    import open_clip  # noqa: F401  isort: skip
    import pyarrow.parquet  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import zarr  # noqa: F401

    store = home / "run.zarr"
    embed = EmbedConfig(source=home / "photographs", model=f"local-dir:{home / 'model'}", prompts="photo")
    train = TrainConfig(selection="all", method="cross-entropy", recipe="cpu-small", epochs=1)
    work = {
        "import": lambda: _import(home, store),
        "select": lambda: api.select(SelectConfig(), store=store),
        "embed": lambda: api.embed(embed, store=store),
        "train": lambda: api.train(train, store=store),
    }[verb]
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--small-images", type=int, default=4096)
    parser.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip, or tiny")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--spin", action="store_true", help="measure threads that spin, too")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=VERBS, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    return parser.parse_known_args()[0]  # `python -m bench` hands every suite the same options


if __name__ == "__main__":
    given = _options()
    if given.child:
        _child(given.child, given.home)
    else:
        main()
