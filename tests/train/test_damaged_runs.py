"""Files of a run that are not what was written are told in words, and never half believed."""

from __future__ import annotations

import pytest
import torch

from cleanctl.errors import StoreError
from cleanctl.train import open_run
from cleanctl.train.rundir import RunDir, read_json, read_tensors, write_json, write_tensors

VALUE = {"method": "mixfix", "recipe": {"epochs": 3, "rate": 0.1}, "classes": ["a", "ü"], "top1": 0.5}
TENSORS = {"meta": {"classes": ["a"], "epoch": 2}, "state_dict": {"w": torch.arange(300.0)}}


def same(one, other) -> bool:
    return str(one) == str(other) and torch.equal(one["state_dict"]["w"], other["state_dict"]["w"])


def told(read) -> str:
    """The remedy of the StoreError that reading ends in; empty if it does not."""
    try:
        read()
    except StoreError as error:
        return error.do
    return ""


def test_every_byte_of_a_json_file_counts(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, VALUE)
    whole = path.read_bytes()
    assert read_json(path) == VALUE
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(data)
            remedy = told(lambda: read_json(path))
            assert "--no-resume" in remedy or {key: read_json(path).get(key) for key in VALUE} == VALUE, (at, data)


@pytest.mark.parametrize("text", ["null", "[]", '"text"', "3", "", "{", '{"a": NaN', "\0"])
def test_json_of_another_kind_is_told(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StoreError, match=r"config\.json is damaged"):
        read_json(tmp_path / "config.json")


def test_a_checkpoint_that_is_cut_or_flipped_is_told(tmp_path):
    path = tmp_path / "last.pt"
    write_tensors(path, TENSORS)
    whole = path.read_bytes()
    assert same(read_tensors(path), TENSORS)
    for at in range(0, len(whole), 7):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(data)
            assert "--no-resume" in told(lambda: read_tensors(path)) or same(read_tensors(path), TENSORS), at
    path.unlink()
    for value in ([], {}, torch.zeros(3)):
        torch.save(value, path)
        with pytest.raises(StoreError, match="holds no checkpoint"):
            read_tensors(path)


@pytest.mark.parametrize("config", [{}, {"recipe": None}, {"recipe": {}, "extra": 1}, {"recipe": [], "method": 3}])
def test_a_run_whose_description_lacks_something_is_told(tmp_path, config):
    run = RunDir(tmp_path)
    write_json(run.config, config)
    write_tensors(run.last, TENSORS)
    with pytest.raises(StoreError, match=r"config\.json is damaged"):
        open_run(tmp_path, "last")
