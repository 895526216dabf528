"""Promises about `python -m bench.gpu`: all of it runs without a GPU, so that on a card nothing but the card is new."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def gpu(monkeypatch):
    """The module; `bench` is no part of the package, and is found from the root of a checkout."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    return importlib.import_module("bench.gpu.__main__")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_kernels_are_held_against_ceilings_of_the_same_run(gpu, tmp_path):
    out = tmp_path / "out.jsonl"
    assert gpu.main(["--device", "cpu", "--tiny", "--parts", "kernels", "--out", str(out)]) == 0
    found = {line["what"]: line for line in lines(out)}
    held = {"zeroshot_stats": "gemm tf32", "mixture_em": "exp fp64", "pixels_to_input": "copy"}
    for what, ceiling in held.items():
        assert found[what]["of"] == ceiling
        assert found[what]["share"] == pytest.approx(found[what]["rate"] / found[ceiling]["rate"])


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_to_its_end(gpu, tmp_path, capsys):
    assert gpu.main(["--device", "cpu", "--tiny", "--seconds", "3600", "--out", str(tmp_path / "out.jsonl")]) == 0
    found = {line["what"]: line for line in lines(tmp_path / "out.jsonl")}
    assert {"copy", "upload", "gemm fp16", "gemm tf32", "exp fp64"} <= found.keys()
    kinds = [kind for kind, module in (("ffcv", "ffcv"), ("nvjpeg", "torchcodec")) if importlib.util.find_spec(module)]
    whole = {"pixels_to_input", "zeroshot_stats", "mixture_em", "encoder tiny", "train cpu-small", "zeroshot,"}
    whole |= {"logistic fit", "logistic scores", "knn"}
    for start in whole | {f"{path}, {kind}" for path in ("loading alone", "embed") for kind in kinds}:
        of_it = [line for what, line in found.items() if what.startswith(start)]
        assert of_it, start
        assert all(line["rate"] > 0 and line["share"] > 0 and line["of"] for line in of_it), of_it
    assert all(line["versions"]["torch"] and line["on"] == "cpu" and line["tiny"] for line in found.values())
    assert not [line for line in found.values() if "error" in line]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert list(map(json.loads, printed)) == lines(tmp_path / "out.jsonl")


def test_a_part_that_fails_costs_the_others_nothing_and_is_told(gpu, tmp_path, monkeypatch, capsys):
    def fail(bench, seconds):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.PARTS, "kernels", (fail, 0.1))
    monkeypatch.setitem(gpu.PARTS, "encoder", (lambda bench, seconds: bench.emit({"what": "after"}), 0.1))
    options = ["--device", "cpu", "--tiny", "--parts", "kernels,encoder", "--out", str(tmp_path / "out.jsonl")]
    assert gpu.main(options) == 1
    *_, failed, after = lines(tmp_path / "out.jsonl")
    assert (failed["what"], failed["error"], after["what"]) == ("kernels", "RuntimeError: no such kernel", "after")
    assert "Traceback" in capsys.readouterr().err


def test_what_is_not_begun_within_the_seconds_is_told(gpu, tmp_path):
    assert gpu.main(["--device", "cpu", "--tiny", "--seconds", "0", "--out", str(tmp_path / "out.jsonl")]) == 0
    found = lines(tmp_path / "out.jsonl")
    assert [line["what"] for line in found] == list(gpu.PARTS)
    assert {line["skipped"] for line in found} == {"the 0 seconds are over"}


def test_a_part_that_does_not_exist_is_refused(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--parts", "kernel"])
    assert "--parts names 'kernel'" in capsys.readouterr().err


@pytest.fixture
def bare(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    return importlib.import_module("bench.gpu.bare")


def step(bare, name, code, most=60.0):
    return bare.Step(name=name, command=(sys.executable, "-c", code), most=most)


def test_a_step_that_fails_or_lasts_costs_the_others_nothing(bare, tmp_path, monkeypatch, capsys):
    """And what each said is on disk before the next begins."""
    seen = f"import pathlib; print(len(pathlib.Path({str(tmp_path / 'steps.jsonl')!r}).read_text().splitlines()))"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    steps = [
        step(bare, "fails", "print('the card is gone'); raise SystemExit(3)"),
        step(bare, "lasts", f"print('begun', flush=True); {child}", most=3.0),
        step(bare, "after", seen),
    ]
    monkeypatch.setattr(bare, "plan", lambda out, device: steps)
    assert bare.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    found = {line["step"]: line for line in lines(tmp_path / "steps.jsonl")}
    assert [found[name]["code"] for name in ("fails", "lasts", "after")] == [3, None, 0]
    assert found["after"]["ended"] == "2"
    assert (tmp_path / "fails.log").read_text() == "the card is gone\n"
    assert "lasts: its time was over" in capsys.readouterr().out


def test_no_step_begins_after_the_seconds_are_over(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "plan", lambda out, device: [step(bare, "late", "import time; time.sleep(1000)")])
    assert bare.main(["--out", str(tmp_path), "--seconds", "0"]) == 1
    assert [line["code"] for line in lines(tmp_path / "steps.jsonl")] == [None]


def test_every_test_that_needs_a_card_is_among_the_steps(bare, tmp_path):
    """Those whose loaders a conftest marks, too; and the steps' time adds up to what a card is lent for."""
    steps = {one.name: one for one in bare.plan(tmp_path, "cuda")}
    assert {"tests/train/test_transfer.py", "tests/images", "tests/datasets"} <= set(steps["tests"].command)
    assert next(iter(steps)) == "doctor"
    budget = {name: one.command[one.command.index("--seconds") + 1] for name, one in steps.items() if "bench" in name}
    assert sum(map(int, budget.values())) <= 200
