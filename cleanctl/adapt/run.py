"""`adapt`: a store → a detector in a run folder beside it, and its score in the store; or a detector applied again.

    cleanctl.detectors/NAME/    config.json, metrics.jsonl, state.pt while it runs, result.json as in a run of `train`
                                (rundir.py there), and detector.safetensors (detector.py)

The door: it looks up what takes part, chooses device and preset, claims the folder; session.py does the learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch

from cleanctl.adapt.applying import apply_detector, features_of, found_among, judged_rows, labels_of, record
from cleanctl.adapt.contexts import ClassVectors, DualContexts, TextTower, class_means
from cleanctl.adapt.detector import FILE, Judgement
from cleanctl.adapt.model import TextModel, encoder_of
from cleanctl.adapt.preset import Preset, choose_preset
from cleanctl.adapt.session import Session
from cleanctl.adapt.trainer import Labels, Stopped, Trainer
from cleanctl.config import AdaptConfig
from cleanctl.errors import StoreError, UsageError
from cleanctl.paths import detectors_dir
from cleanctl.progress import SILENT, Progress
from cleanctl.results import AdaptResult
from cleanctl.runtime import StopFlag, choose_device, stop_requests
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
        labels = labels_of(store, split)
        model = TextModel(store, config, device=device.value, progress=progress)
        if config.apply is not None:
            with stop_requests() as stop:
                return apply_detector(split, labels, model, loader_factory, stop)
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
    with features_of(split, config.tower, preset.view, model, loaders, stop, ranks=ranks) as features:
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
        record(split, labels, judgement, run.path.name, preset.decisions, model.device)
    return session.finish(_result(split, labels, judgement, run, config, preset, session, model.device))


def _require_alone(ranks: Ranks, config: AdaptConfig) -> None:
    if ranks.count > 1 and (config.apply is not None or config.tower is None):
        asked = "--apply" if config.apply is not None else f"--tune {config.tune}"
        raise UsageError(
            f"{asked} was started by torchrun, in {ranks.count} processes.",
            so="They share the work of an image tower under tuning; here is none to share.",
            do="Start cleanctl adapt without torchrun.",
        )


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
        found=found_among(labels, keep_M),
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
        judgement = judged_rows(split, labels, run.path / FILE, model, loaders, stop)
        record(split, labels, judgement, run.path.name, "applied", model.device)
        model.progress.note(f"The score {DetectorScore.name} is this run's again.")
    return AdaptResult.from_json(values)


@contextmanager
def _own_words() -> Iterator[None]:
    """What a run's folder raises speaks of `cleanctl train`, whose part it is."""
    try:
        yield
    except StoreError as exc:
        if exc.do != TRAIN_ANEW:
            raise
        raise StoreError(exc.found, so=exc.so, do=ADAPT_ANEW) from exc
