"""What a detector says of a split: its rows and labels, where their embeddings come from, what is recorded.

`adapt --apply` is one call here; an engine's workers judge a part of the rows each (`judged_rows`), and its driver
records the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cleanctl.adapt.detector import FILE, Judgement, judge, load_detector
from cleanctl.adapt.features import CachedFeatures, Features
from cleanctl.adapt.image_path import open_images, tower_values
from cleanctl.adapt.model import TextModel
from cleanctl.adapt.preset import preset_from
from cleanctl.adapt.trainer import RIGHT, UNKNOWN, WRONG, Labels
from cleanctl.adapt.views import View
from cleanctl.clip.tune.learnt_file import read_learnt
from cleanctl.config.adapt import is_folder
from cleanctl.config.tune import TuneSettings
from cleanctl.errors import InputError, InterruptedRun, StoreError
from cleanctl.meant import meant
from cleanctl.paths import detectors_dir
from cleanctl.records import KNOWN_WRONG
from cleanctl.results import AdaptResult, Detection
from cleanctl.runtime import StopFlag
from cleanctl.score.compute import record_score
from cleanctl.score.detector import Detector as DetectorScore
from cleanctl.store import Split, Store
from cleanctl.train.ranks import Ranks
from cleanctl.train.sets import LoaderFactory

ALL = slice(0, None)


def apply_detector(
    split: Split, labels: Labels, model: TextModel, loaders: LoaderFactory, stop: StopFlag
) -> AdaptResult:
    """What `--apply` names says of the split; its score is recorded."""
    folder = detector_folder(model)
    judgement = judged_rows(split, labels, folder / FILE, model, loaders, stop)
    return record_applied(split, labels, judgement, folder, device=model.device)


def detector_folder(model: TextModel) -> Path:
    """That of the detector that `--apply` names; StoreError if there is none."""
    store, asked = model.store, str(model.config.apply)
    folder = Path(asked) if is_folder(asked) else detectors_dir(store.path) / asked
    if not (folder / FILE).is_file():
        known = [path.parent.name for path in detectors_dir(store.path).glob(f"*/{FILE}")]
        raise StoreError(
            f"There is no detector at {folder}{meant(asked, known)}",
            do="Name a run beside the store or its folder, or learn one with: cleanctl adapt",
        )
    return folder


def judged_rows(
    split: Split,
    labels: Labels,
    path: Path,
    model: TextModel,
    loaders: LoaderFactory,
    stop: StopFlag,
    part: slice = ALL,
) -> Judgement:
    """What the detector at `path` says of a part of the readable rows, through its own image tower where it tuned one.

    Raises InterruptedRun after `stop`: nothing is kept.
    """
    detector, about = load_detector(path, model.store, model)
    tower, values = tower_values(path)
    view = preset_from(about["preset"]).view if tower is not None else None
    with features_of(split, tower, view, model, loaders, stop, values, part=part) as features:
        return judge(detector, _until(stop, features.plain()), labels.label_M[part], device=model.device)


def _until(stop: StopFlag, batches: Iterator[tuple[np.ndarray, torch.Tensor]]) -> Iterator[Any]:
    for batch in batches:
        if stop:
            raise InterruptedRun("Stopped while the rows are judged.", do="The same command starts again.")
        yield batch


def record_applied(split: Split, labels: Labels, judgement: Judgement, folder: Path, *, device: str) -> AdaptResult:
    """The judgement of all rows as the split's score `detector`, and what it comes to."""
    about = read_learnt(folder / FILE)[1].more
    record(split, labels, judgement, folder.name, "applied", device)
    keep_M = judgement.kept(labels.label_M)
    return AdaptResult(
        name=folder.name,
        folder=str(folder),
        split=split.name,
        tune=str(about.get("tune")),
        preset=str(about.get("preset", {}).get("name")),
        device=device,
        epochs=0,
        parameters=0,
        count=len(keep_M),
        kept=int(keep_M.sum()),
        suggested_other=int((judgement.posterior.suggested != labels.label_M).sum()),
        found=found_among(labels, keep_M),
        seconds=0.0,
    )


def labels_of(store: Store, split: Split) -> Labels:
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


@contextmanager
def features_of(
    split: Split,
    settings: TuneSettings | None,
    view: View | None,
    model: TextModel,
    loaders: LoaderFactory,
    stop: StopFlag,
    values: Mapping[str, torch.Tensor] | None = None,
    ranks: Ranks | None = None,
    part: slice = ALL,
) -> Iterator[Features]:
    """The store's embeddings, or its images through a tower under tuning. part: of the readable rows."""
    if settings is None:
        yield CachedFeatures(split, seed=model.config.seed, device=model.device, part=part)
    else:
        with open_images(
            split, model, settings, view, loaders, stop, values=values, ranks=ranks, part=part
        ) as features:
            yield features


# ---- what is left in the store, and what is told


def record(split: Split, labels: Labels, judgement: Judgement, run: str, decisions: str, device: str) -> None:
    words = {"final-pass": "a final pass", "last-epoch": "decisions of the last epoch", "applied": "applied again"}
    about = {"ran": {"by": f"run {run}, {words[decisions]}"}, "run": run}
    record_score(
        split,
        DetectorScore,
        judgement.posterior,
        judgement.extra,
        about,
        label_M=labels.label_M,
        num_classes=labels.num_classes,
        device=device,
    )


def found_among(labels: Labels, keep_M: np.ndarray) -> Detection | None:
    """How well right labels were found; None where no truth is known."""
    if labels.truth_M is None or not (known_M := labels.truth_M != UNKNOWN).any():
        return None
    return Detection.of(keep_M[known_M], labels.truth_M[known_M] == RIGHT)
