"""Stored scores → a stored selection: rules, strategy, fallback, and what they say of the labels.

Leaves one result under `selections`: `keep`, `suggested`, `p_label`, `p_max`, `votes` (how many of the rules used keep
the sample), `<rule>.score` and `<rule>.keep`, for loss rules also `<rule>.posterior` (what θ_gmm cuts); NaN, -1 or
false in rows that are not OK. With a budget also `review`, 1 for the label to look at first, 0 where it is not
reached; with people's verdicts also `verdict`, `verdict_label` and `unreviewed` (cleanctl.selection.review). All
parameters and the summary are its attributes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Status
from cleanctl.results import SelectionSummary
from cleanctl.score.compute import Needed, needed_logit_scale, scores_needed
from cleanctl.score.mechanisms import RuleResult
from cleanctl.selection.expected import apply_verdicts, confusion_of, expectation, first_to_see, warn_of_noise
from cleanctl.selection.fallback import top_up
from cleanctl.selection.noise import Confusion, estimate_confusion
from cleanctl.selection.review import Verdicts, provenance, reviewed, warn
from cleanctl.selection.summary import Chosen, summarise
from cleanctl.selection.verdicts import (
    FEWEST,
    Looks,
    Recalibration,
    drawn_looks,
    read_verdicts,
    require_enough,
    told_looks,
)
from cleanctl.store import Split, Store
from cleanctl.store.schema import label_fingerprint
from cleanctl.store.standing import DROP, UNDECIDED, Standing, standing
from cleanctl.strategy import JOINT_RULE, Rule, evaluate, rules_of


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A score as it is stored: arrays of the OK rows, which are read when they are asked for, and its attributes."""

    needed: Needed
    arrays: Mapping[str, np.ndarray]
    attributes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What a selection keeps of the score that is its evidence; as in ClassPosterior."""

    p_label: np.ndarray
    p_max: np.ndarray
    suggested: np.ndarray


def select_split(store: Store, split: Split, config: SelectConfig, *, progress: Progress = SILENT) -> SelectionSummary:
    """Needs the scores of `scores_needed(config)`; StoreError where one is missing."""
    if preset := config.told_preset():
        progress.note(preset)
    ok_N = split.status_N() == Status.OK
    ok_M = np.flatnonzero(ok_N)
    label_N = split.label_N()
    labels, label_M = label_fingerprint(label_N), label_N[ok_M].astype(np.int64)
    needed = scores_needed(config, needed_logit_scale(store, config))
    scores = [_read(split, one, ok_M, labels) for one in needed]
    found = Standing() if config.ignore_review else standing(split, store.classes)
    warn(found, progress)
    looks = _looks(split, scores, found, ok_N, config, progress)
    scores, mended = _with_verdicts(scores, label_M, ok_M, looks)
    results = {rule: _apply(rule, scores, label_M, config) for rule in rules_of(config.tree)}
    _warn_of_mixtures(scores, results, store.classes, progress)
    strategy_M = evaluate(config.tree, {rule: result.keep_N for rule, result in results.items()})
    judged = Verdicts.of(found, ok_N).at(ok_M)
    keep_M, added = _topped_up(strategy_M, scores, label_M, judged, store.classes, config, progress)
    source = evidence_of(scores)
    posterior = Posterior(**{key: source.arrays[key] for key in Posterior.__dataclass_fields__})
    votes_M = np.stack([result.keep_N for result in results.values()]).sum(axis=0, dtype=np.int16)
    chosen = Chosen(
        name=config.name or config.strategy,
        split=split.name,
        label_M=label_M,
        keep_M=keep_M,
        votes_M=votes_M,
        suggested_M=posterior.suggested,
        added=added,
        failed=split.num_rows - len(ok_M),
        evidence=source.needed.title,
    )
    confusion = _confusion(source, posterior, label_M, len(store.classes), mended.verdicts if mended else 0)
    made = {one.needed: one.attributes for one in scores}
    summary = summarise(chosen, confusion, results, made, store.classes, config)
    columns = {"keep": keep_M, "suggested": posterior.suggested, "p_label": posterior.p_label}
    columns |= {"p_max": posterior.p_max, "votes": votes_M} | _rule_columns(results)
    if len(judged):
        nobody = Verdicts.of(Standing(), np.ones(len(ok_M), bool))
        columns |= {"verdict": judged.code_N, "verdict_label": judged.label_N}
        columns["unreviewed"] = _topped_up(strategy_M, scores, label_M, nobody, store.classes, config, SILENT)[0]
    summary = replace(summary, review=reviewed(found, judged, columns.get("unreviewed", keep_M), keep_M))
    if findings := source.attributes.get("findings"):
        seen_M = judged.code_N != UNDECIDED
        columns |= {"review": first_to_see(posterior.p_label, config.budget, seen_M)} if config.budget else {}
        keys = split.keys()[ok_M] if config.budget else ()
        known = columns | {"p_label": judged.certain(posterior.p_label)}
        expected = expectation(findings, known, keys, noise=summary.noise or 0.0, mended=mended)
        summary = replace(summary, expected=expected)
        warn_of_noise(findings, mended.verdicts if mended else 0, progress)
    review = provenance(found, ignore_review=config.ignore_review)
    _store(split, summary, columns, ok_M, scores, labels, review)
    return summary


def _with_verdicts(
    scores: list[Scored],
    label_M: np.ndarray,
    ok_M: np.ndarray,
    looks: Looks | None,
) -> tuple[list[Scored], Recalibration | None]:
    """The scores with joint's recalibrated, and by what; as they are where nobody looked."""
    if looks is None:
        return scores, None
    place = next(at for at, one in enumerate(scores) if one.needed.scorer.name == JOINT_RULE.scorer)
    arrays, mended = apply_verdicts(scores[place].arrays, label_M, ok_M, looks)
    return [replace(one, arrays=arrays) if at == place else one for at, one in enumerate(scores)], mended


