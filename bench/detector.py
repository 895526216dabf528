"""How well DeFT's detectors on cached embeddings find right labels, beside what needs no learning: one resumable table.

    python -m bench.detector --cifar FOLDER --labels labels_train.csv --model FOLDER --cache FILE.npz --runs FILE.jsonl
        [--doc docs/adapt.md] [--picture FILE.svg] [--seeds 3] [--only symmetric:0.2 …]

CIFAR-10 rows 0–39,999 embedded with MODEL as bench.quality does, symmetric 20/40/60 %, human and instance-dependent
labels. `prompts` and `class-vectors` of `cleanctl adapt` with their defaults; label-match, `intersection`, small-loss
by one mixture on the same probabilities, small-loss with the noise rate given (a linear head on the embeddings,
docs/method.md C.4) and cleanlab where it is installed. Each run is a line of --runs and is not computed again. A
threshold on the cosine to the learnt T⁺ of the label is swept (C.4's single threshold on the adapted CLIP).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.harness import report
from bench.quality_selectors import FOLDS, rules_of
from bench.quality_tasks import COLUMNS, ROWS, embed
from cleanctl.adapt.contexts import ClassVectors, DualContexts, TextTower
from cleanctl.adapt.detector import Detector, judge
from cleanctl.adapt.features import Features
from cleanctl.adapt.preset import choose_preset
from cleanctl.adapt.trainer import Labels, State, Trainer
from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.config import AdaptConfig, Noise
from cleanctl.datasets.noise import corrupt
from cleanctl.evaluate.detection import roc_auc
from cleanctl.progress import SILENT
from cleanctl.records import TextEmbeddings
from cleanctl.results import Detection
from cleanctl.runtime import StopFlag
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.logistic import fit_logistic, stratified_folds
from cleanctl.score.mixture import loss_scores

CLASSES = 10
SYNTHETIC = ("symmetric:0.2", "symmetric:0.4", "symmetric:0.6")
# The rate that small-loss is given: the nominal one.
RATES = {
    **{f"symmetric:{rate}": rate for rate in (0.2, 0.4, 0.6)},
    **{f"idn_{rate}": rate for rate in (0.1, 0.2, 0.3, 0.4)},
    **{"cifar10n_aggre": 0.09, "cifar10n_random1": 0.17, "cifar10n_worse": 0.4},
}
LEARNT = ("class-vectors", "prompts")
SWEPT = np.arange(0.0, 1.0, 0.1)
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


class ArrayFeatures(Features):
    """Embeddings in memory."""

    def __init__(self, image_ND: np.ndarray, seed: int) -> None:
        self.image = torch.from_numpy(image_ND).float()
        self.num_rows, self.seed = len(image_ND), seed

    def batches(self, epoch: int, batch_size: int, first: int = 0) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
        for start in range(first * batch_size, self.num_rows, batch_size):
            position = order[start : start + batch_size]
            yield position, self.image[position]

    def plain(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for start in range(0, self.num_rows, 4096):
            position = np.arange(start, min(start + 4096, self.num_rows))
            yield position, self.image[position]


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        with options.labels.open() as file:
            self.table = list(csv.DictReader(file))[:ROWS]
        self.names = options.labels.with_name("classes.txt").read_text().split()
        if not options.cache.exists():
            np.savez(options.cache, **embed(options.cifar, self.table, options.model, self.names))
        arrays = np.load(options.cache)
        self.image, text_CD = arrays["image"], arrays["text"]
        self.text = TextEmbeddings(
            embedding_PD=text_CD, class_P=np.arange(CLASSES, dtype=np.int32), prompts=("",) * CLASSES
        )
        self.truth = np.array([int(row["clean"]) for row in self.table])
        self.source = resolve_model(f"local-dir:{options.model}", None)
        self.scale = float(self.source.logits[0] or 100.0)
        self._tower: TextTower | None = None

    @property
    def tower(self) -> TextTower:
        if self._tower is None:
            encoder = load_encoder(self.source, device="cpu", precision="fp32")
            self._tower = TextTower(encoder.model, encoder.tokenizer, self.names, tokens=16)
        return self._tower

    def labels(self, noise: str, seed: int) -> np.ndarray:
        if noise in COLUMNS:
            return np.array([int(row[noise]) for row in self.table])
        drawn = corrupt(self.truth.astype(np.int32), Noise.parse(noise), classes=self.names, seed=seed)
        return drawn.astype(np.int64)

    def learnt(self, tune: str, label_N: np.ndarray, seed: int) -> dict[str, Any]:
        """A detector of `cleanctl adapt --tune TUNE`, and the sweep of a single threshold on what it learnt."""
        preset, clean_N = choose_preset(AdaptConfig(tune=tune)), label_N == self.truth
        started, features = time.perf_counter(), ArrayFeatures(self.image, seed)
        text: Any = (
            ClassVectors(torch.from_numpy(self.text.embedding_PD))
            if tune == "class-vectors"
            else DualContexts(self.tower, seed=seed)
        )
        labels = Labels(row_M=np.arange(len(label_N)), label_M=label_N, truth_M=None, num_classes=CLASSES)
        trainer = Trainer(text, features, labels, preset, scale=self.scale, seed=seed, device="cpu")
        state = State()
        with SILENT.track("", total=None, unit="") as task:
            for epoch in range(preset.epochs):
                trainer.epoch(state, task, StopFlag(), lambda: None)
                state = State(epoch=epoch + 1)
        with torch.no_grad():
            positive_CD, negative_CD = text.positive(), text.negative(torch.arange(CLASSES))
        detector = Detector(positive_CD=positive_CD, negative_CD=negative_CD, scale=self.scale, agree=preset.agree)
        found = judge(detector, features.plain(), label_N, device="cpu")
        cosine_N = (features.image * positive_CD[torch.from_numpy(label_N)]).sum(dim=1).numpy()
        return {
            **_rates(found.kept(label_N), clean_N),
            "auc": roc_auc(found.log_odds_M, clean_N),
            "match": Detection.of(found.posterior.suggested == label_N, clean_N).f1,
            "seconds": round(time.perf_counter() - started, 1),
            "sweep": sweep(cosine_N, clean_N),
        }

    def plain(self, noise: str, label_N: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """(selector, keep (N,)) of what is compared."""
        blocks = ArrayBlocks(image_ND=self.image)
        keep = []
        for scorer in ("zeroshot", "logistic"):
            text = self.text if scorer == "zeroshot" else None
            posterior = posterior_of(scorer, blocks, label_N, num_classes=CLASSES, text=text)
            rules = rules_of(posterior, label_N, CLASSES)
            keep += [rules["loss"].keep_N, rules["consistency"].keep_N]
            if scorer == "zeroshot":
                yield "label-match", rules["match"].keep_N
            one = loss_scores(posterior.log_p_label, np.zeros(len(label_N), np.int64), num_classes=1)
            yield f"small-loss, mixture, {scorer}", one.posterior_N >= 0.5
        yield "intersection", np.all(keep, axis=0)
        yield "small-loss, rate given", small_loss(self.image, label_N, RATES[noise], classes=CLASSES)
        if importlib.util.find_spec("cleanlab") is not None:
            from cleanlab.filter import find_label_issues

            logit_NC = self.image.astype(np.float32) @ self.text.embedding_PD.T / 0.07
            yield "cleanlab, zeroshot", ~find_label_issues(label_N, _softmax(logit_NC), n_jobs=1)
            out_of_sample_NC = crossfit(blocks, label_N, classes=CLASSES)
            yield "cleanlab, logistic, crossfit", ~find_label_issues(label_N, out_of_sample_NC, n_jobs=1)


def small_loss(
    image_ND: np.ndarray, label_N: np.ndarray, rate: float, *, classes: int, epochs: int = 10, batch: int = 64
) -> np.ndarray:
    """bool (N,): a linear head on embeddings, trained on the ⌊(1 − R_t)B⌋ smallest losses of each batch; the first
    epoch, of warm-up, on all. Kept is what the last epoch's batches kept."""
    torch.manual_seed(0)
    image, label = torch.from_numpy(image_ND).float(), torch.from_numpy(label_N)
    head = torch.nn.Linear(image.shape[1], classes)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    keep = torch.zeros(len(label), dtype=torch.bool)
    for epoch in range(epochs):
        for row in torch.from_numpy(np.random.default_rng(epoch).permutation(len(label))).split(batch):
            each = torch.nn.functional.cross_entropy(10 * head(image[row]), label[row], reduction="none")
            count = int((1 - (rate if epoch else 0)) * len(row))
            small = each.detach().argsort()[:count]
            optimizer.zero_grad()
            each[small].mean().backward()
            optimizer.step()
            keep[row] = False
            keep[row[small]] = True
        schedule.step()
    return keep.numpy()


