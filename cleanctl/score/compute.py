"""Scores of a split, from the store into the store; a score whose parameters are all the same is used again.

Leaves one result per scorer under `scores`, named by `Needed.stored_name`: ClassPosterior's arrays, `clean` (posterior
of the class's clean mixture component) and `scaled` (its min-max scaled ln P), NaN or -1 in rows that are not OK, and
as attributes every parameter, what ran (of IVF also its measured recall), and the corner cases met. What a scorer calls
an extra, such as `similarity`, has one array of that name. What another verb found (RecordedScorer) is stored by
`record_score` in the same form, and only looked at here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior, EmbeddingBlocks, TextEmbeddings
from cleanctl.registry import SCORERS
from cleanctl.runtime import choose_device
from cleanctl.score.mixture import loss_scores
from cleanctl.score.paper_code import VARIANTS, sklearn_loss
from cleanctl.score.recorded import RecordedScorer
from cleanctl.score.scorer import ALONE, Reduce, Rows, Scorer
from cleanctl.score.temperature import in_words, stored_logit_scale, temperature_of
from cleanctl.store import Split, Store
from cleanctl.strategy import rules_of

POSTERIOR = tuple(ClassPosterior.__dataclass_fields__)
FORMAT = "3"  # a score of another format is computed again: the first had no log_p_label, the second no doubt of joint


@dataclass(frozen=True, kw_only=True)
class Needed:
    """One score that a selection reads: a scorer's posterior, or one of its extras."""

    scorer: Scorer
    extra: str | None = None

    @property
    def title(self) -> str:
        return self.extra or self.scorer.name

    @property
    def parameters(self) -> dict[str, Any]:
        """What it depends on besides the store."""
        config = self.scorer.config
        if isinstance(self.scorer, RecordedScorer):
            return {}
        own = {} if self.extra else self.scorer.parameters()
        if self.scorer.revision > 1:
            own |= {"revision": self.scorer.revision}
        return own | ({"compat": config.compat, "seed": config.seed} if config.compat else {})

    @property
    def stored_name(self) -> str:
        """E.g. `zeroshot-temperature=0.07-pooling=sum`."""
        return "-".join([self.title, *(f"{key}={value}" for key, value in self.parameters.items())])


def open_scorer(name: str, config: SelectConfig, logit_scale: float | None = None) -> Scorer:
    """The registered scorer, or what the published code has in its place; of one that reads prompts the config holds
    the temperature as a number. logit_scale: the model's, needed where its own temperature is wanted."""
    kind: type[Scorer] = SCORERS.load(name)
    if kind.uses_text:
        number = temperature_of(config.temperature, kind.usual_temperature, logit_scale)
        config = replace(config, temperature=number)
    return (VARIANTS.get(name, kind) if config.compat else kind)(config)


def needed_logit_scale(store: Store, config: SelectConfig, progress: Progress = SILENT) -> float | None:
    """The logit scale of the store's model if a score needs it; StoreError if it is not known."""
    for name in {rule.scorer for rule in rules_of(config.tree)}:
        kind: type[Scorer] = SCORERS.load(name)
        if kind.uses_text and "model" in (config.temperature, config.temperature or kind.usual_temperature):
            return stored_logit_scale(store, progress)
    return None


def scores_needed(config: SelectConfig, logit_scale: float | None = None) -> tuple[Needed, ...]:
    """A posterior of each scorer that the strategy names, which also is the evidence for each sample, and the extras of
    its mechanisms; in the order of the registry, in which the published code's random stream runs."""
    rules = rules_of(config.tree)
    needed = []
    for name in SCORERS.names():
        if used := [rule.mechanism for rule in rules if rule.scorer == name]:
            scorer = open_scorer(name, config, logit_scale)
            extras = [Needed(scorer=scorer, extra=extra) for extra in scorer.extras if extra in used]
            needed += [Needed(scorer=scorer), *extras]
    return tuple(needed)


def posterior_of(
    scorer: Scorer | str,
    blocks: EmbeddingBlocks,
    label_N: np.ndarray,
    *,
    num_classes: int,
    text: TextEmbeddings | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
    **options: Any,
) -> ClassPosterior:
    """What a scorer says of arrays in memory. device: `auto`, `cpu` or `cuda`. options: of SelectConfig, for a scorer
    given by name."""
    if isinstance(scorer, str):
        scorer = open_scorer(scorer, SelectConfig(**options))
    on = choose_device(device)
    rows = Rows(blocks=blocks, label_N=label_N, num_classes=num_classes, text=text, device=on, progress=progress)
    return scorer.posterior(scorer.fit(rows, ALONE), rows)


