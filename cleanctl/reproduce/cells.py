"""One value of a table: embed, select, train and evaluate with the setting's options, or what keeps it from that.

Everything is kept in the output folder, so that a second call goes on:

    <out>/<scale>/<setting>-<encoder>/cleanctl.zarr    the store; its runs in cleanctl.runs/, a folder a seed
    <out>/<scale>/…/<run>.<split>.json                 top-1 and top-5 of a run on another split than its own
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from cleanctl.config import AdaptConfig, EmbedConfig, EvalConfig, ReproduceConfig, SelectConfig, TrainConfig
from cleanctl.errors import CleanctlError, InputError, InterruptedRun
from cleanctl.files.atomic import replacing
from cleanctl.progress import Progress
from cleanctl.registry import METHODS
from cleanctl.reproduce.here import find_encoder, find_network_weights, find_source
from cleanctl.reproduce.tables import Column, Row, Setting, find_pair, settings
from cleanctl.results import AdaptResult, Cell, EmbedSummary, EvalReport, Measured, SelectionSummary, TrainResult
from cleanctl.results.reproduce import Measure, State
from cleanctl.train.rundir import read_json, write_json

FIRST_SEED = 3047
# --scale small: the code of a row in seconds. Thresholds, augmentation and schedule stay the recipe's.
SMALL_TRAINING: dict[str, Any] = {
    "network": "fastconv-w16", "image_size": 32, "epochs": 2, "batch_size": 8, "steps_per_epoch": 2, "cache": "ram",
}  # fmt: skip
SMALL_ADAPTING: dict[str, Any] = {"epochs": 1, "batch_size": 64, "context_tokens": 4}
SMALL_EMBEDDING: dict[str, Any] = {"loader": "torch", "batch_size": 64}


class Absent(Exception):
    """A row cannot be run here; the text says why. state: missing or not-run."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


@dataclass(frozen=True)
class Verbs:
    """The verbs as Python has them (cleanctl.api): each takes a config, store= and progress=."""

    embed: Callable[..., EmbedSummary]
    select: Callable[..., SelectionSummary]
    train: Callable[..., TrainResult]
    evaluate: Callable[..., EvalReport]
    adapt: Callable[..., AdaptResult]


