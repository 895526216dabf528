"""The model's own temperature: kept by embed and import, read from the weights for an old store, asked for else."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cleanctl.api import embed, import_arrays, select
from cleanctl.clip.weights import read_logits
from cleanctl.config import EmbedConfig, ImportConfig, SelectConfig
from cleanctl.errors import StoreError, UsageError
from cleanctl.store import Store

_spec = importlib.util.spec_from_file_location("tiny_of_temperature", Path(__file__).parents[1] / "tiny.py")
assert _spec is not None
assert _spec.loader is not None
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

SCALE = 50.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tiny.write_model(tmp_path_factory.mktemp("model"))
    state = load_file(folder / "open_clip_model.safetensors")
    save_file({**state, "logit_scale": torch.tensor(math.log(SCALE))}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def embedded(model, tmp_path):
    """A store of tiny images, and the folder of its model."""
    path = tmp_path / "s.zarr"
    config = EmbedConfig(
        source=str(tiny.write_images(tmp_path / "images")),
        model=f"local-dir:{model}",
        loader="torch",
        device="cpu",
        workers=0,
    )
    embed(config, store=path)
    return path


def make_old(path):
    """As a version wrote it that did not know of the scale."""
    store = Store.open(path)
    with store.lock():
        store.annotate(encoder={name: value for name, value in store.encoder.items() if not name.startswith("logit")})


def chosen(path, recorder=None, **options):
    recorder = recorder or tiny.Recorder()
    config = SelectConfig(strategy="zeroshot.match", device="cpu", **options)
    summary = select(config, store=path, progress=recorder)
    return summary, recorder


def test_embed_keeps_the_scale_and_select_runs_at_it_and_says_so(embedded):
    assert Store.open(embedded).encoder["logit_scale"] == pytest.approx(SCALE)
    own, said = chosen(embedded, temperature="model", name="own")
    assert any("temperature 0.02 (the model's own, 1/50)" in note for note in said.notes)
    assert own.parameters["temperature"] == 0.02
    stored = Store.open(embedded).split("train").results("scores")
    assert stored["zeroshot-temperature=0.02-pooling=sum"]["parameters"]["temperature"] == 0.02
    number, _ = chosen(embedded, temperature=0.02, name="number")
    assert number.scores[0].score == own.scores[0].score, "the same number is the same score"
    paper, said = chosen(embedded, name="default")
    assert paper.parameters["temperature"] == 0.07
    assert any("temperature 0.07 (the paper's)" in note for note in said.notes)
    assert chosen(embedded, temperature="paper", name="paper")[0].scores[0].score == paper.scores[0].score


def test_of_an_old_store_the_scale_is_read_from_the_weights_and_kept(embedded):
    make_old(embedded)
    summary, said = chosen(embedded, temperature="model")
    assert summary.parameters["temperature"] == 0.02
    assert any("was read from its weights" in note for note in said.notes)
    assert Store.open(embedded).encoder["logit_scale"] == pytest.approx(SCALE)


def test_embedding_again_completes_an_old_store(embedded, model, tmp_path):
    make_old(embedded)
    source = str(tmp_path / "images")
    embed(
        EmbedConfig(source=source, model=f"local-dir:{model}", loader="torch", device="cpu", workers=0), store=embedded
    )
    assert Store.open(embedded).encoder["logit_scale"] == pytest.approx(SCALE)


@pytest.mark.parametrize("change", [{"model": "local-dir:/gone"}, {"weights_sha256": "0" * 64}])
def test_where_the_weights_are_gone_or_others_the_error_says_how_to_give_it(embedded, change):
    make_old(embedded)
    store = Store.open(embedded)
    with store.lock():
        store.annotate(encoder={**store.encoder, **change})
    with pytest.raises(StoreError, match=r"or give the number: --temperature 0\.01"):
        chosen(embedded, temperature="model")
    assert chosen(embedded)[0].kept >= 0, "the paper's needs no scale"


def test_an_import_takes_the_scale_also_later(tmp_path):
    rng = np.random.default_rng(0)
    for name, values in (
        ("x", rng.standard_normal((30, 8))),
        ("t", rng.standard_normal((3, 8))),
        ("y", rng.integers(0, 3, 30)),
    ):
        np.save(tmp_path / f"{name}.npy", values)
    files = {
        "image_embeddings": tmp_path / "x.npy",
        "text_embeddings": tmp_path / "t.npy",
        "labels": tmp_path / "y.npy",
    }
    path = tmp_path / "s.zarr"
    import_arrays(ImportConfig(**files), store=path)
    with pytest.raises(StoreError, match="cleanctl import again with --logit-scale"):
        chosen(path, temperature="model")
    import_arrays(ImportConfig(**files, logit_scale=100), store=path)
    assert chosen(path, temperature="model")[0].parameters["temperature"] == 0.01
    import_arrays(ImportConfig(**files), store=path)
    assert Store.open(path).encoder["logit_scale"] == 100, "an import that says nothing of it leaves it"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_scale_and_bias_are_read_of_every_kind_of_weights(tmp_path, suffix):
    state = {"logit_scale": torch.tensor(math.log(117.0)), "logit_bias": torch.tensor(-12.5), "w": torch.zeros(3)}
    path = tmp_path / f"m.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    scale, bias = read_logits(path)
    assert scale == pytest.approx(117.0)
    assert bias == -12.5
    path.write_bytes(b"damaged")
    assert read_logits(path) == (None, None)


def test_the_published_code_knows_no_other_temperature():
    with pytest.raises(UsageError, match="--temperature model was given with --compat paper-code"):
        SelectConfig(temperature="model", compat="paper-code")
