"""Every tag of open_clip resolves to the preprocessing that open_clip itself would build, or is refused in words."""

from __future__ import annotations

from dataclasses import asdict

import open_clip
import pytest
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from cleanctl.clip import weights
from cleanctl.clip.models import resolve_model
from cleanctl.errors import InputError

TAGS = open_clip.list_pretrained()


@pytest.fixture
def _weights_of_all_tags(tmp_path, monkeypatch):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")
    monkeypatch.setattr(weights, "find_tag_weights", lambda cfg: weights.Found(path=file, looked_for=()))


def resolved():
    """(name, tag, source or the error that refuses it)."""
    for name, tag in TAGS:
        try:
            yield name, tag, resolve_model(name, tag)
        except InputError as error:
            yield name, tag, error


@pytest.mark.usefixtures("_weights_of_all_tags")
def test_every_tag_has_open_clips_preprocessing_or_is_refused_for_its_activation():
    count = 0
    for name, tag, source in resolved():
        cfg, config = open_clip.get_pretrained_cfg(name, tag), open_clip.get_model_config(name)
        mismatch = bool(cfg.get("quick_gelu")) != bool(config.get("quick_gelu"))
        assert isinstance(source, InputError) == mismatch, (name, tag)
        if isinstance(source, InputError):
            assert "QuickGELU mismatch" in source.found
            assert source.do
            continue
        count += 1
        wanted = merge_preprocess_dict(asdict(PreprocessCfg()), cfg)
        assert source.pixels.size == config["vision_cfg"]["image_size"], (name, tag)
        assert (source.pixels.resize_mode, source.pixels.interpolation, source.pixels.fill) == (
            wanted["resize_mode"],
            wanted["interpolation"],
            wanted["fill_color"],
        ), (name, tag)
        assert (source.mean, source.std) == (tuple(wanted["mean"]), tuple(wanted["std"])), (name, tag)
        assert source.dim == config["embed_dim"]
    assert count > 150


@pytest.mark.usefixtures("_weights_of_all_tags")
def test_families_have_the_preprocessing_of_their_papers():
    """Against open_clip's table, of which the test above takes each word."""
    found = {(name, tag): source for name, tag, source in resolved()}
    siglip = found["ViT-B-16-SigLIP", "webli"]
    assert (siglip.pixels.resize_mode, siglip.pixels.size, siglip.mean) == ("squash", 224, (0.5, 0.5, 0.5))
    openai = found["ViT-B-32-quickgelu", "openai"]
    assert (openai.pixels.resize_mode, openai.pixels.interpolation, openai.pixels.size) == ("shortest", "bicubic", 224)
    assert "--model ViT-B-32-quickgelu" in found["ViT-B-32", "openai"].do
    perception = found["PE-Core-B-16", "meta"]
    assert (perception.pixels.resize_mode, perception.pixels.interpolation) == ("squash", "bilinear")
    mobile = found["MobileCLIP2-S0", "dfndr2b"]
    assert (mobile.mean, mobile.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
