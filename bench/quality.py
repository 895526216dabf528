"""How well each rule finds the right labels, on real images with known truth: one command, one table.

    python -m bench.quality --cifar FOLDER --labels labels_train.csv --model MODEL [--cache FILE.npz] [--doc FILE.md]

CIFAR-10 rows 0–39,999 embedded with MODEL (a local open_clip folder; embeddings are cached in --cache), then
symmetric 20/50/80 %, asymmetric 40 %, instance-dependent 10–40 % and human labels. For every rule, the intersection,
the union, votes, crossfit on and off, and beside them, on the same probabilities: cleanlab's find_label_issues (left
out where cleanlab is not installed), small-loss (one mixture for all classes) and label-match. Writes the tables
between the markers of --doc and prints everything as one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import report
from cleanctl.config import Noise, SelectConfig
from cleanctl.datasets.noise import corrupt
from cleanctl.evaluate.detection import detection, roc_auc
from cleanctl.records import ClassPosterior, TextEmbeddings
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.logistic import fit_logistic, stratified_folds
from cleanctl.score.mechanisms import SHARED, RuleResult
from cleanctl.score.mixture import loss_scores

ROWS, CLASSES, FOLDS = 40_000, 10, 5
SYNTHETIC = ("symmetric:0.2", "symmetric:0.5", "symmetric:0.8", "asymmetric:0.4")
COLUMNS = {
    "idn_0.1": "idn 0.1",
    "idn_0.2": "idn 0.2",
    "idn_0.3": "idn 0.3",
    "idn_0.4": "idn 0.4",
    "cifar10n_aggre": "human aggre",
    "cifar10n_random1": "human random1",
    "cifar10n_worse": "human worse",
}
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


def embed(folder: Path, table: list[dict[str, str]], model: str, names: list[str]) -> dict[str, np.ndarray]:
    """image float16 (N, D) and text float32 (C, D) of `a photo of a {name}.`, L2-normalised."""
    import open_clip
    import torch
    from PIL import Image

    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model}")
    network = network.float().eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(table), 500):
            images = [Image.open(folder / row["path"]).convert("RGB") for row in table[start : start + 500]]
            image = network.encode_image(torch.stack([preprocess(one) for one in images]))
            parts.append(torch.nn.functional.normalize(image, dim=1).half().numpy())
        tokens = open_clip.get_tokenizer(f"local-dir:{model}")([f"a photo of a {name}." for name in names])
        text = torch.nn.functional.normalize(network.encode_text(tokens), dim=1).numpy()
    return {"image": np.concatenate(parts), "text": text}


def label_sets(table: list[dict[str, str]], truth_N: np.ndarray, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for kind in SYNTHETIC:
        yield (
            kind,
            corrupt(truth_N.astype(np.int32), Noise.parse(kind), classes=names, seed=0),
        )
    for column, name in COLUMNS.items():
        yield name, np.array([int(row[column]) for row in table])


def selections(
    blocks: ArrayBlocks, text: TextEmbeddings, label_N: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """(selector, keep (N,), score (N,) or None) of everything that is compared."""
    scored = {
        "zeroshot": posterior_of("zeroshot", blocks, label_N, num_classes=CLASSES, text=text),
        "logistic": posterior_of("logistic", blocks, label_N, num_classes=CLASSES),
        "logistic, crossfit": posterior_of("logistic", blocks, label_N, num_classes=CLASSES, crossfit=FOLDS),
        "knn": posterior_of("knn", blocks, label_N, num_classes=CLASSES),
    }
    keep: dict[str, np.ndarray] = {}
    for scorer, posterior in scored.items():
        for mechanism, result in rules_of(posterior, label_N).items():
            keep[f"{scorer}.{mechanism}"] = result.keep_N
            yield f"{scorer}.{mechanism}", result.keep_N, result.score_N
    for suffix in ("", ", crossfit"):
        four = [keep[f"zeroshot.{m}"] for m in ("loss", "consistency")]
        four += [keep[f"logistic{suffix}.{m}"] for m in ("loss", "consistency")]
        votes_N = np.sum(four, axis=0)
        for name, least in (("intersection", 4), ("vote:3", 3), ("vote:2", 2), ("union", 1)):
            yield name + suffix, votes_N >= least, None
    yield (
        "zeroshot.consistency & logistic.consistency",
        keep["zeroshot.consistency"] & keep["logistic.consistency"],
        None,
    )
    for scorer in ("zeroshot", "logistic"):
        clean_N = loss_scores(scored[scorer].log_p_label, np.zeros(len(label_N), np.int64), num_classes=1).posterior_N
        yield f"small-loss, {scorer}", clean_N >= 0.5, scored[scorer].log_p_label
    yield from cleanlab_selections(blocks, text, label_N)


def rules_of(posterior: ClassPosterior, label_N: np.ndarray) -> dict[str, RuleResult]:
    clean_N = loss_scores(posterior.log_p_label, label_N, num_classes=CLASSES).posterior_N
    score = asdict(posterior) | {"clean": clean_N}
    return {name: mechanism(score, label_N, SelectConfig()) for name, mechanism in SHARED.items()}


def cleanlab_selections(
    blocks: ArrayBlocks, text: TextEmbeddings, label_N: np.ndarray
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """cleanlab needs the whole N × C matrix, from the same models."""
    if importlib.util.find_spec("cleanlab") is None:
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    for name, prob_NC in (
        ("zeroshot", _softmax(blocks.image_ND.astype(np.float32) @ text.embedding_PD.T / 0.07)),
        ("logistic, crossfit", _crossfit_matrix(blocks, label_N)),
    ):
        issue_N = find_label_issues(label_N, prob_NC, n_jobs=1)
        yield f"cleanlab, {name}", ~issue_N, get_label_quality_scores(label_N, prob_NC)


def _crossfit_matrix(blocks: ArrayBlocks, label_N: np.ndarray) -> np.ndarray:
    prob_NC = np.zeros((len(label_N), CLASSES))
    fold_N, data = stratified_folds(label_N, FOLDS, 0), Float32Blocks(blocks)
    for fold in range(FOLDS):
        model = fit_logistic(data, label_N, use_N=fold_N != fold)
        held = fold_N == fold
        logit = blocks.image_ND[held].astype(np.float32) @ model.coef_DK + model.intercept_K
        prob_NC[np.ix_(held, model.class_K)] = _softmax(logit)
    return prob_NC


def _softmax(logit: np.ndarray) -> np.ndarray:
    mass = np.exp(logit - logit.max(axis=1, keepdims=True))
    return mass / mass.sum(axis=1, keepdims=True)


def measure(
    image: np.ndarray, text_CD: np.ndarray, table: list[dict[str, str]], names: list[str]
) -> list[dict[str, Any]]:
    truth_N = np.array([int(row["clean"]) for row in table])
    text = TextEmbeddings(embedding_PD=text_CD, class_P=np.arange(CLASSES, dtype=np.int32), prompts=("",) * CLASSES)
    rows = []
    for noise, label_N in label_sets(table, truth_N, names):
        clean_N = label_N == truth_N
        for name, keep_N, score_N in selections(ArrayBlocks(image_ND=image), text, label_N.astype(np.int64)):
            found = detection(keep_N, clean_N)
            rows.append(
                {
                    "noise": noise,
                    "wrong": float(1 - clean_N.mean()),
                    "selector": name,
                    "precision": found.precision,
                    "recall": found.recall,
                    "f1": found.f1,
                    "auc": None if score_N is None else roc_auc(score_N, clean_N),
                }
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """One table per measure, selectors × noise."""
    noises = list(dict.fromkeys(row["noise"] for row in rows))
    selectors = list(dict.fromkeys(row["selector"] for row in rows))
    cell = {(row["selector"], row["noise"]): row for row in rows}
    wrong = {row["noise"]: row["wrong"] for row in rows}
    parts = []
    for title, show in (
        ("F1", lambda row: _percent(row["f1"])),
        ("Precision / recall", lambda row: f"{_percent(row['precision'])} / {_percent(row['recall'])}"),
        ("ROC-AUC of the score", lambda row: _percent(row["auc"])),
    ):
        lines = [f"### {title}, in per cent", ""]
        lines.append("| | " + " | ".join(f"{noise} ({_percent(wrong[noise])} wrong)" for noise in noises) + " |")
        lines.append("|---|" + "---:|" * len(noises))
        for selector in selectors:
            if title.startswith("ROC") and cell[selector, noises[0]]["auc"] is None:
                continue
            values = " | ".join(show(cell[selector, noise]) for noise in noises)
            lines.append(f"| {selector} | {values} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--classes", type=Path, help="default: classes.txt beside --labels")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--doc", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with options.labels.open() as file:
        table = list(csv.DictReader(file))[:ROWS]
    names = (options.classes or options.labels.with_name("classes.txt")).read_text().split()
    if options.cache and options.cache.exists():
        arrays = dict(np.load(options.cache))
    else:
        arrays = embed(options.cifar, table, options.model, names)
        if options.cache:
            np.savez(options.cache, **arrays)
    rows = measure(arrays["image"], arrays["text"], table, names)
    if options.doc:
        head, rest = options.doc.read_text().split(MARKS[0])
        tail = rest.split(MARKS[1])[1]
        options.doc.write_text(f"{head}{MARKS[0]}\n{markdown(rows)}\n{MARKS[1]}{tail}")
    report("quality", rows, out=options.out)


if __name__ == "__main__":
    main()
