"""Everything that bench.quality compares, on the same embeddings: our rules, joint, cleanlab, small loss.

In: a Task and one of its label sets. Out: a record for each selector with what bench.quality_measures says of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.quality_measures import measured, precision_at_recall, reliability, stated
from bench.quality_tasks import Task
from cleanctl.config import SelectConfig
from cleanctl.records import ClassPosterior
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks, PosteriorWriter
from cleanctl.score.compute import open_scorer, posterior_of
from cleanctl.score.joint import longest
from cleanctl.score.logistic import fit_logistic, stratified_folds
from cleanctl.score.mechanisms import SHARED, RuleResult
from cleanctl.score.mixture import loss_scores
from cleanctl.score.probe import margin
from cleanctl.score.scorer import ALONE, Rows
from cleanctl.selection.verdicts import recalibrated

FOLDS = 5
VERDICTS, DRAWS = 200, 100
Selected = tuple[str, np.ndarray, np.ndarray | None]  # selector, keep (N,), score (N,)


def compared(task: Task, label_N: np.ndarray, known_recall: float | None = None) -> Iterator[dict[str, Any]]:
    """One record a selector; of joint also what it states. known_recall: of `intersection`, measured before; then
    joint and probe alone are measured."""
    clean_N = label_N == task.truth_N
    blocks = ArrayBlocks(image_ND=task.image_ND)
    intersection_recall = known_recall or 0.0
    for name, keep_N, score_N in selections(task, blocks, label_N) if known_recall is None else ():
        record = {"selector": name, **measured(keep_N, score_N, clean_N)}
        if name == "intersection":
            intersection_recall = record["recall"] or 0.0
        yield record
    for mechanism, result in rules_of_probe(blocks, label_N, task.classes).items():
        yield {"selector": f"probe.{mechanism}", **measured(result.keep_N, result.score_N, clean_N)}
    yield from of_joint(task, blocks, label_N, clean_N, intersection_recall)


def selections(task: Task, blocks: ArrayBlocks, label_N: np.ndarray) -> Iterator[Selected]:
    classes, text = task.classes, task.text
    own = {"text": text, "temperature": 1 / task.scale}
    prob_NC = _crossfit_matrix(blocks, label_N, classes)
    scored = {
        "zeroshot": posterior_of("zeroshot", blocks, label_N, num_classes=classes, text=text),
        "zeroshot, model": posterior_of("zeroshot", blocks, label_N, num_classes=classes, **own),
        "logistic": posterior_of("logistic", blocks, label_N, num_classes=classes),
        "logistic, crossfit": _posterior_of_matrix(prob_NC, label_N),
    }
    keep: dict[str, np.ndarray] = {}
    for scorer, posterior in scored.items():
        for mechanism, result in rules_of(posterior, label_N, classes).items():
            name = f"{scorer.partition(',')[0]}.{mechanism}{''.join(scorer.partition(',')[1:])}"
            keep[name] = result.keep_N
            yield name, result.keep_N, result.score_N
    for suffix in ("", ", model"):
        four = [keep[f"zeroshot.{m}{suffix}"] for m in ("loss", "consistency")]
        four += [keep[f"logistic.{m}"] for m in ("loss", "consistency")]
        votes_N = np.sum(four, axis=0)
        for name, least in (("intersection", 4), ("vote:3", 3), ("vote:2", 2), ("union", 1)):
            yield name + suffix, votes_N >= least, None
    for scorer in ("zeroshot", "logistic"):
        one_class_N = np.zeros(len(label_N), np.int64)
        clean_N = loss_scores(scored[scorer].log_p_label, one_class_N, num_classes=1).posterior_N
        yield f"small-loss, {scorer}", clean_N >= 0.5, scored[scorer].log_p_label
    yield from _cleanlab(task, label_N, prob_NC)


def of_joint(
    task: Task, blocks: ArrayBlocks, label_N: np.ndarray, clean_N: np.ndarray, recall: float
) -> Iterator[dict[str, Any]]:
    scorer = open_scorer("joint", SelectConfig(temperature=1 / task.scale))
    rows = Rows(blocks=blocks, label_N=label_N, num_classes=task.classes, text=task.text)
    model = scorer.fit(rows, ALONE)
    p_N, found = scorer.posterior(model, rows).p_label, scorer.findings(model, rows)
    noise = 1 - float(model.count.trace() / model.count.sum())
    keep_N, high_N = p_N >= 0.5, longest(p_N, 0.95)
    yield {
        "selector": "joint",
        **measured(keep_N, p_N, clean_N),
        **stated(p_N, keep_N, clean_N),
        "stated_noise": noise,
        "check": found["check"],
        "reliability": reliability(p_N, clean_N),
        "precision_at_intersection": precision_at_recall(p_N, clean_N, recall),
    }
    yield {
        "selector": "joint, --keep-precision 0.95",
        **measured(high_N, None, clean_N),
        **stated(p_N, high_N, clean_N),
    }
    yield _after_verdicts(p_N, clean_N)


def _after_verdicts(p_N: np.ndarray, clean_N: np.ndarray) -> dict[str, Any]:
    """Means over DRAWS draws of VERDICTS labels at random."""
    records, errors, intervals = [], [], []
    for seed in range(DRAWS):
        seen = np.random.default_rng(1000 + seed).choice(len(p_N), VERDICTS, replace=False)
        mended = recalibrated(p_N, seen, clean_N[seen])
        after_N = mended.of(p_N)
        keep_N = after_N >= 0.5
        records.append(measured(keep_N, None, clean_N))
        errors.append(abs(stated(after_N, keep_N, clean_N)["error"]))
        if keep_N.any():
            intervals.append((*mended.interval(after_N[keep_N]), float(clean_N[keep_N].mean())))
    means = {key: float(np.mean([one[key] or 0.0 for one in records])) for key in ("precision", "recall", "f1")}
    spread = {"abs_error": float(np.mean(errors)), "abs_error_90": float(np.quantile(errors, 0.9))}
    low_S, high_S, true_S = np.array(intervals).T
    held = {"covered": float(np.mean((low_S <= true_S) & (true_S <= high_S)))}
    held["half_width"] = float(np.mean(high_S - low_S) / 2)
    return {"selector": f"joint, {VERDICTS} verdicts", **means, **spread, **held}


def rules_of(posterior: ClassPosterior, label_N: np.ndarray, classes: int) -> dict[str, RuleResult]:
    clean_N = loss_scores(posterior.log_p_label, label_N, num_classes=classes).posterior_N
    score = asdict(posterior) | {"clean": clean_N}
    return {name: mechanism(score, label_N, SelectConfig()) for name, mechanism in SHARED.items()}


def rules_of_probe(blocks: ArrayBlocks, label_N: np.ndarray, classes: int) -> dict[str, RuleResult]:
    """margin of the head that SGD learns; its loss rule."""
    posterior = posterior_of("probe", blocks, label_N, num_classes=classes)
    loss = rules_of(posterior, label_N, classes)["loss"]
    return {"margin": margin(asdict(posterior), label_N, SelectConfig()), "loss": loss}


def _cleanlab(task: Task, label_N: np.ndarray, prob_NC: np.ndarray) -> Iterator[Selected]:
    """cleanlab needs the whole N × C matrix, from the same models."""
    if importlib.util.find_spec("cleanlab") is None:
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    for name, matrix in (
        ("zeroshot, model", prompt_matrix(task, 1 / task.scale)),
        ("logistic, crossfit", prob_NC),
    ):
        issue_N = find_label_issues(label_N, matrix, n_jobs=1)
        yield f"cleanlab, {name}", ~issue_N, get_label_quality_scores(label_N, matrix)


def prompt_matrix(task: Task, temperature: float) -> np.ndarray:
    logit_NP = task.image_ND.astype(np.float32) @ task.text.embedding_PD.T / temperature
    mass_NP = np.exp(logit_NP - logit_NP.max(axis=1, keepdims=True))
    mass_NC = mass_NP @ np.eye(task.classes, dtype=np.float32)[task.text.class_P]
    return mass_NC / mass_NC.sum(axis=1, keepdims=True)


def _crossfit_matrix(blocks: ArrayBlocks, label_N: np.ndarray, classes: int) -> np.ndarray:
    prob_NC = np.zeros((len(label_N), classes))
    fold_N, data = stratified_folds(label_N, FOLDS, 0), Float32Blocks(blocks)
    for fold in range(FOLDS):
        model = fit_logistic(data, label_N, use_N=fold_N != fold)
        held = fold_N == fold
        logit = blocks.image_ND[held].astype(np.float32) @ model.coef_DK + model.intercept_K
        mass = np.exp(logit - logit.max(axis=1, keepdims=True))
        prob_NC[np.ix_(held, model.class_K)] = mass / mass.sum(axis=1, keepdims=True)
    return prob_NC


def _posterior_of_matrix(prob_NC: np.ndarray, label_N: np.ndarray) -> ClassPosterior:
    import torch
    from cleanctl_kernels.zeroshot import stats_of_probabilities

    writer = PosteriorWriter(len(label_N))
    writer.put(slice(None), stats_of_probabilities(torch.from_numpy(prob_NC.copy()), torch.from_numpy(label_N)))
    return writer.posterior
