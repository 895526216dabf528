"""A tuned image tower: what it sees, what is learnt of it, what a stop costs, and where a detector fits again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from cleanctl import api
from cleanctl.adapt.image_features import ImageFeatures
from cleanctl.adapt.preset import choose_preset
from cleanctl.adapt.views import View, Views
from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.clip.tune.tower import tune_tower
from cleanctl.config import AdaptConfig, EmbedConfig, SelectConfig
from cleanctl.config.tune import parse_tune
from cleanctl.errors import InputError, InterruptedRun, StoreError, UsageError
from cleanctl.records import PixelSpec
from cleanctl.store import Store
from cleanctl.train.pixels import HeldPixels

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_dir, web_folder) -> Path:
    """A store of coloured pictures, a fifth of whose training labels is wrong; copied by each test that writes."""
    path = tmp_path_factory.mktemp("images") / "cleanctl.zarr"
    api.embed(
        EmbedConfig(
            source=web_folder, model=f"local-dir:{model_dir}", prompts="photo", loader="torch", workers=0, device="cpu"
        ),
        store=path,
    )
    return path


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cleanctl.zarr"))


def config(tune="vpt-deep", **more) -> AdaptConfig:
    usual = {"epochs": 2, "batch_size": 32, "device": "cpu", "loader": "torch", "workers": 0}
    return AdaptConfig(tune=tune, **{**usual, **more})


def learnt(store: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(store.with_name("cleanctl.detectors") / name / "detector.safetensors")


def scores(store: Path) -> np.ndarray:
    return np.asarray(Store.open(store).split("train").read_result("scores", "detector").arrays["p_clean"])


# ---- what a tower sees


@pytest.fixture
def features(model_dir):
    def make(tune="lora", *, view=None, precision="fp32", count=9):
        source = resolve_model(f"local-dir:{model_dir}", None)
        encoder = load_encoder(source, device="cpu", precision="fp32")
        views = Views(view or View(), encoder.info)
        side = views.spec.size
        pixel = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        held = HeldPixels(torch.from_numpy(pixel), np.ones(count, bool), "cpu")
        untuned = encoder.encode_images(pixel) if side == encoder.info.pixels.size else None
        tower = tune_tower(encoder.model.visual, parse_tune(tune))
        return ImageFeatures(tower, held, views, seed=3, device="cpu", precision=precision), untuned

    return make


def test_the_final_pass_sees_images_as_embed_does(features):
    images, untuned = features()
    position, found = zip(*images.plain())
    assert np.concatenate(position).tolist() == list(range(9))
    torch.testing.assert_close(torch.cat(found), torch.from_numpy(untuned).float(), rtol=0, atol=2e-3)


def test_an_epoch_sees_every_image_once_and_begins_anywhere(features):
    images, _ = features()
    whole = list(images.batches(1, 4))
    assert sorted(np.concatenate([position for position, _ in whole])) == list(range(9))
    for (position, found), (again, same) in zip(whole[1:], images.batches(1, 4, first=1)):
        assert position.tolist() == again.tolist()
        torch.testing.assert_close(found, same)
    other = np.concatenate([position for position, _ in images.batches(2, 4)])
    assert other.tolist() != np.concatenate([position for position, _ in whole]).tolist()


def test_training_crops_differ_from_the_plain_view_and_between_epochs(features):
    images, _ = features()

    def of_first_image(batches):
        return next(found[position == 0] for position, found in batches if (position == 0).any())

    plain, *crops = (of_first_image(one) for one in (images.plain(), images.batches(0, 9), images.batches(5, 9)))
    assert (plain - crops[0]).abs().max() > 1e-3
    assert (crops[0] - crops[1]).abs().max() > 1e-3


def test_gradients_of_fp16_are_those_of_float32_but_for_rounding(features):
    found = []
    for precision in ("fp32", "fp16"):
        images, _ = features("vpt-deep", precision=precision)
        _, image = next(images.batches(0, 9))
        (image * torch.linspace(-1e-4, 1e-4, image.numel()).view_as(image)).sum().backward()
        found.append({name: parameter.grad.clone() for name, parameter in images.trained().items()})
    for name, gradient in found[0].items():
        scale = gradient.abs().max()
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=float(0.02 * scale))


@pytest.mark.parametrize(
    ("preset", "spec", "mean"),
    [
        ("cifar100", PixelSpec(size=224, interpolation="bilinear"), 0.507),
        ("cub", PixelSpec(size=256, resize_mode="squash", interpolation="bilinear"), 0.485),
        ("cars", PixelSpec(size=256, resize_mode="squash", interpolation="bilinear"), 0.48145466),
        ("clothing1m", PixelSpec(size=256, resize_mode="squash", interpolation="bilinear"), 0.6959),
    ],
)
def test_a_presets_view_is_the_methods(preset, spec, mean, model_dir):
    info = resolve_model(f"local-dir:{model_dir}", None).info("fp32")
    views = Views(
        choose_preset(config(preset=preset, epochs=10)).view, dataclasses.replace(info, pixels=PixelSpec(size=224))
    )
    assert views.spec == spec
    image = torch.zeros(2, 3, spec.size, spec.size, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    for seen in (views.plain(image), views.training(image, rng)):
        assert seen.shape == (2, 3, 224, 224)
        assert seen[0, 0, 0, 0] < 0 < mean
    assert views.plain(image)[0, 0, 5, 5] == pytest.approx(
        -mean / choose_preset(config(preset=preset, epochs=10)).view.std[0]
    )


# ---- the verb


TRAINED = {
    "vpt-deep": 2 * 20 * 32,
    "vpt-shallow": 20 * 32,
    "lora": 2 * 2 * 2 * 32 * 4,
    "adapter": 2 * (2 * 32 + 33 * 8 + 9 * 32),
    "ssf": 2 * 2 * (3 + 1 + 4 + 1) * 32,
    "bias": 2 * (1 + 3 + 1 + 1 + 4 + 1) * 32 + 2 * 32,
    "partial:1": 4 * 32 + 33 * 96 + 33 * 32 + 33 * 128 + 129 * 32,
    "full": 2 * (4 * 32 + 33 * 96 + 33 * 32 + 33 * 128 + 129 * 32),
}


QUICK = ("vpt-deep", "partial:1")  # the others differ in the tower alone, which tests/clip/tune holds to account


WAYS = [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in TRAINED]


@pytest.mark.parametrize("tune", WAYS)
def test_every_way_to_tune_learns_and_leaves_its_detector_and_score(tune, store):
    result = api.adapt(config(tune, epochs=1, context_tokens=4), store=store)
    assert result.parameters == TRAINED[tune] + 2 * 4 * 32
    name = tune.replace(":", "-")
    start = tune_tower(
        load_encoder(
            resolve_model(Store.open(store).encoder["model"], None), device="cpu", precision="fp32"
        ).model.visual,
        parse_tune(tune),
    ).values()
    found = {key.removeprefix("learnt.tower."): one for key, one in learnt(store, name).items() if ".tower." in key}
    assert found.keys() == start.keys()
    moved = [key for key in found if not torch.equal(found[key], start[key])]
    assert moved
    assert np.isfinite(scores(store)).all()
    summary = api.select(SelectConfig(strategy="detector.dual", fallback="none", device="cpu"), store=store)
    assert summary.kept == result.kept


def test_a_resnet_tower_is_tuned_by_its_biases(tmp_path, tiny, web_folder):
    model = tiny.CONFIG["model_cfg"] | {"vision_cfg": RESNET}
    source = tmp_path / "resnet"
    source.mkdir()
    (source / "open_clip_config.json").write_text(json.dumps(tiny.CONFIG | {"model_cfg": model}))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{source}", load_weights=False)
    save_file(network.state_dict(), source / "open_clip_model.safetensors")
    path = tmp_path / "cleanctl.zarr"
    embed = {"prompts": "photo", "loader": "torch", "workers": 0, "device": "cpu"}
    api.embed(EmbedConfig(source=web_folder, model=f"local-dir:{source}", **embed), store=path)
    result = api.adapt(config("bias", epochs=1, context_tokens=4), store=path)
    biases = sum(one.numel() for name, one in network.visual.named_parameters() if name.endswith("bias"))
    assert result.parameters == biases + 2 * 4 * 32
    with pytest.raises(UsageError, match=r"a ResNet\. It can be tuned by: bias, partial:K, full"):
        api.adapt(config("lora", context_tokens=4), store=path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_numbers(how, store, monkeypatch):
    api.adapt(config(name="whole"), store=store)
    whole = scores(store)
    original, seen = ImageFeatures._embed, []

    def embed_then_stop(self, image):
        seen.append(len(image))
        if len(seen) == 7:  # in the second of two epochs of four steps
            os.kill(os.getpid(), how)
        return original(self, image)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFeatures, "_embed", embed_then_stop)
        if how == signal.SIGKILL:
            child = os.fork()
            if child == 0:
                try:
                    api.adapt(config(name="stopped"), store=store)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        else:
            with pytest.raises(InterruptedRun, match="epoch 2 of 2"):
                api.adapt(config(name="stopped"), store=store)
    api.adapt(config(name="stopped"), store=store)
    np.testing.assert_allclose(scores(store), whole, rtol=1e-4, atol=1e-6)
    first, second = learnt(store, "whole"), learnt(store, "stopped")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-6)


def test_less_memory_gives_the_same_numbers(store):
    api.adapt(config(name="kept"), store=store)
    kept = scores(store)
    api.adapt(config(name="recomputed", recompute=True), store=store)
    np.testing.assert_allclose(scores(store), kept, rtol=1e-4, atol=1e-6)


def test_a_detector_is_applied_through_its_own_tower(store):
    api.adapt(config(name="mine", learning_rate=0.1), store=store)
    first = scores(store)
    again = {"device": "cpu", "loader": "torch", "workers": 0}
    api.adapt(config("prompts", name="other", loader="auto", workers=None), store=store)
    assert not np.allclose(scores(store), first, atol=1e-3)
    api.adapt(AdaptConfig(apply="mine", **again), store=store)
    np.testing.assert_allclose(scores(store), first, rtol=1e-4, atol=1e-6)
    result = api.adapt(AdaptConfig(apply="mine", split="test", **again), store=store)
    assert (result.tune, result.count) == ("vpt-deep", 24)


def test_a_detector_of_another_model_is_refused(store, tmp_path, other_model_dir, web_folder):
    api.adapt(config(name="mine", epochs=1), store=store)
    other = tmp_path / "other" / "cleanctl.zarr"
    embed = {"prompts": "photo", "loader": "torch", "workers": 0, "device": "cpu"}
    api.embed(EmbedConfig(source=web_folder, model=f"local-dir:{other_model_dir}", **embed), store=other)
    folder = str(store.with_name("cleanctl.detectors") / "mine")
    with pytest.raises(StoreError, match="weights_sha256 differ"):
        api.adapt(AdaptConfig(apply=folder, device="cpu"), store=other)


def test_an_image_that_cannot_be_read_any_more_is_told(tmp_path, web_folder, model_dir):
    images = Path(shutil.copytree(web_folder, tmp_path / "images"))
    path = tmp_path / "cleanctl.zarr"
    embed = {"prompts": "photo", "loader": "torch", "workers": 0, "device": "cpu"}
    api.embed(EmbedConfig(source=images, model=f"local-dir:{model_dir}", **embed), store=path)
    next((images / "train").rglob("*.jpg")).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 images of split 'train' could be read by embed"):
        api.adapt(config(), store=path)


# ---- options


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"workers": 0}, "--workers was given with --tune prompts"),
        ({"recompute": True, "precision": "bf16"}, "--precision and --recompute were given"),
    ],
)
def test_what_reads_images_is_refused_where_none_is_read(given, what):
    with pytest.raises(UsageError, match=what):
        AdaptConfig(tune="prompts", **given)


def test_a_typo_of_a_way_to_tune_is_told_with_all_of_them():
    with pytest.raises(UsageError, match=r"did you mean 'vpt-deep'.*prompts, class-vectors, vpt-deep.*partial:K"):
        AdaptConfig(tune="vptdeep")
