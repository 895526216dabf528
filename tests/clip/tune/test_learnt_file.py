"""A file of learnt numbers says whose they are, and loads beside that model, tokenizer and classes alone."""

from __future__ import annotations

import dataclasses
import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from cleanctl.clip.models import resolve_model
from cleanctl.clip.tune.learnt_file import Learnt, read_learnt, tokenizer_fingerprint, write_learnt
from cleanctl.clip.tune.tower import tune_tower
from cleanctl.config.tune import parse_tune
from cleanctl.errors import InputError, StoreError

CLASSES = ("cat", "dog", "ship")


@pytest.fixture
def saved(tmp_path, model_dir):
    """A tuned tower, its file, and whose it is."""
    source = resolve_model(f"local-dir:{model_dir}", None)
    visual = open_clip.create_model(source.open_clip_name, load_weights=False).visual
    tuned = tune_tower(visual, parse_tune("lora"))
    with torch.no_grad():
        tuned.trained["blocks.0.q.B"].fill_(0.25)
    tokenizer = open_clip.get_tokenizer(source.open_clip_name)
    learnt = Learnt(
        tune=tuned.settings,
        encoder=source.info("fp32"),
        tokenizer=tokenizer_fingerprint(tokenizer, CLASSES),
        classes=CLASSES,
        more={"epochs": 3},
    )
    path = tmp_path / "detector.safetensors"
    write_learnt(path, tuned.values(), learnt)
    return tuned, path, learnt


def test_what_is_written_is_read(saved):
    tuned, path, learnt = saved
    tensors, read = read_learnt(path)
    assert read == learnt
    assert tensors.keys() == tuned.values().keys()
    assert all(torch.equal(tensors[name], value) for name, value in tuned.values().items())
    read.require_fit(path, learnt.encoder, learnt.tokenizer, CLASSES)


def test_any_reader_of_safetensors_reads_it(saved):
    tuned, path, _ = saved
    assert load_file(path).keys() == tuned.trained.keys()


def test_another_model_is_refused(saved, other_model_dir):
    _, path, learnt = saved
    other = resolve_model(f"local-dir:{other_model_dir}", None).info("fp32")
    with pytest.raises(StoreError, match="weights_sha256 differ"):
        learnt.require_fit(path, other, learnt.tokenizer, CLASSES)


def test_the_precision_of_the_model_may_differ_and_is_no_part_of_what_is_refused(saved, other_model_dir):
    _, path, learnt = saved
    assert learnt.encoder.precision == "fp32"
    learnt.require_fit(path, dataclasses.replace(learnt.encoder, precision="bf16"), learnt.tokenizer, CLASSES)
    other = resolve_model(f"local-dir:{other_model_dir}", None).info("bf16")
    with pytest.raises(StoreError, match=r": weights_sha256 differ\."):
        learnt.require_fit(path, other, learnt.tokenizer, CLASSES)


@pytest.mark.parametrize("classes", [("dog", "cat", "ship"), ("cat", "dog"), (*CLASSES, "owl")])
def test_other_classes_are_refused(saved, classes):
    _, path, learnt = saved
    with pytest.raises(StoreError, match="3 classes"):
        learnt.require_fit(path, learnt.encoder, learnt.tokenizer, classes)


def test_another_tokenizer_is_refused(saved):
    _, path, learnt = saved
    longer = tokenizer_fingerprint(open_clip.SimpleTokenizer(context_length=77), CLASSES)
    with pytest.raises(StoreError, match="tokenizer"):
        learnt.require_fit(path, learnt.encoder, longer, CLASSES)


def test_a_changed_tensor_is_noticed(saved):
    _, path, _ = saved
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="do not have their digest"):
        read_learnt(path)


@pytest.mark.parametrize("keep", [0, 9, 2000, -1])
def test_a_cut_file_is_refused(saved, keep):
    _, path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged"):
        read_learnt(path)


def test_somebody_elses_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not written by cleanctl"):
        read_learnt(path)
    save_file({"w": torch.ones(2)}, path, metadata={"cleanctl": json.dumps({"version": 1})})
    with pytest.raises(InputError, match="not written by cleanctl"):
        read_learnt(path)
    with pytest.raises(InputError, match="no file"):
        read_learnt(tmp_path / "absent.safetensors")
