"""The public names of the Python API, their types, and a selection read back in one call."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import cleanctl.api
import cleanctl.config
import cleanctl.errors
import cleanctl.results
from cleanctl.api import import_arrays, read_selection, select
from cleanctl.config import ImportConfig, SelectConfig
from cleanctl.errors import StoreError, UsageError

VERBS = [
    "adapt", "apply_review", "audit", "check_prompts", "conflicts", "diff", "embed", "evaluate", "export", "failures",
    "import_arrays", "list_review", "prompt_sets", "read_selection", "remove_review", "report", "reproduce",
    "sample_review", "select", "serve_review", "show_prompts", "status", "train", "train_seeds", "write_prompts",
]  # fmt: skip
CONFIGS = [
    "AdaptConfig", "AuditConfig", "ConflictsConfig", "DemoConfig", "DiffConfig", "EmbedConfig", "EvalConfig",
    "ExportConfig", "ImportConfig", "PromptsCheckConfig", "PromptsShowConfig", "PromptsWriteConfig", "ReportConfig",
    "ReproduceConfig", "ReviewApplyConfig", "ReviewListConfig", "ReviewRemoveConfig", "ReviewSampleConfig",
    "ReviewServeConfig", "SelectConfig", "TrainConfig",
]  # fmt: skip
ERRORS = ["CleanctlError", "InputError", "InterruptedRun", "MissingPackageError", "StoreError", "UsageError"]
RESULTS = [
    "AdaptResult", "AuditReport", "ConflictsSummary", "DemoResult", "EmbedSummary", "EvalReport", "ExportResult",
    "FailureReport", "PromptCheck", "PromptListing", "PromptsWritten", "ReportResult", "ReproduceReport",
    "ReviewApplied", "ReviewList", "ReviewRemoved", "ReviewSample", "ReviewServed", "SeedsResult", "SelectionDiff",
    "SelectionSummary", "ShippedSets", "StatusReport", "TrainResult",
]  # fmt: skip
COLUMNS = ["key", "label", "label_name", "keep", "suggested_label", "suggested_name", "p_label", "p_max"]


def test_the_exported_names_are_these():
    assert cleanctl.api.__all__ == VERBS
    assert [name for name in cleanctl.config.__all__ if name != "Config" and name.endswith("Config")] == CONFIGS
    assert sorted(name for name in vars(cleanctl.errors) if name.endswith(("Error", "Run"))) == ERRORS
    records = [getattr(cleanctl.results, name) for name in cleanctl.results.__all__]
    assert sorted(one.__name__ for one in cleanctl.results.Result.__subclasses__()) == RESULTS
    assert {one.__name__ for one in records} >= {*RESULTS}
    own = "not name.startswith('_') and type(value).__name__ != 'module'"
    code = f"import cleanctl; print([name for name, value in vars(cleanctl).items() if {own}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("package", [cleanctl.config, cleanctl.results], ids=lambda package: package.__name__)
def test_a_name_that_is_imported_when_it_is_asked_for_is_the_one_that_tools_see(package):
    """What type checkers read, `__all__` and what Python gives are three lists of the same names."""
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(package.__all__) == sorted(dir(package))
    for name, module in seen.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'Selectconfig'"):
        _ = package.Selectconfig


def records_by_name():
    return {name: getattr(room, name) for room in (cleanctl.config, cleanctl.results) for name in room.__all__}


@pytest.mark.parametrize("name", [name for name in VERBS if name != "read_selection"])
def test_a_verb_is_typed_and_returns_a_record_of_results(name):
    verb = getattr(cleanctl.api, name)
    hints = typing.get_type_hints(verb, {**vars(sys.modules[verb.__module__]), **records_by_name()})
    assert set(hints) == {*inspect.signature(verb).parameters, "return"}
    assert issubclass(hints["return"], cleanctl.results.Result)
    assert verb.__doc__


@pytest.fixture
def store(tmp_path):
    """Ten rows of three classes, one of them a stranger to its class, with two selections."""
    import numpy as np

    rng = np.random.default_rng(0)
    label_N = np.arange(30) % 3
    np.save(tmp_path / "x.npy", (np.eye(3, 8)[label_N] + 0.1 * rng.standard_normal((30, 8))).astype(np.float32))
    np.save(tmp_path / "y.npy", label_N)
    np.save(tmp_path / "t.npy", np.eye(3, 8, dtype=np.float32))
    np.save(tmp_path / "c.npy", np.arange(3))
    arrays = {"image_embeddings": "x", "labels": "y", "text_embeddings": "t", "text_classes": "c"}
    config = ImportConfig(**{option: tmp_path / f"{name}.npy" for option, name in arrays.items()})
    import_arrays(config, store=tmp_path / "s.zarr")
    select(SelectConfig(strategy="zeroshot.match", name="first", device="cpu"), store=tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_a_selection_is_one_call_away(store, tmp_path):
    from pyarrow import parquet

    last = SelectConfig(strategy="zeroshot.match & ~zeroshot.consistency", device="cpu")
    summary = select(last, store=store, out=tmp_path / "out.parquet")
    table = read_selection(store)
    assert table.equals(parquet.read_table(tmp_path / "out.parquet"))
    rules = [f"{rule}.{what}" for rule in ("zeroshot.match", "zeroshot.consistency") for what in ("score", "keep")]
    assert table.column_names == [*COLUMNS, *rules]
    assert sum(table["keep"].to_pylist()) == summary.kept
    first = read_selection(store, "first")
    assert first.column_names == [*COLUMNS, "zeroshot.match.score", "zeroshot.match.keep"]
    assert first.num_rows == 30
    assert first["label_name"].to_pylist()[:3] == ["0", "1", "2"]


def test_a_selection_that_is_not_there_is_a_store_error(store):
    with pytest.raises(StoreError, match=r"no selection named 'second'.*it has: first"):
        read_selection(store, "second")
    with pytest.raises(UsageError, match="which is empty"):
        read_selection("")