def _looks(
    split: Split, scores: list[Scored], found: Standing, ok_N: np.ndarray, config: SelectConfig, progress: Progress
) -> Looks | None:
    """What recalibrates joint: the file of --verdicts, else the verdicts in the store on labels that were drawn."""
    if config.verdicts is not None:
        row_V, right_V = read_verdicts(config.verdicts, split.keys())
        seen_V = ok_N[row_V]
        require_enough(right_V[seen_V], config.verdicts)
        return Looks(row_V=row_V[seen_V], right_V=right_V[seen_V], weight_V=np.ones(int(seen_V.sum())))
    if all(one.needed.scorer.name != JOINT_RULE.scorer for one in scores):
        return None
    looks = drawn_looks(split, found, ok_N)
    if told := told_looks(looks, found):
        progress.note(told)
    return looks if len(looks.row_V) >= FEWEST else None


def _confusion(source: Scored, posterior: Posterior, label_M: np.ndarray, num_classes: int, verdicts: int) -> Confusion:
    """Of the transition matrix where the evidence has one, else counted."""
    if findings := source.attributes.get("findings"):
        return confusion_of(findings, posterior.p_label, label_M, num_classes=num_classes, verdicts=verdicts)
    return estimate_confusion(posterior, label_M, num_classes=num_classes)


def evidence_of(scores: list[Scored]) -> Scored:
    """The posterior that fills suggested_label, p_label, p_max and the estimate of the noise: see docs/quality.md."""
    return max((one for one in scores if one.needed.extra is None), key=lambda one: one.needed.scorer.evidence)


def _read(split: Split, needed: Needed, ok_M: np.ndarray, labels: str) -> Scored:
    arrays = split.scores.columns(needed.stored_name)
    if arrays.attributes.get("stale") or arrays.attributes["basis"]["labels"] != labels:
        raise StoreError(
            f"The score {needed.stored_name!r} is older than the images or labels.", do="Run cleanctl select again."
        )
    every = len(ok_M) == split.num_rows
    return Scored(needed=needed, arrays=arrays if every else arrays.at(ok_M), attributes=arrays.attributes)


def _apply(rule: Rule, scores: list[Scored], label_M: np.ndarray, config: SelectConfig) -> RuleResult:
    """The rule's mechanism over its scorer's posterior, or over the extra that it is named after."""
    own = {one.needed.extra: one for one in scores if one.needed.scorer.name == rule.scorer}
    score = own.get(rule.mechanism, own[None])
    return score.needed.scorer.mechanisms[rule.mechanism](score.arrays, label_M, config)