def crossfit(blocks: ArrayBlocks, label_N: np.ndarray, *, classes: int) -> np.ndarray:
    """(N, C): logistic probabilities of each fold by the fit on the others."""
    prob_NC = np.zeros((len(label_N), classes))
    fold_N, data = stratified_folds(label_N, FOLDS, 0), Float32Blocks(blocks)
    for fold in range(FOLDS):
        model, held_N = fit_logistic(data, label_N, use_N=fold_N != fold), fold_N == fold
        logit_MK = blocks.image_ND[held_N].astype(np.float32) @ model.coef_DK + model.intercept_K
        prob_NC[np.ix_(held_N, model.class_K)] = _softmax(logit_MK)
    return prob_NC


def _softmax(logit_NC: np.ndarray) -> np.ndarray:
    mass_NC = np.exp(logit_NC - logit_NC.max(axis=1, keepdims=True))
    return mass_NC / mass_NC.sum(axis=1, keepdims=True)


def sweep(score_N: np.ndarray, clean_N: np.ndarray) -> dict[str, Any]:
    """A single threshold from the 0th to the 90th percentile of the score: F1, true and false positive rates; ROC-AUC
    and average precision of all thresholds."""
    from sklearn.metrics import average_precision_score

    points = []
    for share in SWEPT:
        threshold = float(np.quantile(score_N, share))
        keep_N = score_N >= threshold
        points.append(
            {
                "share": round(float(share), 2),
                "threshold": round(threshold, 4),
                **_rates(keep_N, clean_N),
                "false_positive": float((keep_N & ~clean_N).sum() / max((~clean_N).sum(), 1)),
            }
        )
    return {
        "points": points,
        "auc": roc_auc(score_N, clean_N),
        "average_precision": float(average_precision_score(clean_N, score_N)),
    }


