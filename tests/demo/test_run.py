"""The demo says what it does and what came out, and touches nothing that is not its own."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cleanctl.api
from cleanctl.cli import app
from cleanctl.cli.demo import _announce, verdict
from cleanctl.cli.folding import fold
from cleanctl.config import DemoConfig
from cleanctl.demo.draw import Drawing, DrawnFiles, draw_jpeg
from cleanctl.demo.run import clear, prepare, run_demo, steps
from cleanctl.demo.sheet import draw_sheet
from cleanctl.errors import InputError, UsageError
from cleanctl.progress import SILENT
from cleanctl.results import DemoResult

VERBS = {"embed": "embed", "select": "select", "train": "train", "eval": "evaluate", "report": "report"}
RESULT = DemoResult(
    folder="demo",
    images=4000,
    kept=1500,
    wrong_labels=0.4,
    precision=0.95,
    recall=0.6,
    zero_shot=0.8,
    cross_entropy=0.55,
    mixfix=0.75,
    sheet="demo/sheet.png",
    report="demo/cleanctl.report.html",
    seconds={"draw": 5.0},
)


def drawn_in(folder: Path) -> DrawnFiles:
    return DrawnFiles(
        images=folder / "images", labels=folder / "labels.csv", classes=folder / "classes.txt", reused=False
    )


class Called(Exception):
    pass


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_each_printed_command_means_what_the_demo_runs(monkeypatch, tmp_path, device):
    """The words, typed by a person, reach the verb as the very config that the demo hands to it."""
    for function in VERBS.values():

        def capture(config, *, store=None, out=None, progress=None):
            raise Called(config, out)

        monkeypatch.setattr(cleanctl.api, function, capture)
    demo = DemoConfig(folder=tmp_path / "demo", device=device)
    shown = [step for step in steps(demo, drawn_in(demo.folder)) if step.words[0] in VERBS]
    assert [step.words[0] for step in shown] == ["embed", "select", "train", "train", "eval", "report"]
    for step in shown:
        done = CliRunner().invoke(app, list(step.words))
        assert isinstance(done.exception, Called), done.output
        assert done.exception.args == (step.config, step.out)


def test_the_two_trainings_differ_in_method_and_selection_alone():
    plain, mixfix = (step.config for step in steps(DemoConfig(), drawn_in(Path("demo"))) if step.words[0] == "train")
    assert plain.selection == "all"
    assert replace(plain, method="mixfix", selection="intersection", name="mixfix") == mixfix


def test_folding_a_command_loses_no_word_and_keeps_an_option_with_its_value():
    line = "cleanctl embed demo/images --labels demo/labels.csv --truth-column truth --model local-dir:demo/model"
    pieces = fold(line, width=40)
    assert max(map(len, pieces)) <= 40
    assert shlex.split("\n".join(pieces).replace("\\\n", "")) == line.split()  # as a shell reads it
    assert any("--truth-column truth" in piece for piece in pieces)


def test_a_loss_is_told_as_plainly_as_a_win():
    assert "beats cross-entropy on all labels by 20.0 points" in verdict(RESULT)
    lost = replace(RESULT, mixfix=0.50)
    assert not lost.mixfix_wins
    assert "did not beat" in verdict(lost)
    assert "5.0 points behind" in verdict(lost)
    assert not replace(RESULT, mixfix=RESULT.cross_entropy).mixfix_wins


def test_a_folder_that_no_demo_made_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no demo made it"):
        run_demo(DemoConfig(folder=tmp_path, fresh=True))
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_starting_over_removes_what_a_demo_left_and_nothing_else(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("images/a.jpg", "drawing.json", "cleanctl.train.beton", "notes.txt", "labels.csv"):
        (tmp_path / name).write_text("x")
    clear(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_another_drawing_drops_the_store_that_the_last_one_filled(tmp_path, monkeypatch):
    small = Drawing(train=20, test=5)  # the option takes no fewer than 600
    monkeypatch.setattr("cleanctl.demo.run.Drawing", lambda train, test: small)
    prepare(DemoConfig(folder=tmp_path, images=600), SILENT)
    (tmp_path / "cleanctl.zarr").mkdir()
    prepare(DemoConfig(folder=tmp_path, images=600), SILENT)
    assert (tmp_path / "cleanctl.zarr").exists()
    (tmp_path / "model" / "open_clip_config.json").write_text("{}")
    prepare(DemoConfig(folder=tmp_path, images=600), SILENT)
    assert not (tmp_path / "cleanctl.zarr").exists()
    assert json.loads((tmp_path / "model" / "open_clip_config.json").read_text())["model_cfg"]


def test_too_few_images_are_refused():
    with pytest.raises(UsageError, match="--images is 10"):
        DemoConfig(images=10)


def test_the_sheet_frames_right_labels_green_and_wrong_ones_red(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(2):
        (tmp_path / f"train/{number}.jpg").write_bytes(draw_jpeg(0, 0, number)[1])
    rows = [
        {"key": "train/0.jpg", "label_name": "gear", "suggested_name": "gear", "keep": "True"},
        {"key": "train/1.jpg", "label_name": "square", "suggested_name": "gear", "keep": "False"},
    ]
    truth = {"train/0.jpg": "gear", "train/1.jpg": "gear"}
    path = draw_sheet(rows, truth, tmp_path, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(path)).astype(int)
    green = (np.abs(pixels - (40, 150, 70)).max(axis=2) == 0).nonzero()[0]
    red = (np.abs(pixels - (205, 50, 45)).max(axis=2) == 0).nonzero()[0]
    assert len(green) > 300
    assert len(red) > 300
    assert np.median(green) < np.median(red)


def test_a_printed_command_can_be_pasted_into_a_shell(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    line = "cleanctl train --method cross-entropy --selection all --recipe shapes.toml --name cross-entropy"
    _announce(line)
    shown = capsys.readouterr().err.strip().removeprefix("$ ")
    assert len(shown.splitlines()) > 1
    assert shlex.split(shown.replace("\\\n", "")) == line.split()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_runs_and_a_second_run_uses_what_is_there(tmp_path):
    """Every verb for real, at full size: the selection must clean the labels and MixFix must win."""
    config = DemoConfig(folder=tmp_path / "demo")
    printed: list[str] = []
    first = run_demo(config, announce=printed.append)
    assert [line.split()[1] for line in printed[1:]] == ["embed", "select", "train", "train", "eval", "report"]
    assert first.wrong_labels == pytest.approx(0.4)
    assert first.precision > 0.85
    assert first.recall > 0.5
    assert first.mixfix_wins, first
    assert Path(first.sheet).stat().st_size > 10_000
    page = Path(first.report).read_text(encoding="utf-8")
    assert f"{100 * first.precision:.1f} %" in page
    assert f"{100 * first.mixfix:.1f} %" in page
    second = run_demo(config)
    assert replace(second, seconds={}) == replace(first, seconds={})
    assert sum(second.seconds.values()) < sum(first.seconds.values()) / 3
