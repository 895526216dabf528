"""What to type next, from what a store holds. Pure but for the configs of stopped runs, which are read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleanctl.config import TrainConfig
from cleanctl.config.option import options_of
from cleanctl.errors import StoreError
from cleanctl.paths import DEFAULT_STORE
from cleanctl.results import SelectionStatus, SplitStatus, StatusReport
from cleanctl.strategy import WITHOUT_PROMPTS
from cleanctl.train.rundir import read_json


def following(report: StatusReport, run_configs: Sequence[Path]) -> StatusReport:
    """The report with its commands. run_configs: the config.json of each of its runs."""
    train = next((split for split in report.splits if split.split == "train"), None)
    commands = [*_embedding(report), *_selecting(report, train), *_training(report, train, run_configs)]
    return replace(report, following=tuple(command + _store(report) for command in commands))


def _store(report: StatusReport) -> str:
    return "" if report.store == DEFAULT_STORE else f" --store {shlex.quote(report.store)}"


def _embedding(report: StatusReport) -> list[str]:
    """Other options of the first call, such as --labels, are not known any more: the person adds them."""
    if not report.damaged and report.splits and not any(split.pending for split in report.splits):
        return []
    if not report.source:
        return ["cleanctl import …"]
    words = ["cleanctl", "embed", report.source, "--model", report.model]
    if report.pretrained:
        words += ["--pretrained", report.pretrained]
    return [shlex.join(words)]


def _selecting(report: StatusReport, train: SplitStatus | None) -> list[str]:
    if train is None or train.pending or not train.ok:
        return []
    if not train.selections:
        return ["cleanctl select" if report.prompts else f"cleanctl select --strategy {WITHOUT_PROMPTS}"]
    newest = train.selections[-1]
    if newest.newer_verdicts:
        return [_again(newest)]
    stale = [one for one in train.selections if one.stale]
    if len(stale) < len(train.selections):
        return []
    return [_again(stale[-1])]


def _again(one: SelectionStatus) -> str:
    """The command that makes a selection again."""
    return f"cleanctl select --strategy {shlex.quote(one.strategy)} --name {shlex.quote(one.name)}"


def _training(report: StatusReport, train: SplitStatus | None, configs: Sequence[Path]) -> list[str]:
    stopped = [
        train_command(config, name=run.name)
        for run, config in zip(report.runs, configs, strict=True)
        if run.state == "stopped" and not run.stale
    ]
    if stopped:
        return [command for command in stopped if command]
    usable = [] if train is None else [one for one in train.selections if not one.stale]
    if not usable or not report.source_here:
        return []
    if not any(run.state == "finished" and not run.stale for run in report.runs):
        return ["cleanctl train"]
    return ["cleanctl eval"]


def train_command(config_file: Path, *, name: str) -> str:
    """The command that goes on with a run: the options that its config.json says were given. Empty if it is damaged."""
    try:
        given: dict[str, Any] = read_json(config_file)["config"]
    except (StoreError, KeyError):
        return ""
    words = ["cleanctl", "train"]
    for one in options_of(TrainConfig):
        value = given.get(one.field)
        if one.field == "name":
            value = name
        if value in (None, [], one.default) or one.field == "resume":
            continue
        if isinstance(value, bool):
            words.append(one.flag if value else f"--no-{one.flag[2:]}")
            continue
        for item in value if isinstance(value, list) else [value]:
            words += [one.flag, str(item)]
    return shlex.join(words)
