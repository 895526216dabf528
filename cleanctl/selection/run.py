"""Stored scores → a stored selection: rules, strategy, fallback, and what they say of the labels.

Leaves one result under `selections`: `keep`, `suggested`, `p_label`, `p_max`, `votes` (how many of the rules used keep
the sample), `<rule>.score` and `<rule>.keep`, for loss rules also `<rule>.posterior` (what θ_gmm cuts); NaN, -1 or
false in rows that are not OK. All parameters and the summary are its attributes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior
from cleanctl.results import (
    ClassSummary,
    ConfusedPair,
    ConfusionCounts,
    RuleSummary,
    ScoreSummary,
    SelectionSummary,
)
from cleanctl.selection import rules
from cleanctl.selection.fallback import top_up
from cleanctl.selection.noise import Confusion, estimate_confusion
from cleanctl.selection.paper_code import DEVIATIONS
from cleanctl.selection.table import require_format, write_table
from cleanctl.store import Split, Store
from cleanctl.strategy import Rule, evaluate, parse, rules_of

# Whose word fills suggested_label, p_label, p_max and the estimate of the noise: see docs/quality.md.
EVIDENCE_ORDER = ("logistic", "zeroshot", "knn")
TOP_PAIRS = 20
CONFUSION_PAIRS = 10_000  # all of 100 classes; of more classes the largest counts
POSTERIOR_ARRAYS = ("p_label", "p_max", "suggested", "p_second", "entropy", "log_p_label")


def required_scorers(strategy: str) -> tuple[str, ...]:
    """Names of the scores that a strategy needs; UsageError if it cannot be read."""
    needed = dict.fromkeys(
        "similarity" if rule.mechanism == "similarity" else rule.scorer for rule in rules_of(parse(strategy))
    )
    if "similarity" in needed:  # the evidence for each sample comes from a posterior
        needed["zeroshot"] = None
    return tuple(needed)


def select_split(
    store: Store,
    split: Split,
    config: SelectConfig,
    *,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> SelectionSummary:
    """Needs the scores of `required_scorers(config.strategy)`; StoreError where one is missing."""
    if out is not None:
        require_format(out)
    work = _Work(store, split, config)
    keep_M, added = work.keep(progress)
    confusion = estimate_confusion(work.evidence, work.label_M, num_classes=work.num_classes)
    arrays = work.arrays(keep_M)
    name = config.name or config.strategy
    summary = work.summary(name, keep_M, added, confusion, out)
    attributes = {
        "strategy": config.strategy,
        "config": config.as_json(),
        "scores": {scorer: config.score_name(scorer) for scorer in work.scores},
        "labels": split.label_fingerprint(),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "summary": summary.to_json(),
    }
    split.write_result("selections", name, arrays, attributes)
    if out is not None:
        write_table(out, split, arrays, store.classes)
        progress.note(f"The table of {split.num_rows:,} rows lies in {out}.")
    return summary


class _Work:
    """One selection: scores of the OK rows, each rule's result, and what follows."""

    def __init__(self, store: Store, split: Split, config: SelectConfig) -> None:
        self.store, self.split, self.config = store, split, config
        self.tree = parse(config.strategy)
        self.ok_M = split.ok_rows()
        self.label_M = split.label_N()[self.ok_M].astype(np.int64)
        self.num_classes = len(store.classes)
        self.scores: dict[str, dict[str, np.ndarray]] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        for scorer in required_scorers(config.strategy):
            self._read(scorer)
        self.results = {rule: self._apply(rule) for rule in rules_of(self.tree)}
        self.evidence_name = next(scorer for scorer in EVIDENCE_ORDER if scorer in self.scores)
        self.evidence = self._posterior(self.evidence_name)

    def _read(self, scorer: str) -> None:
        name = self.config.score_name(scorer)
        result = self.split.read_result("scores", name)
        if result.attributes.get("stale"):
            raise StoreError(f"The score {name!r} is older than the images or labels.", do="Run cleanctl select again.")
        self.scores[scorer] = {key: values[self.ok_M] for key, values in result.arrays.items()}
        self.attributes[scorer] = result.attributes

    def _posterior(self, scorer: str) -> ClassPosterior:
        return ClassPosterior(**{key: self.scores[scorer][key] for key in POSTERIOR_ARRAYS})

    def _apply(self, rule: Rule) -> rules.RuleResult:
        if rule.mechanism == "similarity":
            return rules.similarity(self.scores["similarity"]["similarity"], self.config.theta_similarity)
        posterior = self._posterior(rule.scorer)
        if rule.mechanism == "consistency":
            return rules.consistency(posterior, self.config.theta_consistency)
        if rule.mechanism == "match":
            return rules.match(posterior, self.label_M)
        return rules.loss(posterior.log_p_label, self._clean(rule.scorer), self.config.theta_gmm)

    def _clean(self, scorer: str) -> np.ndarray:
        """The clean component's posterior, as fitted or mended (--mixture-posterior)."""
        score = self.scores[scorer]
        if self.config.mixture_posterior == "fitted":
            return score["clean"]
        return rules.monotone(score["clean"], score["scaled"], self.label_M)

    def keep(self, progress: Progress) -> tuple[np.ndarray, dict[int, int]]:
        """The strategy's set with empty classes topped up by the zero-shot score, or the first scorer's."""
        keep_M = evaluate(self.tree, {rule: result.keep_N for rule, result in self.results.items()})
        ranking = "zeroshot" if "zeroshot" in self.scores else self.evidence_name
        kind = "lowest" if self.config.compat else self.config.fallback
        keep_M, added = top_up(
            keep_M, self.label_M, self.scores[ranking]["scaled"], num_classes=self.num_classes, kind=kind
        )
        if added:
            names = ", ".join(self.store.classes[k] for k in list(added)[:5])
            progress.warn(
                f"{len(added)} class(es) kept no sample and were given their {kind} "
                f"{max(added.values())} by {ranking} score: {names}{' …' if len(added) > 5 else ''}."
            )
        return keep_M, added

    def arrays(self, keep_M: np.ndarray) -> dict[str, np.ndarray]:
        """Everything that is stored, in rows of the split."""
        columns: dict[str, np.ndarray] = {
            "keep": keep_M,
            "suggested": self.evidence.suggested,
            "p_label": self.evidence.p_label,
            "p_max": self.evidence.p_max,
            "votes": self.votes(),
        }
        for rule, result in self.results.items():
            columns[f"{rule.name}.score"] = result.score_N
            columns[f"{rule.name}.keep"] = result.keep_N
            if result.posterior_N is not None:
                columns[f"{rule.name}.posterior"] = result.posterior_N
        return {key: self._all_rows(key, values) for key, values in columns.items()}

    def votes(self) -> np.ndarray:
        """(M,) int16: how many of the rules used keep each sample."""
        votes_M = np.zeros(len(self.label_M), np.int16)
        for result in self.results.values():
            votes_M += result.keep_N
        return votes_M

    def _all_rows(self, key: str, values_M: np.ndarray) -> np.ndarray:
        blank = np.nan if values_M.dtype.kind == "f" else -1 if key == "suggested" else 0
        full_N = np.full(self.split.num_rows, blank, values_M.dtype)
        full_N[self.ok_M] = values_M
        return full_N

    def summary(
        self, name: str, keep_M: np.ndarray, added: dict[int, int], confusion: Confusion, out: Path | None
    ) -> SelectionSummary:
        count_C = np.bincount(self.label_M, minlength=self.num_classes)
        kept_C = np.bincount(self.label_M[keep_M], minlength=self.num_classes)
        known_C = np.isfinite(confusion.noise_C)
        noise = float(np.average(confusion.noise_C[known_C], weights=count_C[known_C])) if known_C.any() else None
        names = self.store.classes
        classes = tuple(
            ClassSummary(
                name=names[k],
                count=int(count_C[k]),
                kept=int(kept_C[k]),
                topped_up=added.get(k, 0),
                noise=float(confusion.noise_C[k]) if known_C[k] else None,
            )
            for k in range(self.num_classes)
        )
        return SelectionSummary(
            name=name,
            strategy=self.config.strategy,
            split=self.split.name,
            count=len(keep_M),
            kept=int(keep_M.sum()),
            failed=self.split.num_rows - len(keep_M),
            noise=noise,
            evidence=self.evidence_name,
            classes=classes,
            scores=tuple(
                ScoreSummary(
                    scorer=scorer,
                    score=self.config.score_name(scorer),
                    device=str(made.get("device", "")),
                    ran=dict(made.get("ran", {})),
                )
                for scorer, made in self.attributes.items()
            ),
            rules=tuple(
                RuleSummary(
                    rule=rule.name,
                    kept=int(result.keep_N.sum()),
                    details=self.attributes[rule.scorer].get("mixture", {}) if rule.mechanism == "loss" else {},
                )
                for rule, result in self.results.items()
            ),
            votes=tuple(np.bincount(self.votes(), minlength=len(self.results) + 1).tolist()),
            suggested_other=int((self.evidence.suggested != self.label_M).sum()),
            confused=tuple(
                ConfusedPair(given=names[given], likely=names[likely], samples=round(samples, 1))
                for given, likely, samples in confusion.off_diagonal(TOP_PAIRS)
            ),
            confusion=_counts(confusion),
            deviations=DEVIATIONS if self.config.compat else (),
            parameters=self.config.as_json(),
            out=str(out) if out is not None else None,
        )


def _counts(confusion: Confusion) -> ConfusionCounts:
    shown = slice(CONFUSION_PAIRS)
    return ConfusionCounts(
        given=tuple(confusion.given_E[shown].tolist()),
        likely=tuple(confusion.likely_E[shown].tolist()),
        samples=tuple(np.round(confusion.count_E[shown], 1).tolist()),
        pairs=len(confusion.given_E),
    )
