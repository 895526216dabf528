"""What each way of `adapt` finds on drawn shapes: F1 of the labels kept, beside rules that learn nothing.

    python -m cleanctl.demo.train_clip --tower vit --out MODEL
    python -m bench.adapt_shapes --model MODEL --work FOLDER [--images 1200] [--noises symmetric:0.4,idn:0.4]
                                 [--seeds 0] [--tunes prompts,vpt-deep,…] [--epochs 10] [--batch 16] [--lr RATE]
                                 [--out FILE] [--doc FILE.md]

Draws the demo's images, takes their true labels, and embeds them once for each noise and seed with labels made wrong;
then every `--tune` learns a detector, and `detector.dual` is compared with the truth. So are rules that learn nothing,
a linear head that keeps each batch's smallest losses, given the noise's rate, and cleanlab on cross-fitted logistic
probabilities, where it is installed. FOLDER keeps what is done, so that a call that was stopped goes on. Writes the
table between the markers of --doc and prints a JSON line.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.detector import crossfit, small_loss
from bench.harness import report
from cleanctl import api
from cleanctl.config import AdaptConfig, EmbedConfig, Noise, SelectConfig
from cleanctl.config.adapt import ON_EMBEDDINGS
from cleanctl.config.tune import TUNES
from cleanctl.demo.draw import Drawing, DrawnFiles, draw_dataset
from cleanctl.demo.run import HERE
from cleanctl.results import Detection
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.store import Store

TUNED = tuple("partial:1" if name == "partial" else name for name in TUNES)
GIVEN, CLEANLAB = "small-loss, rate given", "cleanlab"
RULES = {"label-match": "zeroshot.match", "intersection": "intersection", "logistic": "logistic.consistency"}
MARKS = ("<!-- shapes: begin -->", "<!-- shapes: end -->")
MACHINE: dict[str, Any] = {"device": "cpu", "loader": "torch", "workers": 0}


def measure(drawn: DrawnFiles, noise: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each rule and each way to tune that has none in FOLDER/rows.jsonl yet."""
    path = options.work / f"{noise.replace(':', '-')}-{seed}" / "cleanctl.zarr"
    if not path.exists():
        embed = EmbedConfig(
            source=drawn.images,
            labels=drawn.labels,
            label_column="truth",
            classes=drawn.classes,
            model=f"local-dir:{options.model}",
            prompts=str(HERE / "prompts.toml"),
            noise=Noise.parse(noise),
            seed=seed,
            **MACHINE,
        )
        api.embed(embed, store=path)
    known = {(row["noise"], row["seed"], row["way"]) for row in _rows(options.work)}
    others = (GIVEN, *([CLEANLAB] if importlib.util.find_spec("cleanlab") else []))
    for way in (*RULES, *others, *options.tunes.split(",")):
        if (noise, seed, way) in known:
            continue
        began = time.process_time()
        if way in RULES:
            found = _rule(path, RULES[way])
        else:
            found = _other(path, way, noise, options) if way in others else _detector(path, way, seed, options)
        row = {"noise": noise, "seed": seed, "way": way, "f1": found.f1, "precision": found.precision}
        row |= {"recall": found.recall, "cpu_s": time.process_time() - began}
        with (options.work / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return [row for row in _rows(options.work) if (row["noise"], row["seed"]) == (noise, seed)]


def _detector(path: Path, tune: str, seed: int, options: argparse.Namespace) -> Detection:
    machine = {"device": "cpu"} if tune in ON_EMBEDDINGS else MACHINE
    given = {} if options.lr is None else {"learning_rate": options.lr}
    config = AdaptConfig(
        tune=tune, epochs=options.epochs, batch_size=options.batch, seed=seed, resume=False, **given, **machine
    )
    found = api.adapt(config, store=path).found
    assert found is not None
    return found


def _rule(path: Path, strategy: str) -> Detection:
    api.select(SelectConfig(strategy=strategy, name="compared", device="cpu"), store=path)
    split = Store.open(path).split("train")
    keep_N = np.asarray(split.read_result("selections", "compared").arrays["keep"]).astype(bool)
    return Detection.of(keep_N, split.label_N() == split.truth_N())


def _other(path: Path, way: str, noise: str, options: argparse.Namespace) -> Detection:
    """What keeps labels by the embeddings alone, as bench.detector has it."""
    store = Store.open(path)
    split, classes = store.split("train"), len(store.classes)
    image_ND, label_N = split.embeddings(slice(0, split.num_rows)), split.label_N().astype(np.int64)
    if way == GIVEN:
        keep_N = small_loss(
            image_ND, label_N, float(noise.split(":")[1]), classes=classes, epochs=options.epochs, batch=options.batch
        )
    else:
        from cleanlab.filter import find_label_issues

        prob_NC = crossfit(ArrayBlocks(image_ND=image_ND), label_N, classes=classes)
        keep_N = ~find_label_issues(label_N, prob_NC, n_jobs=1)
    return Detection.of(keep_N, label_N == split.truth_N())


def _rows(work: Path) -> list[dict[str, Any]]:
    file = work / "rows.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """F1 in per cent, mean over seeds and, of several, the deviation: a row a way, a column a noise."""
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    lines = ["| | " + " | ".join(noises) + " |", "|---|" + "---:|" * len(noises)]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = []
        for noise in noises:
            found = [100 * row["f1"] for row in rows if (row["way"], row["noise"]) == (way, noise)]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}" if found else "–")
        lines.append(f"| `{way}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--noises", default="symmetric:0.2,symmetric:0.4,symmetric:0.6,idn:0.4")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--tunes", default=",".join(("prompts", "class-vectors", *TUNED)))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16, help="small, so that few images make many steps")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--doc", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    drawn = draw_dataset(options.work / "shapes", Drawing(train=options.images, test=options.images // 4))
    rows = []
    for seed in map(int, options.seeds.split(",")):
        for noise in options.noises.split(","):
            rows += measure(drawn, noise, seed, options)
    about = {key: getattr(options, key) for key in ("images", "epochs", "batch", "lr", "seeds", "note")}
    report("adapt_shapes", rows, out=options.out, **about)
    if options.doc is not None:
        text = options.doc.read_text()
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        options.doc.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
