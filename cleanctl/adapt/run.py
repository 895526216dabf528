"""`adapt`: a store → a detector in a run folder beside it, and its score in the store; or a detector applied again.

    cleanctl.detectors/NAME/    config.json, metrics.jsonl, state.pt while it runs, result.json as in a run of `train`
                                (rundir.py there), and detector.safetensors (detector.py)

The door: it looks up what takes part, chooses device and preset, claims the folder; session.py does the learning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleanctl.adapt.contexts import ClassVectors, DualContexts, TextTower, class_means
from cleanctl.adapt.detector import FILE, Judgement, judge, load_detector
from cleanctl.adapt.features import CachedFeatures, Features
from cleanctl.adapt.image_path import open_images, tower_values
from cleanctl.adapt.model import TextModel, encoder_of
from cleanctl.adapt.preset import Preset, choose_preset, preset_from
from cleanctl.adapt.session import Session
from cleanctl.adapt.trainer import RIGHT, UNKNOWN, WRONG, Labels, Stopped, Trainer
from cleanctl.adapt.views import View
from cleanctl.config import AdaptConfig
from cleanctl.config.adapt import is_folder
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.meant import meant
from cleanctl.paths import detectors_dir
from cleanctl.progress import SILENT, Progress
from cleanctl.records import KNOWN_WRONG
from cleanctl.results import AdaptResult, Detection
from cleanctl.runtime import StopFlag, choose_device, stop_requests
from cleanctl.score.compute import record_score
from cleanctl.score.detector import Detector as DetectorScore
from cleanctl.score.temperature import stored_logit_scale
from cleanctl.store import Split, Store
from cleanctl.train.ranks import Ranks, open_ranks
from cleanctl.train.rundir import TRAIN_ANEW, RunDir, read_json
from cleanctl.train.sets import LoaderFactory

IDENTITY = ("tune", "split", "seed", "classes", "preset", "labels", "rows", "encoder")
ADAPT_ANEW = "Run the same cleanctl adapt again with --no-resume, or choose another --name."


def adapt(
    store: Store, config: AdaptConfig, *, loader_factory: LoaderFactory, progress: Progress = SILENT
) -> AdaptResult:
    """Learns a detector, or goes on where an earlier call of the same run stopped, or applies one (config.apply).

    loader_factory gives a loader of a split's images; it is asked only where an image tower is, or was, tuned.
    Raises StoreError where another run has the name or model and store do not belong together, InputError for one
    class, a name that does not fit the text tower, or a loss that is no number; InterruptedRun after a signal. Under
    torchrun each process calls it, and each gets the result (train/ranks.py).
    """
    device = choose_device(config.device)
    with open_ranks(device.value) as ranks:
        _require_alone(ranks, config)
        progress = progress if ranks.first else SILENT
        ranks.first_first(lambda: store.join_shards(config.split))
        split = store.split(config.split)
        split.require_complete()
        labels = _labels(store, split)
        model = TextModel(store, config, device=device.value, progress=progress)
        if config.apply is not None:
            with stop_requests() as stop:
                return _apply(store, split, labels, config, model, loader_factory, stop)
        preset = choose_preset(config, rows=len(labels.label_M))
        progress.note(f"Preset {preset.name}: {preset.summary}. On {device.value} ({device.reason}).")
        run = RunDir(detectors_dir(store.path) / config.run_name)
        description = _describe(store, split, config, preset, labels)
        with _own_words(), run.lock() if ranks.first else nullcontext(), stop_requests() as stop:
            going_on = ranks.from_first(lambda: run.claim(description, IDENTITY, resume=config.resume))
            if ranks.first and not going_on:
                (run.path / FILE).unlink(missing_ok=True)
            if ranks.from_first(run.result.exists):
                return ranks.from_first(lambda: _finished(store, split, labels, run, model, loader_factory, stop))
            result = _learn(store, split, labels, config, preset, model, run, ranks, loader_factory, stop)
            ranks.wait()  # until the first has written it
            return result


def _learn(
    store: Store,
    split: Split,
    labels: Labels,
    config: AdaptConfig,
    preset: Preset,
    model: TextModel,
    run: RunDir,
    ranks: Ranks,
    loaders: LoaderFactory,
    stop: StopFlag,
) -> AdaptResult:
    text = _text(store, config, preset, model).to(model.device)
    with _features(split, config.tower, preset.view, model, loaders, stop, ranks=ranks) as features:
        scale = _scale(store, model.progress)
        trainer = Trainer(text, features, labels, preset, scale=scale, seed=config.seed, device=model.device)
        session = Session(trainer, run, model.progress, stop)
        try:
            judgement = session.learn()
        except Stopped as exc:
            raise session.interrupted() from exc
    about = {"tune": config.tune, "preset": asdict(preset), "split": split.name, "seed": config.seed}
    session.save(run.path / FILE, None if config.tune == "class-vectors" else model, store, about, config.tower)
    if ranks.first:
        _record(split, labels, judgement, run.path.name, preset.decisions, model.device)
    return session.finish(_result(split, labels, judgement, run, config, preset, session, model.device))


def _require_alone(ranks: Ranks, config: AdaptConfig) -> None:
    if ranks.count > 1 and (config.apply is not None or config.tower is None):
        asked = "--apply" if config.apply is not None else f"--tune {config.tune}"
        raise UsageError(
            f"{asked} was started by torchrun, in {ranks.count} processes.",
            so="They share the work of an image tower under tuning; here is none to share.",
            do="Start cleanctl adapt without torchrun.",
        )


@contextmanager
def _features(
    split: Split,
    settings: TuneSettings | None,
    view: View | None,
    model: TextModel,
    loaders: LoaderFactory,
    stop: StopFlag,
    values: Mapping[str, torch.Tensor] | None = None,
    ranks: Ranks | None = None,
) -> Iterator[Features]:
    """The store's embeddings, or its images through a tower under tuning."""
    if settings is None:
        yield CachedFeatures(split, seed=model.config.seed, device=model.device)
    else:
        with open_images(split, model, settings, view, loaders, stop, values=values, ranks=ranks) as features:
            yield features


