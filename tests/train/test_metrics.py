"""What an epoch's line counts, the same for TensorBoard, and runs with several seeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from blobs import RECIPE, loader_of, make_store
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import TrainConfig
from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.records import KNOWN_WRONG
from cleanctl.store import Store
from cleanctl.train import train
from cleanctl.train.methods.method import Members
from cleanctl.train.metrics import GROUPS, member_counts
from cleanctl.train.pool import TrainingPool
from cleanctl.train.seeds import spread

pytestmark = pytest.mark.usefixtures("one_thread")

# given label, true label (−1: unknown), selected, member, label in training → which group, and rightly or not
ROWS = [
    (0, 0, True, True, 0, "members", True),
    (0, 1, True, True, 0, "members", False),
    (0, -1, True, True, 0, "members", None),
    (1, 1, False, True, 1, "absorbed", True),
    (1, 0, False, True, 1, "absorbed", False),
    (0, 2, False, True, 2, "relabelled", True),
    (0, 0, False, True, 2, "relabelled", False),
    (2, 1, True, True, 1, "relabelled", True),  # a selected sample can be relabelled
    (2, -1, False, True, 1, "relabelled", None),
    (0, 1, False, False, 0, "dropped", True),
    (0, 0, False, False, 0, "dropped", False),
    (1, -1, False, False, 1, "dropped", None),
    (2, KNOWN_WRONG, True, True, 2, "members", False),
    (2, KNOWN_WRONG, False, True, 1, "relabelled", None),  # another label, which may be right
    (2, KNOWN_WRONG, False, False, 2, "dropped", True),
]


def pool(*, known: bool = True) -> TrainingPool:
    label, truth, selected = (np.array([row[place] for row in ROWS]) for place in range(3))
    row = np.arange(len(ROWS))
    return TrainingPool(
        row_M=row, label_M=label, truth_M=truth if known else None, selected_M=selected.astype(bool), selection="s"
    )


def members() -> Members:
    member, label = np.array([row[3] for row in ROWS]), np.array([row[4] for row in ROWS])
    return Members(member_M=member, label_M=label)


def test_each_group_is_counted_and_judged_where_the_truth_is_known() -> None:
    counts = member_counts(members(), pool())
    for group in GROUPS:
        inside = [row for row in ROWS if row[5] == group or (group == "members" and row[3])]
        assert counts[group] == len(inside)
        assert counts[f"{group}_right"] == sum(row[6] is True for row in inside)
        assert counts[f"{group}_wrong"] == sum(row[6] is False for row in inside)
    assert counts["label_accuracy"] == pytest.approx(4 / 8)


def test_without_truth_nothing_is_judged() -> None:
    counts = member_counts(members(), pool(known=False))
    assert counts["absorbed"] == 2
    assert {key for key, value in counts.items() if value is None} == {
        "label_accuracy", *(f"{group}_{part}" for group in GROUPS for part in ("right", "wrong"))
    }  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    monkeypatch.setattr(api, "_loaders", lambda *_: loader_of)
    return make_store(tmp_path / "s.zarr")


def config(store: Store, **options: object) -> TrainConfig:
    recipe = str(store.path.with_name("tiny.toml"))
    return TrainConfig(**{"recipe": recipe, "device": "cpu", **options})  # type: ignore[arg-type]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_the_numbers_of_the_metrics_file(store: Store) -> None:
    result = train(store, config(store, tensorboard=True, epochs=2), loader_factory=loader_of)
    lines = [json.loads(line) for line in (Path(result.folder) / "metrics.jsonl").read_text().splitlines()]
    shown = scalars(Path(result.folder) / "tensorboard")
    assert set(shown) == set(lines[0]) - {"epoch"}
    for tag, points in shown.items():
        assert [step for step, _ in points] == [1, 2]
        assert [value for _, value in points] == pytest.approx([line[tag] for line in lines], rel=1e-6)
    train(store, config(store, epochs=2, resume=False), loader_factory=loader_of)
    assert not (Path(result.folder) / "tensorboard").exists()


def test_tensorboard_without_its_extra_is_told_before_anything_runs(store: Store, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"\[tensorboard\]") as raised:
        train(store, config(store, tensorboard=True), loader_factory=loader_of)
    assert raised.value.exit_code == 5
    assert not store.path.with_name("s.runs").exists()


def test_seeds_are_runs_of_their_own_with_mean_and_deviation(store: Store) -> None:
    command = ["train", "--seeds", "3", "--seed", "5", "--epochs", "2", "--device", "cpu", "--store", str(store.path)]
    command += ["--recipe", str(store.path.with_name("tiny.toml")), "--json"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert (told["name"], told["seeds"]) == ("mixfix-clean", [5, 6, 7])
    assert [run["name"] for run in told["runs"]] == [f"mixfix-clean-seed{seed}" for seed in (5, 6, 7)]
    reached = [run["last_top1"] for run in told["runs"]]
    assert told["spreads"]["last_top1"] == {
        "mean": pytest.approx(mean(reached)), "deviation": pytest.approx(stdev(reached)), "count": 3
    }  # fmt: skip
    losses = {run["name"]: (Path(run["folder"]) / "metrics.jsonl").read_text() for run in told["runs"]}
    assert len(set(losses.values())) == 3
    alone = train(store, config(store, seed=6, epochs=2, name="alone"), loader_factory=loader_of)
    assert alone.last_top1 == pytest.approx(reached[1], abs=0.03)
    again = CliRunner().invoke(app, command)
    assert json.loads(again.stdout) == told
    assert "is finished already" in " ".join(again.stderr.split())


def test_spreads_are_of_a_sample_and_none_where_a_number_is_missing() -> None:
    found = spread([0.5, 0.7, 0.6])
    assert found is not None
    assert (found.mean, found.deviation) == (pytest.approx(0.6), pytest.approx(0.1))
    single = spread([0.5])
    assert single is not None
    assert single.deviation is None
    assert spread([0.5, None]) is None


def test_a_number_of_seeds_that_makes_no_sense_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="--seeds is 0"):
        api.train_seeds(config(store), 0, store=store.path)
    with pytest.raises(UsageError, match=r"--seed is 4294967296"):
        api.train_seeds(config(store, seed=2**32 - 2), 3, store=store.path)
