"""What is read of open_clip's tables without loading it is what open_clip itself says."""

from __future__ import annotations

import os

import open_clip

from cleanctl.clip import known


def test_architectures_and_tags_are_those_of_open_clip():
    tags = known._pretrained()
    assert tags is not None
    assert set(known._configs()) == set(open_clip.list_models())
    assert tags.list_pretrained() == open_clip.list_pretrained()
    for name, tag in open_clip.list_pretrained():
        assert tags.get_pretrained_cfg(name, tag) == open_clip.get_pretrained_cfg(name, tag)
        assert tags.is_pretrained_cfg(name, tag)
    assert not tags.is_pretrained_cfg("ViT-B-32", "no such tag")


def test_configurations_are_those_of_open_clip(monkeypatch):
    monkeypatch.setattr(known, "sys", type("Sys", (), {"modules": {}}))
    found = {name: known.architecture(name) for name in known.architectures()}
    monkeypatch.undo()
    assert found == {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    assert known.architecture("ViT-B-23") is None


def test_without_its_files_open_clip_itself_is_asked(monkeypatch):
    for function in (known._configs, known._pretrained):
        monkeypatch.setattr(known, function.__name__, function.__wrapped__)
    monkeypatch.setattr(known, "_ALIAS", "open_clip_that_is_nowhere")
    monkeypatch.setattr(known, "_folder", lambda: os.devnull)
    assert (known._configs(), known._pretrained()) == ({}, None)
    monkeypatch.setattr(known, "sys", type("Sys", (), {"modules": {}}))
    assert known.architectures() == open_clip.list_models()
    assert known.tags() is open_clip
