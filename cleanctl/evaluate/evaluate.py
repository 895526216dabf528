"""`evaluate_store`: a store and its runs → numbers. Reads the store and images, writes nothing.

Three questions, each answered where the store can answer it and else explained in `notes`: how well the selection
finds right labels (needs a truth column), how good zero-shot is (needs text embeddings), how accurate a trained
network is (needs a finished run and a test split).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.config import EvalConfig, SelectConfig
from cleanctl.errors import StoreError
from cleanctl.evaluate.accuracy import AccuracyCounter
from cleanctl.evaluate.detection import detection, roc_auc
from cleanctl.paths import runs_dir
from cleanctl.progress import SILENT, Progress
from cleanctl.records import KNOWN_WRONG, Status
from cleanctl.results import Detection, EvalReport, RuleQuality, RunAccuracy, SelectionQuality, ZeroShotAccuracy
from cleanctl.runtime import choose_device
from cleanctl.score.mixture import scaled_in_class
from cleanctl.score.scorer import Rows
from cleanctl.score.temperature import PAPER_TEMPERATURE
from cleanctl.score.zeroshot import class_logits
from cleanctl.selection.review import Obeyed, obey
from cleanctl.store import Split, Store
from cleanctl.train.pool import TEST_SPLITS, judged, known_labels
from cleanctl.train.rundir import checkpoints, finished_runs

if TYPE_CHECKING:  # both need torch, of which only a trained network has need
    from cleanctl.train.sets import LoaderFactory
    from cleanctl.train.trained import TrainedRun

OTHER_TESTS = ("ilsvrc",)  # test sets from elsewhere: WebVision's classes in ILSVRC2012's validation images
OpenRun = Callable[[Path, str, str], "TrainedRun"]


def evaluate_store(
    store: Store,
    config: EvalConfig,
    *,
    loader_factory: LoaderFactory,
    open_run: OpenRun,
    progress: Progress = SILENT,
) -> EvalReport:
    """Every number that the store can give.

    open_run: (run folder, "best" or "last", device) → classifier. Raises StoreError for a selection, split or run that
    is named and not there, or a run whose classes are not the store's.
    """
    notes: list[str] = []
    selection = _selection(store, config, notes)
    zero = _zero_shot(store, config, notes, progress)
    runs = _runs(store, config, notes, loader_factory, open_run, progress)
    for text in notes:
        progress.note(text)
    return EvalReport(classes=store.classes, selection=selection, zero_shot=zero, runs=runs, notes=tuple(notes))


# ---- selection


def _selection(store: Store, config: EvalConfig, notes: list[str]) -> SelectionQuality | None:
    split, name = _find_selection(store, config.selection)
    if split is None or name is None:
        notes.append("No selection yet: its quality is not measured.")
        return None
    truth_N = split.truth_N()
    if truth_N is None:
        notes.append(f"Split {split.name} has no truth column: the quality of {name!r} is not measured.")
        return None
    if name in split.stale_selections():
        notes.append(f"The selection {name!r} was made before images or labels of split {split.name!r} changed.")
    stored = split.selections.read(name)
    arrays, obeyed = stored.arrays, obey(split, stored, store.classes, ignore_review=config.ignore_review)
    if len(obeyed.verdicts):
        notes.append(f"{len(obeyed.verdicts):,} verdicts of people are obeyed (--ignore-review leaves them out).")
    known_N = (truth_N >= 0) | (truth_N == KNOWN_WRONG)
    row = np.flatnonzero((split.status_N() == Status.OK) & known_N)
    if not len(row):
        notes.append(f"Split {split.name} has no readable row with a known truth.")
        return None
    label = split.label_N()[row]
    clean = label == truth_N[row]
    rules = tuple(
        rule_quality(key.removesuffix(".score"), {k: v[row] for k, v in arrays.items()}, label, clean, store)
        for key in arrays
        if key.endswith(".score")
    )
    return SelectionQuality(
        name=name,
        split=split.name,
        noise=float(1 - clean.mean()),
        found=_found(obeyed, row, label, truth_N[row]),
        rules=rules,
        verdicts=len(obeyed.verdicts.at(row)),
    )


def _found(obeyed: Obeyed, row: np.ndarray, label: np.ndarray, truth: np.ndarray) -> Detection:
    """Of the labels to use, those that people gave among them; where nobody knows whether such a one is right, the row
    is left out."""
    used = obeyed.verdicts.at(row).labels(label)
    known = judged(used, label, truth)
    return detection(obeyed.keep_N[row][known], (used == truth)[known])


def rule_quality(
    rule: str, arrays: dict[str, np.ndarray], label: np.ndarray, clean: np.ndarray, store: Store
) -> RuleQuality:
    score = arrays[f"{rule}.score"]
    auc, is_loss = roc_auc(score, clean), rule.endswith(".loss")
    scaled = scaled_in_class(score, label, len(store.classes))[0] if is_loss else None
    return RuleQuality(
        rule=rule,
        found=detection(arrays[f"{rule}.keep"].astype(bool), clean),
        auc=auc,
        auc_raw=auc if is_loss else None,
        auc_scaled=None if scaled is None else roc_auc(scaled, clean),
    )


def _find_selection(store: Store, wanted: str | None) -> tuple[Split | None, str | None]:
    """The split that has it, and its name; the newest of the first split that has any."""
    for name in store.split_names():
        split = store.split(name)
        stored = list(split.results("selections"))
        if wanted is None and stored:
            return split, stored[-1]
        if wanted in stored:
            return split, wanted
    if wanted is not None:
        raise StoreError(
            f"{store.path} has no selection named {wanted!r}.", do="Make it with: cleanctl select --name …"
        )
    return None, None


# ---- zero-shot


def _zero_shot(store: Store, config: EvalConfig, notes: list[str], progress: Progress) -> tuple[ZeroShotAccuracy, ...]:
    if not store.text_attributes() and not (store.path / "text").exists():
        notes.append("The store holds no text embeddings: zero-shot accuracy is not measured.")
        return ()
    text, device = store.text(), choose_device(config.device)
    temperature, pooling, source = _zero_shot_options(store, config)
    notes.append(f"Zero-shot accuracy is at temperature {temperature:g}, prompts pooled by {pooling}, {source}.")
    results = []
    for name in config.splits or store.split_names():
        split = store.split(name)
        label_N, against = known_labels(split)
        label_N = label_N[split.ok_rows()]
        classes = len(store.classes)
        rows = Rows(blocks=split.blocks(), label_N=np.maximum(label_N, 0), num_classes=classes, device=device)
        pooled, nearest = AccuracyCounter(classes), AccuracyCounter(classes)
        with progress.track(f"Zero-shot on {name}", total=len(label_N), unit="images") as task:
            for part, pooled_BC, nearest_BC in class_logits(text, rows, temperature=temperature, pooling=pooling):
                known_B = label_N[part] >= 0
                pooled.add(pooled_BC[known_B], label_N[part][known_B])
                nearest.add(nearest_BC[known_B], label_N[part][known_B])
                task.advance(part.stop - part.start)
        results.append(ZeroShotAccuracy(split=name, against=against, pooled=pooled.result(), nearest=nearest.result()))
    return tuple(results)


def _zero_shot_options(store: Store, config: EvalConfig) -> tuple[float, str, str]:
    """Temperature and pooling that the selection used, or the published ones, and where they are from."""
    split, name = _find_selection(store, config.selection)
    made = split.results("selections")[name].get("config", {}) if split is not None and name is not None else {}
    if made.get("temperature") is not None:
        return float(made["temperature"]), str(made["prompt_pooling"]), f"as in selection {name}"
    return PAPER_TEMPERATURE, SelectConfig.prompt_pooling, "as published"


# ---- trained networks


def _runs(
    store: Store,
    config: EvalConfig,
    notes: list[str],
    loader_factory: LoaderFactory,
    open_run: OpenRun,
    progress: Progress,
) -> tuple[RunAccuracy, ...]:
    folders = _run_folders(store, config.run)
    splits = config.splits or tuple(name for name in (*TEST_SPLITS, *OTHER_TESTS) if name in store.split_names())
    if not folders:
        notes.append("No finished run yet: no trained network is tested.")
    elif not splits:
        notes.append("The store has no test split: no trained network is tested (choose one with --split).")
    device = choose_device(config.device).value
    results: list[RunAccuracy] = []
    for folder in folders:
        networks = {name: open_run(folder, name, device) for name in checkpoints(folder)}
        for split in splits:
            results += _test_run(store, config, split, networks, loader_factory, notes, progress)
    return tuple(results)


def _run_folders(store: Store, wanted: str | None) -> list[Path]:
    """The run that was finished last; all of them for "all"; the one named."""
    root = runs_dir(store.path)
    if wanted not in (None, "all"):
        return [root / str(wanted)]
    folders = finished_runs(root)
    return folders if wanted == "all" else folders[-1:]


def _test_run(
    store: Store,
    config: EvalConfig,
    name: str,
    networks: dict[str, TrainedRun],
    loader_factory: LoaderFactory,
    notes: list[str],
    progress: Progress,
) -> list[RunAccuracy]:
    """Best and last in one pass over the images."""
    first = next(iter(networks.values()))
    if first.classes != store.classes:
        raise StoreError(
            f"Run {first.name} knows the classes {_some(first.classes)}; the store has {_some(store.classes)}.",
            so="Its predictions would be counted against other names.",
            do="Evaluate it with the store it was trained from.",
        )
    split = store.split(name)
    label_N, against = known_labels(split)
    row = split.ok_rows()
    row = row[label_N[row] >= 0]
    counters = {checkpoint: AccuracyCounter(len(store.classes), pairs=True) for checkpoint in networks}
    loader = loader_factory(name, first.pixels)
    try:
        with progress.track(f"Testing {first.name} on {name}", total=len(row), unit="images") as task:
            for batch in loader.batches(row, batch_size=config.batch_size):
                label = label_N[batch.row_B][batch.ok_B]
                for checkpoint, network in networks.items():
                    if len(label):
                        counters[checkpoint].add(network.logits(batch.pixel_BSSC[batch.ok_B]), label)
                task.advance(len(batch.row_B))
    finally:
        loader.close()
    notes += [
        f"{counter.undefined} predictions of run {first.name} ({checkpoint}) on {name} hold NaN; they count as wrong."
        for checkpoint, counter in counters.items()
        if counter.undefined
    ]
    return [
        RunAccuracy(
            run=network.name,
            method=network.method,
            selection=network.selection,
            checkpoint=checkpoint,
            epoch=network.epoch,
            chosen_on=network.chosen_on,
            split=name,
            against=against,
            accuracy=counters[checkpoint].result(),
        )
        for checkpoint, network in networks.items()
    ]


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