def _labels(store: Store, split: Split) -> Labels:
    classes = len(store.classes)
    if classes < 2:
        raise InputError(
            f"{store.path} has one class, {store.classes[0]!r}." if classes else f"{store.path} has no class.",
            so="A detector learns from labels that an image does not have, and there is no other label.",
            do="Score it by its prompts: cleanctl select --strategy zeroshot.similarity",
        )
    row_M = split.ok_rows()
    if not len(row_M):
        raise StoreError(
            f"Split {split.name!r} of {store.path} holds no readable image.",
            do="Look at the reasons with cleanctl embed, and embed readable images.",
        )
    label_M, truth_N = split.label_N()[row_M].astype(np.int64), split.truth_N()
    truth_M = None
    if truth_N is not None:
        given = truth_N[row_M]
        known = (given >= 0) | (given == KNOWN_WRONG)
        truth_M = np.where(known, np.where(given == label_M, RIGHT, WRONG), UNKNOWN)
    return Labels(row_M=row_M, label_M=label_M, truth_M=truth_M, num_classes=classes)


def _text(store: Store, config: AdaptConfig, preset: Preset, model: TextModel) -> torch.nn.Module:
    """What is learnt of the classes, at its start."""
    if config.tune == "class-vectors":
        return ClassVectors(class_means(store.text(), len(store.classes)))
    tower = TextTower(model.network, model.tokenizer, store.classes, tokens=preset.context_tokens)
    return DualContexts(tower, seed=config.seed)


def _scale(store: Store, progress: Progress) -> float:
    try:
        return stored_logit_scale(store, progress)
    except StoreError as exc:
        raise StoreError(
            exc.found,
            so="A detector's logits are cosines times that scale.",
            do="Bring the model's weights back to this disk, or, for imported arrays, run the same cleanctl import "
            "again with --logit-scale 100, if 100 is its scale.",
        ) from exc


