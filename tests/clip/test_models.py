"""Promises about models: all of open_clip resolves, nothing is fetched unasked, wrong weights are refused."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import socket
from pathlib import Path

import pytest
import torch

from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import EncoderInfo, list_offline_models, resolve_model
from cleanctl.errors import InputError, MissingPackageError, UsageError


def load(model, pretrained=None):
    return load_encoder(resolve_model(model, pretrained), device="cpu", precision="fp32")


def test_a_local_directory_resolves_to_its_weights_and_preprocessing(model_dir):
    source = resolve_model(f"local-dir:{model_dir}", None)
    assert source.weights == model_dir / "open_clip_model.safetensors"
    assert source.weights_sha256 == hashlib.sha256(source.weights.read_bytes()).hexdigest()
    assert (source.pixels.size, source.pixels.resize_mode, source.pixels.interpolation) == (32, "shortest", "bicubic")
    assert source.mean == (0.5, 0.4, 0.3)
    assert source.dim == 16


def test_provenance_survives_json_and_a_move_of_the_folder(model_dir, tmp_path):
    info = resolve_model(f"local-dir:{model_dir}", None).info("fp32")
    assert EncoderInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
    moved = shutil.copytree(model_dir, tmp_path / "moved")
    assert resolve_model(f"local-dir:{moved}", None).info("fp32").identity() == info.identity()


@pytest.mark.parametrize("change", ["mean", "weights", "width"])
def test_identity_differs_where_the_numbers_would(model_dir, tmp_path, change, tiny):
    before = resolve_model(f"local-dir:{model_dir}", None).info("fp32").identity()
    folder = shutil.copytree(model_dir, tmp_path / "changed")
    config = json.loads((folder / "open_clip_config.json").read_text())
    if change == "mean":
        config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    elif change == "width":
        config["model_cfg"]["vision_cfg"]["width"] = 48
    else:
        tiny.write_model(folder, seed=5)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert resolve_model(f"local-dir:{folder}", None).info("fp32").identity() != before


def test_a_weights_file_of_any_name_beside_a_config_is_found(tmp_path, tiny):
    folder = tiny.write_model(tmp_path / "m", name="epoch_12.safetensors")
    assert resolve_model(f"local-dir:{folder}", None).weights.name == "epoch_12.safetensors"
    shutil.copy(folder / "epoch_12.safetensors", folder / "epoch_13.safetensors")
    with pytest.raises(InputError, match=r"2 weights files.*epoch_12\.safetensors, epoch_13"):
        resolve_model(f"local-dir:{folder}", None)
    assert resolve_model(f"local-dir:{folder}/epoch_13.safetensors", None).weights.name == "epoch_13.safetensors"


def test_a_folder_without_config_or_weights_says_which_is_missing(model_dir, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        resolve_model(f"local-dir:{tmp_path}/nowhere", None)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"open_clip_config\.json"):
        resolve_model(f"local-dir:{tmp_path}/bare", None)
    shutil.copy(model_dir / "open_clip_config.json", tmp_path / "bare")
    with pytest.raises(InputError, match="0 weights files"):
        resolve_model(f"local-dir:{tmp_path}/bare", None)
    (tmp_path / "bare" / "open_clip_config.json").write_text('{"embed_dim": 3}')
    with pytest.raises(InputError, match="not an open_clip configuration"):
        resolve_model(f"local-dir:{tmp_path}/bare", None)


def test_absent_weights_say_what_was_looked_for_where_and_how_to_bring_it(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(InputError) as caught:
        resolve_model("ViT-B-32-quickgelu", "openai")
    text = str(caught.value)
    assert "models--timm--vit_base_patch32_clip_224.openai" in text
    assert "open_clip_model.safetensors" in text
    assert "ViT-B-32.pt" in text
    assert "--download" in text
    assert "local-dir:" in text
    with pytest.raises(InputError, match="models--someone--clip"):
        resolve_model("hf-hub:someone/clip", None)


def test_a_download_that_fails_is_told(monkeypatch):
    import open_clip

    def fails(cfg, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", fails)
    with pytest.raises(InputError, match="no route to host"):
        resolve_model("ViT-B-32-quickgelu", "openai", download=True)


def test_download_fetches_through_open_clip(monkeypatch, tmp_path):
    import open_clip

    asked = []
    monkeypatch.setattr(open_clip, "download_pretrained", lambda cfg, **_: asked.append(cfg["hf_hub"]) or __file__)
    source = resolve_model("ViT-B-32-quickgelu", "openai", download=True)
    assert asked == ["timm/vit_base_patch32_clip_224.openai/"]
    assert source.weights == Path(__file__)


def test_weights_in_the_hub_cache_are_found_and_listed(tmp_path, monkeypatch):
    import huggingface_hub

    cached = tmp_path / "weights.safetensors"
    cached.write_bytes(b"x" * 10)

    def lookup(repo, name, **_):
        return str(cached) if (repo, name) == ("timm/ViT-B-16-SigLIP", "open_clip_model.safetensors") else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lookup)
    source = resolve_model("ViT-B-16-SigLIP", None)
    assert source.weights == cached
    assert (source.pixels.resize_mode, source.mean) == ("squash", (0.5, 0.5, 0.5))
    assert [(m.model, m.pretrained, m.size) for m in list_offline_models()] == [("ViT-B-16-SigLIP", "webli", 10)]


def test_openai_weights_without_quickgelu_are_refused_and_the_right_name_is_given():
    with pytest.raises(InputError, match=r"QuickGELU mismatch.*ViT-B-32-quickgelu"):
        resolve_model("ViT-B-32", "openai")
    with pytest.raises(UsageError, match="neither a file nor a tag"):
        resolve_model("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


@pytest.mark.parametrize("name", ["ViT-B-32.pt", "vit_b_32-quickgelu-laion400m_e32-46683a32.pt", "my-quickgelu.pt"])
def test_a_weights_file_known_for_quickgelu_is_refused_too(tmp_path, name):
    torch.save({}, tmp_path / name)
    with pytest.raises(InputError, match="QuickGELU mismatch"):
        resolve_model("ViT-B-32", str(tmp_path / name))


def test_a_config_beside_a_weights_file_decides(tmp_path, tiny):
    torch.save({}, tmp_path / "mine.pt")
    config = {"model_cfg": {**tiny.CONFIG["model_cfg"], "quick_gelu": True}, "preprocess_cfg": {"mean": [0.1] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="QuickGELU mismatch"):
        resolve_model("ViT-B-32", str(tmp_path / "mine.pt"))
    assert resolve_model("ViT-B-32-quickgelu", str(tmp_path / "mine.pt")).mean == (0.1, 0.1, 0.1)


def test_a_bare_file_for_siglip_gets_siglips_preprocessing_and_a_note(tmp_path):
    torch.save({}, tmp_path / "mine.pt")
    source = resolve_model("ViT-B-16-SigLIP", str(tmp_path / "mine.pt"))
    assert source.pixels.resize_mode == "squash"
    assert "says nothing of itself" in source.notes[0]


def test_weights_that_would_run_code_are_never_loaded(model_dir, tmp_path):
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (ran,))

    folder = tmp_path / "trap"
    folder.mkdir()
    shutil.copy(model_dir / "open_clip_config.json", folder)
    for write in (
        lambda path: torch.save({"state_dict": Trap()}, path),
        lambda path: path.write_bytes(pickle.dumps(Trap())),
    ):
        write(folder / "open_clip_pytorch_model.bin")
        with pytest.raises(InputError, match=r"not a plain state dict|damaged"):
            load(f"local-dir:{folder}")
    assert not ran.exists()


def test_weights_of_another_architecture_or_cut_short_are_refused(model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "m")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 48
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not fit"):
        load(f"local-dir:{folder}")
    shutil.copy(model_dir / "open_clip_config.json", folder)
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"damaged|does not fit"):
        load(f"local-dir:{folder}")


def test_torch_checkpoints_load_with_the_restricted_reader(model_dir, tmp_path):
    from safetensors.torch import load_file

    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copy(model_dir / "open_clip_config.json", folder)
    torch.save({"state_dict": load_file(model_dir / "open_clip_model.safetensors"), "epoch": 3}, folder / "epoch_3.pt")
    ours = load(f"local-dir:{folder}").encode_text(["a cat"]).embedding_PD
    assert (ours == load(f"local-dir:{model_dir}").encode_text(["a cat"]).embedding_PD).all()


def test_unknown_names_suggest_near_ones():
    with pytest.raises(UsageError, match="ViT-B-32"):
        resolve_model("ViT-B32", "openai")
    with pytest.raises(UsageError, match="own weights"):
        resolve_model("local-dir:x", "openai")


def test_a_tokenizer_of_the_hub_is_asked_for_by_name_when_it_is_not_there(tmp_path, tiny):
    folder = tmp_path / "siglip"
    config = {**tiny.CONFIG, "model_cfg": json.loads(json.dumps(tiny.CONFIG["model_cfg"]))}
    tiny.write_model(folder, config=config)
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "timm/ViT-B-16-SigLIP"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises((InputError, MissingPackageError), match="tokenizer"):
        load(f"local-dir:{folder}")


def test_open_clip_is_kept_from_talking_through_the_root_logger(model_dir, capfd, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    load(f"local-dir:{model_dir}")
    assert logging.root.handlers == []
    assert capfd.readouterr() == ("", "")
