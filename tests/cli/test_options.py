"""Options that make no sense: one message with the option, the value and what is allowed; exit code 2; nothing runs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cleanctl.cli import app
from cleanctl.config import (
    EmbedConfig,
    EvalConfig,
    ImportConfig,
    PromptsCheckConfig,
    PromptsShowConfig,
    PromptsWriteConfig,
    ReproduceConfig,
    SelectConfig,
    TrainConfig,
)
from cleanctl.config.option import options_of
from cleanctl.errors import UsageError
from cleanctl.records import Shard
from cleanctl.score.compute import scores_needed

CONFIGS = [
    EmbedConfig,
    ImportConfig,
    SelectConfig,
    TrainConfig,
    EvalConfig,
    PromptsShowConfig,
    PromptsCheckConfig,
    PromptsWriteConfig,
    ReproduceConfig,
]
LONG = "x" * 300
REFUSED = [
    (["select", "--seed", "three"], "--seed is 'three'. Give a whole number."),
    (["select", "--theta-gmm", "0,5"], "--theta-gmm is '0,5'. Give a number, such as 0.5."),
    (["select", "--seed", "-1"], "--seed is -1. Give a whole number from 0 to 4,294,967,295."),
    (["train", "--seed", str(2**70)], "--seed is 1180591620717411303424. Give a whole number from 0 to 4,294,967,295."),
    (["embed", "d", "--seed", "-1"], "--seed is -1."),
    (["train", "--workers", "-1"], "--workers is -1. Give a whole number from 0 to 1,024."),
    (["eval", "--workers", "-1"], "--workers is -1."),
    (["train", "--image-size", "100000"], "--image-size is 100000. Give a whole number from 8 to 4,096."),
    (["eval", "--batch-size", "100000000"], "--batch-size is 100000000. Give a whole number from 1 to 65,536."),
    (["train", "--network", "resnet18d.."], "--network is 'resnet18d..'."),
    (["train", "--lr", "0"], "--lr is 0.0. Give a number above 0, at most 1,000."),
    (["train", "--lr", "nan"], "--lr is nan."),
    (["select", "--temperature", "inf"], "--temperature is inf. Give a number above 0, model or paper."),
    (["select", "--theta-gmm", "nan"], "--theta-gmm is nan. Give a number from 0 to 1."),
    (["select", "--crossfit", "1"], "--crossfit is 1. Give 0 (off) or a number of folds, 2 or more."),
    (["select", "--crossfit", str(10**9)], "--crossfit is 1000000000. Give a whole number from 0 to 1,000."),
    (["select", "--crossfit", str(10**20)], "--crossfit is 100000000000000000000."),
    (["select", "--prompt-pooling", "max"], "--prompt-pooling is 'max'. Give one of: sum, mean."),
    (["select", "--strategy", "zeroshot.los"], "did you mean 'loss'?"),
    (["embed", "d", "--noise", "symetric:0.4"], "names the kind 'symetric'; did you mean 'symmetric'?"),
    (["embed", "d", "--max-failures", "5%%"], "--max-failures is '5%%'."),
    (["embed", "d", "--shard", "4/4"], "--shard is '4/4'. Give I/N, the I-th of N processes counted from 0: 0/4 …"),
    (["embed", "d", "--shard", f"0/{10**30}"], "--shard is '0/1"),
    (["embed", "d", "--devices", "0,tpu"], "--devices is '0,tpu'."),
    (["embed", "d", "--devices", "1,1"], "--devices is '1,1'."),
    (["embed", "d", "--shard", "0/2", "--finish"], "--shard and --finish were given together."),
    (["demo", "--images", "10"], "--images is 10. Give a whole number from 600 to 1,000,000."),
    *(
        (["select", "--split", name], f"--split is {name!r}, which ")
        for name in ("..", "a/b", "a\\b", "", " a", "\x1b[2J")
    ),
    *(([verb, *more, "--split", "text"], "is kept for the store's own files") for verb, *more in (
        ["embed", "d"], ["select"], ["train"], ["eval"], ["import", "--image-embeddings", "x", "--labels", "y"]
    )),
    (["select", "--split", LONG], "which has 300 bytes, more than 80."),
    (["select", "--name", LONG], "which has 300 bytes, more than 200."),
    (["train", "--name", "../other"], "--name is '../other', which holds a slash"),
    (["eval", "--run", ".."], "--run is '..', which is kept for the store's own files."),
    *(
        (["select", "--compat", "paper-code", *given], f"{' '.join(given)} was given with --compat paper-code.")
        for given in (
            ["--crossfit", "5"], ["--fallback", "best"], ["--prompt-pooling", "mean"], ["--logistic-solver", "lbfgs"]
        )
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


def refused(arguments):
    """What is told on stderr, in one line; exit code 2, no result, no traceback."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(("arguments", "told"), REFUSED)