def _describe(store: Store, split: Split, config: AdaptConfig, preset: Preset, labels: Labels) -> dict[str, Any]:
    return {
        "tune": config.tune,
        "split": split.name,
        "seed": config.seed,
        "classes": list(store.classes),
        "preset": asdict(preset),
        "labels": split.label_fingerprint(),
        "rows": len(labels.row_M),
        "encoder": encoder_of(store).identity(),
        "config": config.as_json(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


# ---- what is left in the store, and what is told


def _record(split: Split, labels: Labels, judgement: Judgement, run: str, decisions: str, device: str) -> None:
    words = {"final-pass": "a final pass", "last-epoch": "decisions of the last epoch", "applied": "applied again"}
    about = {"ran": {"by": f"run {run}, {words[decisions]}"}, "run": run}
    record_score(
        split, DetectorScore, judgement.posterior, judgement.extra, about, num_classes=labels.num_classes, device=device
    )


def _found(labels: Labels, keep_M: np.ndarray) -> Detection | None:
    """How well right labels were found; None where no truth is known."""
    if labels.truth_M is None or not (known_M := labels.truth_M != UNKNOWN).any():
        return None
    return Detection.of(keep_M[known_M], labels.truth_M[known_M] == RIGHT)


def _result(
    split: Split,
    labels: Labels,
    judgement: Judgement,
    run: RunDir,
    config: AdaptConfig,
    preset: Preset,
    session: Session,
    device: str,
) -> AdaptResult:
    keep_M = judgement.kept(labels.label_M)
    return AdaptResult(
        name=run.path.name,
        folder=str(run.path),
        split=split.name,
        tune=str(config.tune),
        preset=preset.name,
        device=device,
        epochs=preset.epochs,
        parameters=session.parameters,
        count=len(keep_M),
        kept=int(keep_M.sum()),
        suggested_other=int((judgement.posterior.suggested != labels.label_M).sum()),
        found=_found(labels, keep_M),
        seconds=session.seconds,
    )


# ---- a detector that is there already


def _finished(
    store: Store, split: Split, labels: Labels, run: RunDir, model: TextModel, loaders: LoaderFactory, stop: StopFlag
) -> AdaptResult:
    """The result of a run that ended; its score is written again where another run's stands in the store."""
    values = read_json(run.result)
    model.progress.note(f"Run {run.path.name} is finished already; its result is shown. Learn anew with --no-resume.")
    stored = split.scores.usable(DetectorScore.name) or {}
    if stored.get("run") != run.path.name or stored.get("stale"):
        judgement = _judged(store, split, labels, run.path / FILE, model, loaders, stop)[0]
        _record(split, labels, judgement, run.path.name, "applied", model.device)
        model.progress.note(f"The score {DetectorScore.name} is this run's again.")
    return AdaptResult.from_json(values)


def _apply(
    store: Store,
    split: Split,
    labels: Labels,
    config: AdaptConfig,
    model: TextModel,
    loaders: LoaderFactory,
    stop: StopFlag,
) -> AdaptResult:
    asked = str(config.apply)
    folder = Path(asked) if is_folder(asked) else detectors_dir(store.path) / asked
    if not (folder / FILE).is_file():
        known = [path.parent.name for path in detectors_dir(store.path).glob(f"*/{FILE}")]
        raise StoreError(
            f"There is no detector at {folder}{meant(asked, known)}",
            do="Name a run beside the store or its folder, or learn one with: cleanctl adapt",
        )
    judgement, about = _judged(store, split, labels, folder / FILE, model, loaders, stop)
    _record(split, labels, judgement, folder.name, "applied", model.device)
    keep_M = judgement.kept(labels.label_M)
    return AdaptResult(
        name=folder.name,
        folder=str(folder),
        split=split.name,
        tune=str(about.get("tune")),
        preset=str(about.get("preset", {}).get("name")),
        device=model.device,
        epochs=0,
        parameters=0,
        count=len(keep_M),
        kept=int(keep_M.sum()),
        suggested_other=int((judgement.posterior.suggested != labels.label_M).sum()),
        found=_found(labels, keep_M),
        seconds=0.0,
    )


def _judged(
    store: Store, split: Split, labels: Labels, path: Path, model: TextModel, loaders: LoaderFactory, stop: StopFlag
) -> tuple[Judgement, dict[str, Any]]:
    """What the detector at `path` says of the split, through its own image tower where it tuned one."""
    detector, about = load_detector(path, store, model)
    tower, values = tower_values(path)
    view = preset_from(about["preset"]).view if tower is not None else None
    with _features(split, tower, view, model, loaders, stop, values) as features:
        return judge(detector, features.plain(), labels.label_M, device=model.device), about


@contextmanager
def _own_words() -> Iterator[None]:
    """What a run's folder raises speaks of `cleanctl train`, whose part it is."""
    try:
        yield
    except StoreError as exc:
        if exc.do != TRAIN_ANEW:
            raise
        raise StoreError(exc.found, so=exc.so, do=ADAPT_ANEW) from exc
