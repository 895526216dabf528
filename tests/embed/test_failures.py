"""Promises about images that fail: each is listed with its reason and what its bytes are, and rubbish ends a run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from cleanctl.api import embed, failures
from cleanctl.cli import app
from cleanctl.config import FailureBound
from cleanctl.embed.failures import FailureLimit, TooManyFailuresError
from cleanctl.errors import UsageError
from cleanctl.paths import failures_path
from cleanctl.store import Store

LOADERS = ["torch", "ffcv"]


@pytest.fixture
def spoilt(images):
    """Four bad images among 21."""
    cat = images / "train" / "cat"
    (cat / "zz1.jpg").write_bytes(b"<!DOCTYPE html><html>404</html>")
    (cat / "zz2.png").write_bytes(b"")
    (cat / "zz3.jpg").write_bytes(b"\0" * 900)
    (cat / "zz4.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"\x01" * 40)
    return {
        "train/cat/zz1.jpg": "HTML page",
        "train/cat/zz2.png": "empty",
        "train/cat/zz3.jpg": "zero bytes only",
        "train/cat/zz4.jpg": "JPEG",
    }


def test_failures_are_listed_beside_the_store_and_the_list_goes_when_they_are_mended(config, spoilt, tmp_path, images):
    store = tmp_path / "s.zarr"
    embed(config, store=store)
    table = parquet.read_table(failures_path(store, "train")).to_pydict()
    assert dict(zip(table["key"], table["first_bytes"])) == spoilt
    assert all(table["reason"])
    report = failures(store=store)
    assert {failure.key: failure.first_bytes for failure in report.failures["train"]} == spoilt
    assert report.to_json()["failed"] == 4
    for key in spoilt:
        (images / key).unlink()
    embed(config, store=store)
    assert not failures_path(store, "train").exists()
    assert failures(store=store).count == 0


def test_the_command_lists_them_for_people_and_programs(config, spoilt, tmp_path):
    store = str(tmp_path / "s.zarr")
    embed(config, store=store)
    shown = CliRunner().invoke(app, ["embed", "--show-failures", "--store", store])
    assert shown.exit_code == 0
    assert "4 of 25 images failed" in shown.stdout
    assert "zero bytes" in shown.stdout
    told = CliRunner().invoke(app, ["embed", "--show-failures", "--store", store, "--json"])
    assert {one["key"] for one in json.loads(told.stdout)["failures"]} == set(spoilt)
    assert CliRunner().invoke(app, ["embed", "--store", store]).exit_code == 2, "SOURCE is missing"


@pytest.mark.parametrize("loader", LOADERS)
def test_a_run_whose_input_is_rubbish_ends_and_keeps_what_it_has(config, spoilt, tmp_path, loader):
    pytest.importorskip("ffcv") if loader == "ffcv" else None
    store = tmp_path / "s.zarr"
    strict = replace(config, loader=loader, max_failures="2")
    with pytest.raises(TooManyFailuresError, match=r"could not be read \(--max-failures 2\): 'train/cat/zz1.jpg'") as e:
        embed(strict, store=store)
    assert e.value.exit_code == 3
    listed = parquet.read_table(failures_path(store, "train")).to_pydict()
    assert set(listed["key"]) <= set(spoilt)
    assert len(listed["key"]) > 2
    assert {failure.key for failure in failures(store=store).failures["train"]} == set(listed["key"])
    kept = int((Store.open(store).split("train").committed()[0] != 0).sum())
    summary = embed(replace(config, loader=loader, max_failures="4"), store=store).splits[0]
    assert summary.embedded == 25 - kept
    assert (summary.ok, summary.failed) == (21, 4)
    assert embed(strict, store=store).splits[0].failed == 4, "failures of an earlier run are no reason to stop"


def test_a_percentage_is_judged_when_there_are_enough_images():
    limit = FailureLimit(FailureBound.parse("10%"))
    limit.take(100, {f"a{i}": "bad" for i in range(25)})  # 25 % of few images
    limit.take(200, {})
    with pytest.raises(TooManyFailuresError, match="31 of the 306 images"):
        limit.take(6, {f"b{i}": "bad" for i in range(6)})


@pytest.mark.parametrize("text", ["", "%", "101%", "-1", "five", "5%%", "1.5"])
def test_bounds_that_make_no_sense_are_refused(config, text):
    with pytest.raises(UsageError, match="--max-failures is"):
        replace(config, max_failures=text)