def _topped_up(
    keep_M: np.ndarray,
    scores: list[Scored],
    label_M: np.ndarray,
    verdicts: Verdicts,
    classes: tuple[str, ...],
    config: SelectConfig,
    progress: Progress,
) -> tuple[np.ndarray, dict[int, int]]:
    """What people decided, then samples for classes of which nothing is kept: by a score that the labels had no part
    in, that of prompts, as published; or else by the evidence. What people dropped is not brought back."""
    prompted = [one for one in scores if one.needed.scorer.uses_text and one.needed.extra is None]
    ranking = prompted[0] if prompted else evidence_of(scores)
    keep_M, label_M = verdicts.keep(keep_M), verdicts.labels(label_M)
    free_M = verdicts.code_N != DROP
    free_M_keep, added = top_up(
        keep_M[free_M],
        label_M[free_M],
        ranking.arrays["scaled"][free_M],
        num_classes=len(classes),
        kind=config.fallback,
    )
    keep_M[free_M] = free_M_keep
    if added:
        progress.warn(
            f"{_classes(added)} kept no sample and got the {config.fallback} {max(added.values())} by "
            f"{ranking.needed.title} score: {_names(list(added), classes)}."
        )
    return keep_M, added


def _warn_of_mixtures(
    scores: list[Scored], results: dict[Rule, RuleResult], classes: tuple[str, ...], progress: Progress
) -> None:
    for one in scores:
        mixture = one.attributes.get("mixture", {})
        if Rule(one.needed.scorer.name, "loss") not in results or one.needed.extra:
            continue
        if constant := mixture.get("constant"):
            progress.warn(
                f"{one.needed.title}.loss: all scores are equal in {_classes(constant)} "
                f"({_names(constant, classes)}); the loss rule keeps all of their samples."
            )
        if unconverged := mixture.get("not_converged"):
            progress.warn(
                f"{one.needed.title}.loss: the mixtures of {_classes(unconverged)} did not converge "
                f"({_names(unconverged, classes)}); their posteriors are those of the last step."
            )


def _classes(numbers: Sized) -> str:
    return "1 class" if len(numbers) == 1 else f"{len(numbers):,} classes"


def _names(numbers: list[int], classes: tuple[str, ...]) -> str:
    return ", ".join(classes[k] for k in numbers[:5]) + (" …" if len(numbers) > 5 else "")


def _rule_columns(results: dict[Rule, RuleResult]) -> dict[str, np.ndarray]:
    columns = {}
    for rule, result in results.items():
        columns[f"{rule.name}.score"], columns[f"{rule.name}.keep"] = result.score_N, result.keep_N
        if result.posterior_N is not None:
            columns[f"{rule.name}.posterior"] = result.posterior_N
    return columns


def _store(
    split: Split,
    summary: SelectionSummary,
    columns: dict[str, np.ndarray],
    ok_M: np.ndarray,
    scores: list[Scored],
    labels: str,
    review: dict[str, Any],
) -> None:
    """columns: of the readable rows. labels: fingerprint of what they are made from. review: `provenance` of the
    verdicts."""
    split.require_unchanged(labels)
    attributes = {
        "strategy": summary.strategy,
        "config": summary.parameters,
        "scores": {one.needed.title: one.needed.stored_name for one in scores},
        "labels": labels,
        "review": review,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "summary": summary.to_json(),
    }
    arrays = {key: _all_rows(key, values, ok_M, split.num_rows) for key, values in columns.items()}
    split.write_result("selections", summary.name, arrays, attributes)


def _all_rows(key: str, values_M: np.ndarray, ok_M: np.ndarray, num_rows: int) -> np.ndarray:
    if len(ok_M) == num_rows:
        return values_M
    blank = np.nan if values_M.dtype.kind == "f" else -1 if key in ("suggested", "verdict_label") else 0
    full_N = np.full(num_rows, blank, values_M.dtype)
    full_N[ok_M] = values_M
    return full_N