def score_split(
    store: Store, split: Split, config: SelectConfig, *, progress: Progress = SILENT, reduce: Reduce = ALONE
) -> None:
    """Computes and stores what `scores_needed` names and is not stored yet. Each part of the rows calls it alike; the
    first one alone decides what is computed, writes and reports."""
    progress = progress if reduce.number == 0 else SILENT
    plan = reduce.from_first(lambda: plan_scores(store, split, config, progress=progress))
    compute_scores(store, split, config, plan, progress=progress, reduce=reduce)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The scores to compute. basis: stored name → fingerprints of what it is computed from."""

    logit_scale: float | None
    basis: dict[str, dict[str, str]]

    def scores(self, config: SelectConfig) -> list[Needed]:
        return [one for one in scores_needed(config, self.logit_scale) if one.stored_name in self.basis]


def plan_scores(store: Store, split: Split, config: SelectConfig, *, progress: Progress = SILENT) -> Plan:
    """What is not stored yet; StoreError where nothing can be scored, or another verb's score is missing."""
    logit_scale = needed_logit_scale(store, config, progress)
    if not len(split.ok_rows()):
        raise StoreError(
            f"Split {split.name!r} of {store.path} holds no readable image.",
            do="Look at the reasons with cleanctl embed, and embed readable images.",
        )
    basis, text, found = _basis(split), "", {}
    for one in scores_needed(config, logit_scale):
        if isinstance(one.scorer, RecordedScorer):
            _require_recorded(one.scorer, split, basis, progress)
            continue
        if one.scorer.uses_text and not one.extra:
            number, usual = float(one.scorer.config.temperature or 0), one.scorer.usual_temperature
            progress.note(f"{one.title}: {in_words(number, config.temperature, usual)}.")
        text = text or (_text_digest(store.text()) if one.scorer.uses_text else "")
        own_basis = basis | ({"text": text} if one.scorer.uses_text else {})
        stored = split.scores.usable(one.stored_name) or {}
        if not config.compat and stored.get("basis") == own_basis and not stored.get("stale"):
            made = stored.get("made", "an earlier run")
            progress.note(f"{one.title}: scores of {made} are used again ({one.stored_name}).")
        else:
            found[one.stored_name] = own_basis
    return Plan(logit_scale=logit_scale, basis=found)


def compute_scores(
    store: Store,
    split: Split,
    config: SelectConfig,
    plan: Plan,
    *,
    progress: Progress = SILENT,
    reduce: Reduce = ALONE,
) -> None:
    """Computes and stores the scores of the plan, of which this process passes over its part of the rows."""
    needed = plan.scores(config)
    if not needed:
        return
    if reduce.parts > 1:
        _require_planned(split, plan)
    blocks, ok_M = split.blocks(), split.ok_rows()
    rows = Rows(
        blocks=blocks,
        label_N=split.label_N()[ok_M],
        num_classes=len(store.classes),
        text=store.text() if any(one.scorer.uses_text for one in needed) else None,
        part=blocks.parts(reduce.parts)[reduce.number] if reduce.parts > 1 else None,
        device=choose_device(config.device),
        progress=progress,
    )
    # One stream through all scorers, as the published code draws from numpy's global state (docs/method.md F.4).
    random = np.random.RandomState(config.seed % 2**32)
    for one in needed:
        started = time.perf_counter()
        found = _computed(one, rows, reduce, random)
        if found is None:
            continue
        arrays, about = found
        attributes = {
            **about,
            "scorer": one.title,
            "parameters": one.parameters,
            "basis": plan.basis[one.stored_name],
            "device": rows.device.value,
            "parts": reduce.parts,
            "made": time.strftime("%Y-%m-%d %H:%M:%S"),
            "seconds": round(time.perf_counter() - started, 3),
        }
        split.require_unchanged(plan.basis[one.stored_name]["labels"])
        split.write_result("scores", one.stored_name, _all_rows(arrays, ok_M, split.num_rows), attributes)


def _require_planned(split: Split, plan: Plan) -> None:
    """StoreError where this part has opened another version of the split than the one that was planned for."""
    here = _basis(split)
    for planned in plan.basis.values():
        if here != {key: planned[key] for key in here}:
            raise split.changed()


