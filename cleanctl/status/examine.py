"""A store and the runs beside it → StatusReport. Reads small files and two columns a split; computes nothing.

Loads neither torch nor open_clip: it answers in the time that opening the store takes. What is damaged is told and
does not hide the rest.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.paths import beton_path, is_url, runs_dir
from cleanctl.records import Status
from cleanctl.results import RunStatus, SelectionStatus, SplitStatus, StatusReport, VerdictStatus
from cleanctl.selection.review import newer_verdicts
from cleanctl.status.following import following
from cleanctl.store import Split, Store
from cleanctl.store.standing import DROP, KEEP, RELABEL, Standing, standing
from cleanctl.train.pool import pool_of
from cleanctl.train.rundir import RunDir, read_json


def examine(store: Store) -> StatusReport:
    """Raises StoreError only where the store itself cannot be opened."""
    damaged: list[str] = []
    splits = [found for name in store.split_names() if (found := _split(store, name, damaged)) is not None]
    runs = [_run(store, folder, splits) for folder in _run_folders(store)]
    root = str(store.source.get("root") or "")
    text = _text(store, damaged)
    report = StatusReport(
        store=str(store.path),
        store_bytes=_bytes_below(store.path),
        source=root,
        source_here=bool(root) and (is_url(root) or Path(root).exists()),
        model=_model(store),
        pretrained=store.encoder.get("pretrained"),
        prompts=text.get("name"),
        classes=len(store.classes),
        splits=tuple(splits),
        runs=tuple(runs),
        damaged=tuple(damaged),
        following=(),
    )
    return following(report, [RunDir(runs_dir(store.path) / run.name).config for run in runs])


def _model(store: Store) -> str:
    encoder = store.encoder
    if encoder.get("kind") == "imported":
        return f"imported embeddings of size {encoder.get('dim')}"
    return str(encoder.get("model", "unknown"))


def _text(store: Store, damaged: list[str]) -> dict[str, Any]:
    try:
        return store.text_attributes()
    except StoreError as exc:
        damaged.append(exc.found)
        return {}


# ---- splits


def _split(store: Store, name: str, damaged: list[str]) -> SplitStatus | None:
    try:
        split = store.split(name)
        status_N = split.committed()[0]
        scores = tuple(split.scores.attributes(damaged=False))
        truth = split.truth_N()
        decided = standing(split, store.classes)
        selections = tuple(_selections(split, status_N, decided))
    except StoreError as exc:
        damaged.append(exc.found)
        return None
    ok, failed, pending = (int((status_N == kind).sum()) for kind in (Status.OK, Status.FAILED, Status.PENDING))
    packed = beton_path(store.path, name)
    return SplitStatus(
        split=name,
        images=len(status_N),
        ok=ok,
        failed=failed,
        pending=pending,
        truth=truth is not None and bool((truth >= 0).any()),
        scores=scores,
        selections=selections,
        verdicts=_verdicts(decided),
        packed_bytes=packed.stat().st_size if packed.is_file() else 0,
    )


def _verdicts(found: Standing) -> VerdictStatus | None:
    if not (len(found) or found.skipped or found.idle()):
        return None
    return VerdictStatus(
        keep=found.count(KEEP),
        drop=found.count(DROP),
        relabel=found.count(RELABEL),
        skip=len(found.skipped),
        idle=found.idle(),
        contradictions=len(found.contradictions),
    )


def _selections(split: Split, status_N: np.ndarray, decided: Standing) -> list[SelectionStatus]:
    found, labels = [], None
    for name, about in split.selections.attributes(damaged=False).items():
        labels = labels or split.label_fingerprint()
        stale = ""
        if about.get("stale"):
            stale = "images or labels changed after it was made"
        elif about.get("labels") not in (None, labels):
            stale = "it was made from other labels"
        summary = about.get("summary", {})
        found.append(
            SelectionStatus(
                name=name,
                strategy=str(about.get("strategy", "")),
                kept=int(summary.get("kept", 0)),
                count=int(summary.get("count", (status_N == Status.OK).sum())),
                made=str(about.get("made", "")),
                stale=stale,
                newer_verdicts=0 if stale else newer_verdicts(split, about, name, decided),
            )
        )
    return found


# ---- runs


def _run_folders(store: Store) -> list[Path]:
    """Oldest first, by when they began."""
    begun = [path.parent for path in runs_dir(store.path).glob("*/config.json")]
    return sorted(begun, key=lambda path: (path / "config.json").stat().st_mtime_ns)


def _run(store: Store, folder: Path, splits: list[SplitStatus]) -> RunStatus:
    run = RunDir(folder)
    try:
        config = read_json(run.config)
        result = read_json(run.result) if run.result.exists() else {}
        state = "finished" if result else "diverged" if run.diverged.exists() else "stopped"
        method, selection = str(config["method"]), str(config["selection"]["name"])
        epochs = int(config["recipe"]["epochs"])
        stale = _why_stale(store, config, splits)
    except (StoreError, KeyError, TypeError, ValueError):
        return RunStatus(
            name=folder.name, method="", selection="", state="damaged", epochs_done=0, epochs=0, test_split=None,
            top1=None, stale="",
        )  # fmt: skip
    return RunStatus(
        name=folder.name,
        method=method,
        selection=selection,
        state=state,
        epochs_done=_epochs_done(run),
        epochs=epochs,
        test_split=result.get("test_split"),
        top1=result.get("last_top1"),
        stale=stale,
    )


def _epochs_done(run: RunDir) -> int:
    try:
        return sum(1 for line in run.metrics.read_text("utf-8").splitlines() if json.loads(line))
    except (OSError, ValueError):
        return 0


def _why_stale(store: Store, config: dict[str, Any], splits: list[SplitStatus]) -> str:
    """Whether the selection that the run was trained on is still the stored one, row by row."""
    split_name, wanted = str(config["split"]), config["selection"]
    here = next((one for one in splits if one.split == split_name), None)
    if here is None:
        return f"the split {split_name!r} is gone"
    if list(config.get("classes", store.classes)) != list(store.classes):
        return "the classes of the store are others"
    name = str(wanted["name"])
    known = {one.name: one for one in here.selections}
    if name != "all" and name not in known:
        return f"the selection {name!r} is gone"
    if name != "all" and known[name].stale:
        return f"the selection {name!r} is stale"
    ignore_review = bool(config.get("config", {}).get("ignore_review"))
    pool, obeyed = pool_of(store.split(split_name), store.classes, name, ignore_review=ignore_review)
    if pool.fingerprint() == wanted.get("fingerprint"):
        return ""
    if len(obeyed.verdicts):
        return "labels or people's verdicts changed, or the selection was made again: it would train on other samples"
    return "labels changed" if name == "all" else f"the selection {name!r} was made again and keeps other samples"


def _bytes_below(folder: Path) -> int:
    """Size of all files; those that vanish meanwhile count nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total