@dataclass
class Workshop:
    """Runs cells. What was looked for or embedded once in a call is not looked for again."""

    config: ReproduceConfig
    verbs: Verbs
    progress: Progress
    _sources: dict[str, Path | InputError] = field(default_factory=dict)
    _filled: dict[Path, tuple[Any, ...]] = field(default_factory=dict)
    _reports: dict[tuple[Path, str, str], EvalReport] = field(default_factory=dict)

    def cell(self, row: Row, column: Column) -> Cell:
        """The published value and what became of ours; the error of one cell does not keep others from running."""
        state: State = "ready" if self.config.dry_run else "measured"
        reason, measured = "", None
        try:
            self.require(row, column)
            if not self.config.dry_run:
                measured = self.measure(row, column)
        except Absent as exc:
            state, reason = exc.state, exc.reason
        except InterruptedRun:
            raise
        except CleanctlError as exc:
            state, reason = "failed", str(exc)
        return Cell(
            row=row.id,
            row_title=row.title,
            column=column.id,
            column_title=column.title or settings()[column.setting].title,
            measure=measure_of(row, column),
            split=column.split,
            published=_share(row.published.get(column.id)),
            spread=_share(row.spread.get(column.id)),
            state=state,
            reason=reason,
            measured=measured,
        )

    # ---- what is needed

    def require(self, row: Row, column: Column) -> None:
        """Raises Absent where something is missing or cleanctl has no such method."""
        if references := row.mean_of.get(column.id):
            for reference in references:
                try:
                    self.require(*find_pair(reference))
                except Absent as exc:
                    raise Absent(exc.state, f"{reference}: {exc.reason}") from exc
            return
        if row.method is None and row.measure is None and column.measure not in ("f1", "auc"):
            raise Absent("not-run", row.why)
        if row.why:
            raise Absent("not-run", row.why)
        if row.method is not None and row.method not in METHODS:
            raise Absent("missing", f"the training method {row.method!r}, which this version does not have.")
        setting = settings()[column.setting]
        lacking = [
            *_lacking(lambda: self.source(column.setting)),
            *_lacking(lambda: find_encoder(self.config, row.encoder or setting.encoder)),
            *(_lacking(lambda: find_network_weights(self.config, setting)) if row.method is not None else []),
        ]
        if lacking:
            raise Absent("missing", " And ".join(lacking))

    def source(self, name: str) -> Path:
        """The folder of a setting's dataset, or the InputError that says what is missing."""
        if name not in self._sources:
            try:
                self._sources[name] = find_source(self.config, settings()[name])
            except InputError as exc:
                self._sources[name] = exc
        found = self._sources[name]
        if isinstance(found, InputError):
            raise found
        return found

    # ---- measuring

    def measure(self, row: Row, column: Column) -> Measured:
        """The value of each seed; a value without training has one."""
        if references := row.mean_of.get(column.id):
            return _mean([self.measure(*find_pair(reference)) for reference in references])
        store = self.store(column.setting, row.encoder)
        what = measure_of(row, column)
        if row.method is not None:
            return self._trained(row, column, store)
        if row.adapt is not None:
            return self._adapted(row, column, store)
        if what == "zero-shot":
            report = self._evaluate(store, column.split, "")
            value = next((zero.pooled.top1 for zero in report.zero_shot if zero.split == column.split), None)
        else:
            quality = self._evaluate(store, column.split, self.select(row, column, store)).selection
            value = None
            if quality is not None:
                rule = quality.rules[0]
                value = {"f1": quality.found.f1, "auc": rule.auc, "auc-scaled": rule.auc_scaled}[what]
        if value is None:
            raise InputError(f"{what} cannot be measured on {column.split} of {store}: its truth is not known.")
        return Measured(seeds=(0,), last=(value,))

    def store(self, name: str, encoder: str | None) -> Path:
        """The store of a setting, filled; Absent or CleanctlError where that cannot be done."""
        setting = settings()[name]
        wanted = encoder or setting.encoder
        folder = self.config.out / self.config.scale / _slug(f"{name}-{self.config.model or wanted}")
        path = folder / "cleanctl.zarr"
        if path not in self._filled:
            model, pretrained = find_encoder(self.config, wanted)
            small = SMALL_EMBEDDING if self.config.scale == "small" else {}
            config = EmbedConfig(
                source=self.source(name),
                dataset=setting.dataset,
                variant=setting.variant,
                noise=setting.labels(),
                seed=setting.seed,
                model=model,
                pretrained=pretrained,
                prompts=setting.prompts,
                device=self.config.device,
                workers=self.config.workers,
                **small,
            )
            folder.mkdir(parents=True, exist_ok=True)
            images = (setting.dataset, setting.variant, setting.prompts, wanted)
            if not path.exists() and images in self._filled.values():
                twin = next(one for one, of in self._filled.items() if of == images)
                copy_store(twin, path)
                self.progress.note(f"The images of {name} are those of {twin.parent.name}, embedded already.")
            self.verbs.embed(config, store=path, progress=self.progress)
            self._filled[path] = images
        return path

    def select(self, row: Row, column: Column, store: Path) -> str:
        """The name of the row's selection. Before training it is the published code's, thresholds from the recipe."""
        options: dict[str, Any]
        if row.method is None:
            options = {**row.options, "fallback": "none"}
        else:
            options = {"preset": settings()[column.setting].recipe}
            if (
                self.config.scale == "full"
            ):  # the published code stops at classes of one sample, which small copies have
                options["compat"] = "paper-code"
        name = _slug("-".join([row.strategy, *(f"{key}={value:g}" for key, value in row.options.items())]))
        name = name if row.method is None else _slug(row.strategy)
        config = SelectConfig(strategy=row.strategy, name=name, device=self.config.device, **options)
        self.verbs.select(config, store=store, progress=self.progress)
        return name

    def _trained(self, row: Row, column: Column, store: Path) -> Measured:
        selection = "all" if row.strategy == "all" else self.select(row, column, store)
        found = []
        for seed in range(FIRST_SEED, FIRST_SEED + self.config.seeds):
            result = self._train(row, settings()[column.setting], store, selection, seed)
            found.append(self._accuracy(result, column, store))
        best = tuple(best for _, best, _ in found if best is not None)
        return Measured(
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + self.config.seeds)),
            last=tuple(last for last, _, _ in found),
            best=best,
            best_on_test=bool(best) and any(on_test for _, _, on_test in found),
        )

    def _adapted(self, row: Row, column: Column, store: Path) -> Measured:
        """F1 of the detector learnt with each seed from 0 on, which is the published one."""
        model, pretrained = find_encoder(self.config, row.encoder or settings()[column.setting].encoder)
        found = []
        for seed in range(self.config.seeds):
            config = AdaptConfig(
                tune="prompts",
                preset=row.adapt,
                split=column.split,
                name=_slug(f"prompts-{row.adapt}-seed{seed}"),
                seed=seed,
                model=model,
                pretrained=pretrained,
                device=self.config.device,
                **(SMALL_ADAPTING if self.config.scale == "small" else {}),
            )
            result = self.verbs.adapt(config, store=store, progress=self.progress).found
            if result is None or result.f1 is None:
                raise InputError(f"f1 cannot be measured on {column.split} of {store}: its truth is not known.")
            found.append(result.f1)
        return Measured(seeds=tuple(range(self.config.seeds)), last=tuple(found))

    def _train(self, row: Row, setting: Setting, store: Path, selection: str, seed: int) -> TrainResult:
        assert row.method is not None
        options: dict[str, Any] = dict(row.options)
        words = [row.method, selection, *(f"{key}={value:g}" for key, value in row.options.items()), f"seed{seed}"]
        if self.config.scale == "small":
            options |= SMALL_TRAINING
        config = TrainConfig(
            method=row.method,
            selection=selection,
            recipe=setting.recipe,
            name=_slug("-".join(words)),
            seed=seed,
            network_weights=find_network_weights(self.config, setting),
            device=self.config.device,
            precision=self.config.precision,
            workers=self.config.workers,
            **options,
        )
        return self.verbs.train(config, store=store, progress=self.progress)

    def _accuracy(self, result: TrainResult, column: Column, store: Path) -> tuple[float, float | None, bool]:
        """(last, best, whether the best epoch was chosen on this split) of a run on the column's split."""
        if column.measure == "top1" and result.test_split == column.split and result.last_top1 is not None:
            return result.last_top1, result.best_top1, result.chosen_on == column.split
        file = store.parent / f"{result.name}.{column.split}.json"
        if not file.exists():
            report = self._evaluate(store, column.split, "", run=result.name)
            runs = {run.checkpoint: run for run in report.runs if run.split == column.split}
            values = {name: {"top1": run.accuracy.top1, "top5": run.accuracy.top5} for name, run in runs.items()}
            write_json(file, values)
        values = read_json(file)
        last, best = (values.get(name, {}).get(column.measure) for name in ("last", "best"))
        if last is None:
            raise InputError(f"{column.measure} of the run {result.name} on {column.split} is not defined.")
        return last, best, result.chosen_on == column.split

    def _evaluate(self, store: Path, split: str, selection: str, run: str | None = None) -> EvalReport:
        key = (store, split, f"{selection}/{run}")
        if key not in self._reports:
            config = EvalConfig(
                splits=(split,),
                selection=selection or None,
                run=run,
                device=self.config.device,
                workers=self.config.workers,
            )
            self._reports[key] = self.verbs.evaluate(config, store=store, progress=self.progress)
        return self._reports[key]


