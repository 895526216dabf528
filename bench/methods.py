"""What each training method makes of the same selection, on real images with known truth: one command, one table.

    python -m bench.methods --cifar FOLDER --labels labels_train.csv --model MODEL --work DIR --out FILE.jsonl
                            [--seeds 3] [--dear-seeds 1] [--contenders NAME,…] [--noise NAME,…] [--recipe FILE]
    python -m bench.methods --out FILE.jsonl --doc FILE.md

CIFAR-10 rows 0–39,999 embedded with MODEL (a local open_clip folder), four kinds of label noise, `select --strategy
intersection`, then every method with the same recipe (bench/methods.toml), the same number of optimiser steps and the
same seeds; tested on CIFAR-10's 10,000 test images. DivideMix takes a quarter of the batch size, so that each of its
networks sees as many images a step as the others: two views of as many labelled and unlabelled ones.

DIR keeps decoded images, embeddings, stores and run folders; --out gets a line a finished run. The same command goes on
where it was stopped: finished runs are not made again. With --doc it only writes the tables between FILE.md's markers.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.harness import machine
from bench.quality_tasks import embed
from cleanctl import api
from cleanctl.config import ImportConfig, Noise, SelectConfig, TrainConfig
from cleanctl.datasets.noise import corrupt
from cleanctl.files.fingerprints import no_fingerprints
from cleanctl.images.geometry import Crop
from cleanctl.records import ImageBatch, PixelSpec
from cleanctl.store import Store
from cleanctl.train import train

COLUMNS = {"idn 0.4": "idn_0.4", "human worse": "cifar10n_worse"}  # of labels_train.csv; the others are drawn
NOISES = ("symmetric:0.5", "symmetric:0.8", *COLUMNS)
ROWS, SIDE, FIRST_SEED = 40_000, 32, 3047
MARKS = ("<!-- methods: begin -->", "<!-- methods: end -->")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table. dear: run with --dear-seeds seeds."""

    name: str
    method: str
    selection: str = "intersection"
    batch_size: int | None = None
    dear: bool = False


CONTENDERS = (
    Contender(name="cross-entropy", method="cross-entropy", selection="all"),
    Contender(name="mixup", method="mixup", selection="all"),
    Contender(name="cross-entropy on the selection", method="cross-entropy"),
    Contender(name="mixup on the selection", method="mixup"),
    Contender(name="MixFix", method="mixfix"),
    Contender(name="co-training", method="co-training", dear=True),
    Contender(name="DivideMix", method="dividemix", batch_size=16, dear=True),
)


class HeldImages:
    """A loader over decoded images; every run of the suite shares them."""

    name = "memory"

    def __init__(self, pixel_NSSC: np.ndarray) -> None:
        self.pixel_NSSC = pixel_NSSC

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        for at in range(0, len(row_N), batch_size):
            row = np.asarray(row_N[at : at + batch_size])
            yield ImageBatch(
                row_B=row,
                pixel_BSSC=np.ascontiguousarray(self.pixel_NSSC[row]),
                ok_B=np.ones(len(row), bool),
                reason={},
                fingerprints=no_fingerprints(len(row)),
            )

    def close(self) -> None:
        pass


# ---- data


def read_arrays(options: argparse.Namespace, table: list[dict[str, str]], names: list[str]) -> dict[str, np.ndarray]:
    """Pixels uint8 (N, 32, 32, 3) and embeddings of both splits, test labels; made once, kept in DIR/arrays.npz."""
    kept = options.work / "arrays.npz"
    if kept.exists():
        return dict(np.load(kept))
    tested = [{"path": str(path.relative_to(options.cifar))} for path in sorted(options.cifar.glob("test/*/*.jpg"))]
    arrays: dict[str, Any] = {"label_test": np.array([names.index(Path(row["path"]).parent.name) for row in tested])}
    for split, rows in (("train", table), ("test", tested)):
        found = embed(options.cifar, rows, options.model, names)
        arrays |= {f"image_{split}": found["image"], "text": found["text"]}
        arrays[f"pixel_{split}"] = decode(options.cifar, rows)
    np.savez(kept, **arrays)
    return arrays


def label_set(noise: str, table: list[dict[str, str]], truth_N: np.ndarray, names: list[str]) -> np.ndarray:
    if noise in COLUMNS:
        return np.array([int(row[COLUMNS[noise]]) for row in table])
    return corrupt(truth_N.astype(np.int32), Noise.parse(noise), classes=names, seed=0)


def decode(folder: Path, rows: list[dict[str, str]]) -> np.ndarray:
    from PIL import Image

    return np.stack([np.asarray(Image.open(folder / row["path"]).convert("RGB")) for row in rows])


def make_store(
    path: Path, arrays: dict[str, np.ndarray], label_N: np.ndarray, truth_N: np.ndarray, names: list[str]
) -> Store:
    """A store of both splits with the selection `intersection`."""
    folder = path.with_suffix(".arrays")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    np.save(folder / "text.npy", arrays["text"])
    np.save(folder / "text_classes.npy", np.arange(len(names)))
    for split, label, truth in (("train", label_N, truth_N), ("test", arrays["label_test"], arrays["label_test"])):
        for name, values in (("image", arrays[f"image_{split}"]), ("label", label), ("truth", truth)):
            np.save(folder / f"{split}_{name}.npy", values)
        given = ImportConfig(
            image_embeddings=folder / f"{split}_image.npy",
            labels=folder / f"{split}_label.npy",
            truth=folder / f"{split}_truth.npy",
            text_embeddings=folder / "text.npy",
            text_classes=folder / "text_classes.npy",
            classes=folder / "classes.txt",
            split=split,
        )
        api.import_arrays(given, store=path)
    api.select(SelectConfig(strategy="intersection", name="intersection"), store=path)
    store = Store.open(path)
    assert np.array_equal(store.split("train").label_N(), label_N), "rows are no longer those of the images"
    return store