def test_an_option_out_of_range_is_refused_at_once(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused(arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("", "is empty"),
        ("/", "is the root of the file system"),
        ("file", "is a file"),
        ("file/store", "lies below a file"),
        ("dangling", "is a link to gone, which does not exist"),
        (LONG, "has a name of 300 bytes"),
        (f"{LONG}/store", "cannot be a folder: File name too long"),
        ("s3://bucket/store", "is a URL"),
    ],
)
@pytest.mark.parametrize("verb", [["embed", "."], ["select"], ["doctor"]], ids=lambda verb: verb[0])
def test_a_place_where_no_store_can_lie_is_refused(place, told, verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("gone")
    assert told in refused([*verb, "--store", place])


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (lambda: EmbedConfig(source="d", noise="symetric:0.4"), ["embed", "d", "--noise", "symetric:0.4"]),
        (lambda: SelectConfig(strategy="zeroshot.los"), ["select", "--strategy", "zeroshot.los"]),
        (lambda: EmbedConfig(source="d", shard="4/4"), ["embed", "d", "--shard", "4/4"]),
        (lambda: TrainConfig(epochs=0), ["train", "--epochs", "0"]),
    ],
)
def test_python_and_the_command_line_say_the_same(make, arguments):
    with pytest.raises(UsageError) as caught:
        make()
    assert " ".join(str(caught.value).split()) in refused(arguments)


@pytest.mark.parametrize(
    ("config", "values", "told"),
    [
        (EmbedConfig, {"source": 5}, "SOURCE is 5. Give a path or a text."),
        (EmbedConfig, {"source": "d", "batch_size": "256"}, "--batch-size is '256'. Give a whole number"),
        (EmbedConfig, {"source": "d", "batch_size": True}, "--batch-size is True."),
        (EmbedConfig, {"source": "d", "batch_size": 2.5}, "--batch-size is 2.5."),
        (EmbedConfig, {"source": "d", "download": "yes"}, "--download is 'yes'. Give True or False."),
        (EmbedConfig, {"source": "d", "splits": "train"}, "--split is 'train'. Give a tuple of texts."),
        (EmbedConfig, {"source": "d", "shard": 3}, "--shard is 3."),
        (TrainConfig, {"epochs": math.nan}, "--epochs is nan."),
        (SelectConfig, {"strategy": None}, "--strategy is None. Give a text."),
        (EvalConfig, {"splits": ("train", 1)}, "--split is ('train', 1)."),
    ],
)
def test_a_wrong_type_is_refused_by_name(config, values, told):
    with pytest.raises(UsageError) as caught:
        config(**values)
    assert told in str(caught.value)


def test_values_are_kept_in_their_fields_type():
    config = EmbedConfig(source="d", splits=["train"], shard="1/4", noise="pair:0.25", max_failures="5%")
    assert config.splits == ("train",)
    assert config.shard == Shard(1, 4)
    assert (config.noise.kind, config.noise.rate) == ("pair", 0.25)
    assert config.max_failures.share == 0.05
    assert EmbedConfig(source="d", devices="0, 1").devices == ("0", "1")
    named = [[one.stored_name for one in scores_needed(SelectConfig(temperature=one))] for one in (1, 1.0)]
    assert named[0] == named[1]
    assert ImportConfig(image_embeddings="x.npy", labels="y.npy").labels == Path("y.npy")
    assert dataclasses.replace(config, shard="2/4").shard == Shard(2, 4)


def test_what_is_written_down_is_what_ran():
    written = SelectConfig(compat="paper-code").as_json()
    assert (written["fallback"], written["prompt_pooling"], written["crossfit"]) == ("lowest", "sum", 0)
    assert SelectConfig().as_json()["fallback"] == "best"
    assert dataclasses.replace(SelectConfig(compat="paper-code"), seed=1).fallback == "lowest"


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_an_option_with_its_help(config):
    assert [one.field for one in options_of(config)] == [field.name for field in dataclasses.fields(config)]
    assert all(one.help for one in options_of(config))


def test_a_name_that_is_no_text_is_told_as_json(tmp_path):
    command = [sys.executable, "-m", "cleanctl", "select", "--json", "--store", b"\xff.zarr"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as in a UTF-8 locale
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 4, done.stderr
    assert "\udcff.zarr" in json.loads(done.stdout)["error"]["found"]


def test_cleanctl_alone_prints_its_help_on_stderr():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "embed" in result.stderr
    assert "--help" in result.stderr