def _lacking(look: Callable[[], object]) -> list[str]:
    """What is not there, in a sentence; nothing if it is."""
    try:
        look()
    except InterruptedRun:
        raise
    except CleanctlError as exc:
        return [exc.found]
    return []


def copy_store(twin: Path, path: Path) -> None:
    """A filled store, and its files of packed images, for the same images under other labels; runs stay behind.

    `embed` then changes the labels alone. A copy that was cut short lies under another name and is removed first.
    """
    for packed in twin.parent.glob(f"{twin.stem}.*.beton*"):
        with replacing(path.parent / packed.name) as partial:
            shutil.copyfile(packed, partial)
    copy = path.with_name(f"{path.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(twin, copy)
    copy.rename(path)


def measure_of(row: Row, column: Column) -> Measure:
    return row.measure or column.measure


def _mean(parts: list[Measured]) -> Measured:
    """Seed by seed over the parts."""
    seeds = min((part.seeds for part in parts), key=len)
    whole = all(len(part.best) >= len(seeds) for part in parts)
    return Measured(
        seeds=seeds,
        last=tuple(mean(part.last[i] for part in parts) for i in range(len(seeds))),
        best=tuple(mean(part.best[i] for part in parts) for i in range(len(seeds))) if whole else (),
        best_on_test=any(part.best_on_test for part in parts),
    )


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def _slug(text: str) -> str:
    """A folder's name; not one that is kept for others."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", text).lstrip(".")[-150:]