# ---- runs


def run_all(options: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
    with options.labels.open() as file:
        table = list(csv.DictReader(file))[:ROWS]
    names = (options.classes or options.labels.with_name("classes.txt")).read_text().split()
    truth_N = np.array([int(row["clean"]) for row in table])
    options.work.mkdir(parents=True, exist_ok=True)
    arrays = read_arrays(options, table, names)
    labels = {noise: label_set(noise, table, truth_N, names) for noise in options.noise.split(",")}
    stores = {}
    for noise, label_N in labels.items():
        path = options.work / f"{noise.replace(':', '-').replace(' ', '-')}.zarr"
        there = path.exists() and "intersection" in Store.open(path).split("train").results("selections")
        stores[noise] = Store.open(path) if there else make_store(path, arrays, label_N, truth_N, names)

    def loader_factory(split: str, spec: PixelSpec, crop: Crop | None = None) -> HeldImages:
        assert spec.size == SIDE
        return HeldImages(arrays[f"pixel_{split}"])

    finished = {(line["noise"], line["contender"], line["seed"]) for line in lines}
    for seed, noise, contender in plan(options):
        if noise not in stores or (noise, contender.name, seed) in finished:
            continue
        config = TrainConfig(
            method=contender.method,
            selection=contender.selection,
            recipe=str(options.recipe),
            batch_size=contender.batch_size,
            name=f"{contender.name}-{seed}".replace(" ", "-"),
            device="cpu",
            seed=seed,
        )
        began = time.process_time()
        result = train(stores[noise], config, loader_factory=loader_factory)
        line = {
            "suite": "methods",
            "noise": noise,
            "wrong": float((labels[noise] != truth_N).mean()),
            "contender": contender.name,
            "seed": seed,
            "recipe": options.recipe.stem,
            "processor_seconds": round(time.process_time() - began, 1),
            "date": time.strftime("%Y-%m-%d"),
            **{key: getattr(result, key) for key in MEASURED},
            **machine(),
        }
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{noise}, {contender.name}, seed {seed}: {result.last_top1:.2%} of test images right", flush=True)


MEASURED = ("last_top1", "best_top1", "selected", "members", "members_right", "label_accuracy", "seconds")


def plan(options: argparse.Namespace) -> Iterator[tuple[int, str, Contender]]:
    """Every seed of the cheap contenders before the second of the dear ones."""
    wanted = options.contenders.split(",")
    rounds = [(seed, False) for seed in range(options.seeds)] + [(seed, True) for seed in range(options.dear_seeds)]
    for seed, dear in sorted(rounds, key=lambda one: (one[0] * (2 if one[1] else 1), one[1])):
        for noise in NOISES:
            yield from (
                (FIRST_SEED + seed, noise, one) for one in CONTENDERS if one.dear == dear and one.name in wanted
            )


# ---- tables


def markdown(lines: list[dict[str, Any]]) -> str:
    parts = []
    for title, measure in (
        ("Last epoch", "last_top1"),
        ("Best epoch, chosen on the test set, which flatters", "best_top1"),
        ("Right labels among the members of the last epoch", "label_accuracy"),
    ):
        share = {noise: next((one["wrong"] for one in lines if one["noise"] == noise), None) for noise in NOISES}
        heads = [f"{noise} ({100 * wrong:.1f} % wrong)" if wrong else noise for noise, wrong in share.items()]
        rows = [f"### {title}, in per cent", "", f"| | {' | '.join(heads)} | mean |", "|---|" + "---:|" * 5]
        for contender in CONTENDERS:
            found = [
                [100 * one[measure] for one in lines if (one["contender"], one["noise"]) == (contender.name, noise)]
                for noise in NOISES
            ]
            whole = f"{mean(map(mean, found)):.1f}" if all(found) else ""
            rows.append(f"| {contender.name} | {' | '.join(map(cell, found))} | {whole} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def cell(values: list[float]) -> str:
    """Mean ± deviation of a sample (n runs)."""
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread} ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--classes", type=Path, help="default: classes.txt beside --labels")
    parser.add_argument("--model")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("methods.toml"))
    parser.add_argument("--contenders", default=",".join(one.name for one in CONTENDERS))
    parser.add_argument("--noise", default=",".join(NOISES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dear-seeds", type=int, default=1, help="of co-training and DivideMix")
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.doc:
        head, rest = options.doc.read_text().split(MARKS[0])
        options.doc.write_text(f"{head}{MARKS[0]}\n{markdown(lines)}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
        return
    if missing := [name for name in ("cifar", "labels", "model", "work") if getattr(options, name) is None]:
        parser.error(f"--{missing[0]} is needed, except with --doc")
    run_all(options, lines)


if __name__ == "__main__":
    main()