def record_score(
    split: Split,
    scorer: type[RecordedScorer],
    posterior: ClassPosterior,
    extra: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    *,
    label_M: np.ndarray,
    num_classes: int,
    device: str,
) -> None:
    """Stores what a verb found for the rows that are OK, so that every rule of `scorer` can read it.

    posterior and extra: arrays over the OK rows in store order. label_M: their labels as the verb read them; StoreError
    where rows or labels are others by now. about: JSON values; `ran` of them is shown by select,
    {"by": how it was made, in words}.
    """
    ok_M, basis = split.ok_rows(), _basis(split)
    label_N = split.label_N()
    split.require_unchanged(basis["labels"])
    if len(posterior.p_label) != len(ok_M) or not np.array_equal(label_N[ok_M], label_M):
        raise split.changed()
    label_M = label_M.astype(np.int64)
    arrays, report = _with_mixture(posterior, label_M, num_classes, device)
    attributes = {
        **about,
        "mixture": report,
        "scorer": scorer.name,
        "parameters": {},
        "basis": basis,
        "device": device,
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    split.write_result("scores", scorer.name, _all_rows(arrays | dict(extra), ok_M, split.num_rows), attributes)


def _require_recorded(scorer: RecordedScorer, split: Split, basis: dict[str, str], progress: Progress) -> None:
    """StoreError with the command to type, unless the score is stored and made from these images and labels."""
    where = f"split {split.name!r} of {split.store_path}"
    if scorer.name not in split.scores.attributes(damaged=False):
        raise scorer.missing(f"{where} has none")
    stored = split.read_result("scores", scorer.name).attributes
    if stored.get("stale") or stored.get("basis") != basis or scorer.outdated(split, stored):
        raise scorer.missing(f"that of {where} is older than its images or labels")
    progress.note(f"{scorer.name}: {stored.get('ran', {}).get('by', 'its score')} ({stored.get('made')}).")


def _computed(
    one: Needed, rows: Rows, reduce: Reduce, random: np.random.RandomState
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays of all OK rows, and attributes: what ran, and how the mixtures went. None in all parts but the first: the
    mixtures of the classes are fitted there, on the scores of all rows, so they are those of one process."""
    if one.extra is not None:
        extra_N = reduce.gather(one.scorer.extras[one.extra](rows))
        return None if extra_N is None else ({one.extra: extra_N}, {})
    model = one.scorer.fit(rows, reduce)
    ran = one.scorer.ran(model, rows)
    if reduce.parts > 1:
        ran = ran | {"by": f"{ran['by']}, {reduce.parts} processes", "parts": reduce.parts}
    rows.progress.note(f"{one.title}: {ran['by']}.")
    posterior = _gathered(one.scorer.posterior(model, rows), reduce)
    if posterior is None:
        return None
    label_N, log_p_N, classes = rows.label_N, posterior.log_p_label, rows.num_classes
    if one.scorer.config.compat:
        arrays = dict(vars(posterior))
        arrays["clean"], arrays["scaled"] = sklearn_loss(log_p_N, label_N, num_classes=classes, random=random)
        return arrays, {"ran": ran, "mixture": {"by": "scikit-learn"}}
    arrays, report = _with_mixture(posterior, label_N, classes, rows.device.value)
    return arrays, {"ran": ran, "mixture": report, "findings": one.scorer.findings(model, rows)}


def _gathered(posterior: ClassPosterior, reduce: Reduce) -> ClassPosterior | None:
    """Of all parts' rows; None in all parts but the first."""
    columns = {name: reduce.gather(getattr(posterior, name)) for name in POSTERIOR}
    found = {name: values for name, values in columns.items() if values is not None}
    return ClassPosterior(**found) if found else None


def _with_mixture(
    posterior: ClassPosterior, label_N: np.ndarray, num_classes: int, device: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The posterior's arrays with `clean` and `scaled`, and the corner cases that the mixtures met."""
    arrays = dict(vars(posterior))
    found = loss_scores(posterior.log_p_label, label_N, num_classes=num_classes, device=device)
    arrays["clean"], arrays["scaled"] = found.posterior_N, found.scaled_N
    return arrays, {
        "constant": list(found.constant),
        "single": list(found.single),
        "absent": list(found.absent),
        "not_monotone": found.not_monotone,
        "not_converged": list(found.not_converged),
    }


def _basis(split: Split) -> dict[str, str]:
    """Fingerprints of what a score was computed from; one that differs makes it stale."""
    rows = _digest(chain([split.status_N()], split.contents()))
    return {"format": FORMAT, "labels": split.label_fingerprint(), "rows": rows}


def _text_digest(text: TextEmbeddings) -> str:
    return _digest((text.embedding_PD, text.class_P))


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _all_rows(arrays: dict[str, np.ndarray], ok_M: np.ndarray, num_rows: int) -> dict[str, np.ndarray]:
    """Rows that are not OK hold NaN, or -1 where the array holds integers."""
    if len(ok_M) == num_rows:
        return arrays
    full = {}
    for key, values_M in arrays.items():
        full[key] = np.full(num_rows, np.nan if values_M.dtype.kind == "f" else -1, values_M.dtype)
        full[key][ok_M] = values_M
    return full