def _rates(keep_N: np.ndarray, clean_N: np.ndarray) -> dict[str, Any]:
    found = Detection.of(keep_N, clean_N)
    return {"precision": found.precision, "recall": found.recall, "f1": found.f1}


def measure(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run that --runs does not hold yet, and all of them."""
    rows = [json.loads(line) for line in options.runs.open()] if options.runs.exists() else []
    done = {(row["noise"], row["selector"], row["seed"]) for row in rows}
    with options.runs.open("a") as file:
        for noise in options.only or [*SYNTHETIC, *COLUMNS]:
            for seed in range(options.seeds):
                for row in _of(bench, noise, seed, done, options):
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    return rows


def _of(bench: Bench, noise: str, seed: int, done: set[Any], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    label_N = bench.labels(noise, seed)
    clean_N = label_N == bench.truth
    about = {"noise": noise, "seed": seed, "wrong": float(1 - clean_N.mean())}
    for tune in options.tunes:
        if (noise, tune, seed) not in done:
            yield {**about, "selector": tune, **bench.learnt(tune, label_N, seed)}
    drawn = (noise in SYNTHETIC or seed == 0) and options.plain  # other label sets are the same for every seed
    if drawn and (noise, "label-match", seed) not in done:
        for name, keep_N in bench.plain(noise, label_N):
            yield {**about, "selector": name, **_rates(keep_N, clean_N)}


def markdown(rows: list[dict[str, Any]]) -> str:
    """F1 of what is kept, mean and spread of the seeds, then the sweep at symmetric noise."""
    noises = [one for one in (*SYNTHETIC, *COLUMNS) if any(row["noise"] == one for row in rows)]
    selectors = list(dict.fromkeys([*LEARNT, *(row["selector"] for row in rows)]))
    wrong = {noise: np.mean([row["wrong"] for row in rows if row["noise"] == noise]) for noise in noises}
    lines = ["| | " + " | ".join(f"{COLUMNS.get(one, one)} ({100 * wrong[one]:.0f} % wrong)" for one in noises) + " |"]
    lines.append("|---|" + "---:|" * len(noises))
    for selector in selectors:
        cells = [_cell([r["f1"] for r in rows if (r["noise"], r["selector"]) == (noise, selector)]) for noise in noises]
        lines.append(f"| {selector} | " + " | ".join(cells) + " |")
    swept = [row for row in rows if "sweep" in row and row["noise"] in SYNTHETIC and row["seed"] == 0]
    lines += ["", "| share left out | " + " | ".join(f"{r['selector']}, {r['noise']}" for r in swept) + " |"]
    lines.append("|---|" + "---:|" * len(swept))
    for place, share in enumerate(SWEPT):
        cells = [f"{100 * r['sweep']['points'][place]['f1']:.1f}" for r in swept]
        lines.append(f"| {share:.0%} | " + " | ".join(cells) + " |")
    for title, key in (("ROC-AUC", "auc"), ("average precision", "average_precision")):
        lines.append(f"| {title} | " + " | ".join(f"{100 * r['sweep'][key]:.1f}" for r in swept) + " |")
    lines.append("| F1 of `detector.dual` | " + " | ".join(f"{100 * r['f1']:.1f}" for r in swept) + " |")
    return "\n".join(lines)


def _cell(f1: list[float]) -> str:
    if not f1:
        return "–"
    mean = f"{100 * statistics.mean(f1):.1f}"
    return mean if len(f1) < 2 else f"{mean} ± {100 * statistics.stdev(f1):.1f}"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """ROC and precision against recall of the swept threshold."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (roc, pr) = pyplot.subplots(1, 2, figsize=(9, 4))
    for row in rows:
        if "sweep" not in row or row["noise"] not in SYNTHETIC or row["seed"]:
            continue
        points = row["sweep"]["points"]
        label, style = f"{row['selector']}, {row['noise']}", "-" if row["selector"] == "prompts" else "--"
        recall = [one["recall"] for one in points]
        roc.plot([one["false_positive"] for one in points], recall, style, label=label)
        pr.plot(recall, [one["precision"] for one in points], style, label=label)
    roc.set(xlabel="wrong labels kept", ylabel="right labels kept", title="ROC")
    pr.set(xlabel="recall", ylabel="precision", title="Precision and recall")
    pr.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--cifar", "--labels", "--cache", "--runs"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--tunes", nargs="*", default=list(LEARNT))
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True, help="what needs no learning")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(Bench(options), options)
    if options.doc:
        head, rest = options.doc.read_text().split(MARKS[0])
        tail = rest.split(MARKS[1])[1]
        options.doc.write_text(f"{head}{MARKS[0]}\n{markdown(rows)}\n{MARKS[1]}{tail}")
    if options.picture:
        draw(rows, options.picture)
    report("detector", rows, out=options.out)


if __name__ == "__main__":
    main()
