"""doctor: what is broken, absent or crashing on a machine becomes a line and a command, never a traceback."""

from __future__ import annotations

import json
import os
import threading
import time
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cleanctl.doctor.examine as doctor
from cleanctl.cli import app
from cleanctl.doctor.examine import ABSENT, BROKEN, OK, run_children
from cleanctl.doctor.probes import PROBES
from cleanctl.errors import install_command

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """Puts a module with the given source before the installed one in the children's path."""

    def fake(name: str, source: str) -> None:
        folder = tmp_path / "fakes" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))

    return fake


MISSING = "raise ModuleNotFoundError(\"No module named 'faiss'\", name='faiss')"


def judged(name: str, found: dict) -> doctor.Finding:
    thing = next(thing for thing in doctor._THINGS if thing.name == name)
    return doctor._judge(thing, found[name], has_gpu=False)


def test_a_package_that_is_missing_comes_with_the_command_that_brings_it(fake_package):
    fake_package("faiss", MISSING)
    finding = judged("faiss", run_children(("faiss",), timeout=240))
    assert finding.state == ABSENT
    assert finding.type == install_command("cpu")


def test_a_package_that_fails_at_import_is_broken_and_says_why(fake_package):
    fake_package("pyarrow", "raise ImportError('libarrow.so.9: cannot open shared object file')")
    finding = judged("pyarrow", run_children(("pyarrow",), timeout=240))
    assert finding.state == BROKEN
    assert "libarrow.so.9" in finding.says
    assert finding.type == "pip install --force-reinstall 'pyarrow>=18'"


def test_a_package_that_lacks_one_of_its_own_is_broken_not_missing(fake_package):
    fake_package("faiss", "import swigged_that_is_not_there")
    found = run_children(("faiss",), timeout=240)["faiss"]
    assert found["state"] == BROKEN
    assert "swigged_that_is_not_there" in found["says"]


def test_a_crash_is_told_of_the_one_that_crashed_and_the_rest_is_still_tried(fake_package):
    fake_package("faiss", "import os; os.abort()")
    found = run_children(("pyarrow", "faiss", "zarr"), timeout=240)
    assert found["faiss"]["state"] == BROKEN
    assert "SIGABRT" in found["faiss"]["says"]
    assert found["pyarrow"]["state"] == found["zarr"]["state"] == OK


HANGS = "import pathlib, time; pathlib.Path({file!r}).touch(); time.sleep(600)"


def test_a_package_that_hangs_is_given_up(fake_package, tmp_path):
    fake_package("faiss", HANGS.format(file=str(tmp_path / "hangs")))
    assert run_children(("faiss",), timeout=1)["faiss"] == {
        "name": "faiss", "state": BROKEN, "says": "no answer within 1 s"
    }  # fmt: skip


def test_a_finding_is_told_while_its_neighbours_are_still_tried_and_a_hang_ends_none(
    fake_package, tmp_path, monkeypatch
):
    """Time is up once a package hangs and the finding before it was told."""
    fake_package("faiss", HANGS.format(file=str(tmp_path / "hangs")))
    heard, given_up = [], []

    class Timer(threading.Thread):
        def __init__(self, seconds, give_up):
            super().__init__(daemon=True)
            self.give_up, self.late, self.cancel = give_up, time.monotonic() + seconds, lambda: None

        def run(self):
            while not (heard and (tmp_path / "hangs").exists()) and time.monotonic() < self.late:
                time.sleep(0.01)
            if not given_up:
                given_up.append(list(heard))
                self.give_up()

    monkeypatch.setattr(threading, "Timer", Timer)
    found = run_children(("pyarrow", "faiss", "remote"), timeout=120, tell=lambda line: heard.append(line["name"]))
    assert given_up == [["pyarrow"]]
    assert heard == ["pyarrow", "faiss", "remote"]
    assert "no answer" in found["faiss"]["says"]
    assert found["pyarrow"]["state"] == found["remote"]["state"] == OK


def test_what_a_library_prints_does_not_spoil_the_report(fake_package):
    fake_package("faiss", "print('{\"name\": 1}', flush=True); import os; os.system('echo noise')\n" + MISSING)
    assert run_children(("faiss",), timeout=240)["faiss"]["state"] == ABSENT


def test_a_probe_notices_a_library_that_computes_wrongly(fake_package):
    fake_package(
        "faiss", "__version__ = '1'\nclass IndexFlatIP:\n  def __init__(self, d): pass\n  def add(self, x): pass\n"
    )
    assert run_children(("faiss",), timeout=240)["faiss"]["state"] == BROKEN


def test_every_probe_has_a_line_in_the_report_and_a_child_that_runs_it():
    run = [name for child in doctor._CHILDREN for name in child]
    assert sorted(run) == sorted(PROBES) == sorted(thing.name for thing in doctor._THINGS)


def report(*, broken: str = "") -> doctor.Report:
    def found(name: str) -> dict:
        state = BROKEN if name == broken else ABSENT if name == "ffcv" else OK
        return {"name": name, "state": state, "says": "ImportError: [x] of a very long text " + "y" * 90}

    things = tuple(doctor._judge(thing, found(thing.name), has_gpu=True) for thing in doctor._THINGS)
    return doctor.Report(
        findings=things, models=({"model": "RN50", "pretrained": "openai", "path": "x", "bytes": 2e8},)
    )


def run(monkeypatch, answer: doctor.Report, *words: str):
    def examine(store, *, told):
        for finding in answer.findings:
            told(finding)
        return answer

    monkeypatch.setattr(doctor, "examine", examine)
    return CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "80"})


def test_an_unusable_required_package_ends_with_5_and_an_optional_one_with_0(monkeypatch):
    assert run(monkeypatch, report(broken="torch")).exit_code == 5
    assert run(monkeypatch, report(broken="faiss")).exit_code == 0


def test_the_command_to_type_stands_on_one_line(monkeypatch):
    shown = run(monkeypatch, report()).stdout
    wanted = "apt-get install -y pkg-config libturbojpeg0-dev libopencv-dev && " + install_command("ffcv")
    assert wanted in [line.strip() for line in shown.splitlines()]


def test_json_is_one_object_that_holds_it_all(monkeypatch):
    done = run(monkeypatch, report(broken="torch"), "--json")
    record = json.loads(done.stdout)
    assert done.exit_code == 5
    assert record["usable"] is False
    torch = next(item for item in record["findings"] if item["name"] == "torch")
    assert torch["state"] == BROKEN
    assert torch["type"] == "pip install --force-reinstall 'torch>=2.6'"


def test_models_lists_what_needs_no_network(monkeypatch):
    shown = run(monkeypatch, report(), "--models").stdout
    assert "RN50" in shown
    assert "200" in shown


def test_a_store_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    finding = doctor._disk(tmp_path / "not" / "there" / "cleanctl.zarr")
    assert finding.state == BROKEN
    assert str(tmp_path) in finding.says


def test_a_requirement_is_the_one_that_the_package_declares():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    for thing in doctor._THINGS:
        if thing.required or thing.extra:
            assert thing.package in (extras[thing.extra] if thing.extra else declared["dependencies"])


@pytest.mark.slow
def test_this_machine_is_examined_in_full(tmp_path):
    whole = doctor.examine(Path(tmp_path) / "cleanctl.zarr")
    assert whole.usable
    assert {finding.name for finding in whole.findings} == {*PROBES, "python", "disk"}
