"""Fine-tuning on the selection: its losses, CLIP's own image tower, and the way through `train`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import CLASSES, RECIPE, loader_of, make_store

from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.store import Store
from cleanctl.train import open_run, train
from cleanctl.train.clip_network import ClipClassifier, name_of
from cleanctl.train.methods.finetune import Finetune, fixmatch_loss, selected_loss
from cleanctl.train.methods.method import Compute, Setup
from cleanctl.train.networks import build_network
from cleanctl.train.recipe import learning_rate, load_recipe, parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = RECIPE.replace('"autoaugment-cifar10"', '"none"')
SMALL_CLIP = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 4},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"},
}


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("clip"), config=SMALL_CLIP)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "tiny.toml").write_text(PLAIN)
    return make_store(folder / "s.zarr", failed=(7,))


def run(store: Store, **options: object):
    recipe = str(store.path.with_name("tiny.toml"))
    config = TrainConfig(
        **{"recipe": recipe, "method": "finetune", "selection": "clean", "device": "cpu", "epochs": 2, **options}
    )
    return train(store, config, loader_factory=loader_of)


def method(*, selected: np.ndarray, recipe: str = PLAIN, **settings: object) -> Finetune:
    setup = Setup(
        recipe=parse_recipe(recipe, "tiny"),
        num_classes=4,
        compute=Compute(device="cpu"),
        label_M=np.zeros(len(selected), np.int64),
        selected_M=selected,
        settings=settings,
    )
    return Finetune(setup)


# ---- losses and batches


def test_the_loss_is_the_selected_samples_mean() -> None:
    logit, label = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    at = torch.tensor([1, 4, 5])
    by_hand = sum(-F.log_softmax(logit, 1)[i, label[i]] for i in at) / 3
    torch.testing.assert_close(selected_loss(logit, label, at), by_hand)


def test_a_batch_without_selected_samples_has_no_loss_and_no_gradient() -> None:
    logit = torch.randn(4, 3, requires_grad=True)
    loss = selected_loss(logit, torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logit.grad, torch.zeros_like(logit))


def test_fixmatch_teaches_the_strong_view_what_the_weak_one_is_sure_of() -> None:
    weak = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [0, 0, 8.0], [0, 0.2, 0]], requires_grad=True)
    strong = torch.randn(4, 3, requires_grad=True)
    loss = fixmatch_loss(weak, strong, threshold=0.95)
    expected = (F.cross_entropy(strong[:1], torch.tensor([0])) + F.cross_entropy(strong[2:3], torch.tensor([2]))) / 4
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert weak.grad is None
    assert strong.grad[[1, 3]].abs().sum() == 0
    assert (strong.grad[[0, 2]].abs().sum(1) > 0).all()


@pytest.mark.parametrize(("count", "steps"), [(160, 10), (37, 2), (20, 4)])
def test_every_readable_sample_has_its_turn_before_one_has_a_second(count: int, steps: int) -> None:
    ok = np.ones(count, bool)
    ok[3] = False
    tuned = method(selected=np.arange(count) % 2 == 0)
    batches = tuned.batches(tuned.members(), ok, steps=steps, rng=np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [16] * steps
    times = np.bincount(np.concatenate(batches), minlength=count)
    assert times[3] == 0
    assert times[ok].max() - times[ok].min() <= 1


# ---- through `train`


def test_rejected_samples_teach_their_labels_to_nobody(store: Store) -> None:
    """With all labels of rejected samples moved on by one class, the same network comes out."""
    first = open_run(Path(run(store, name="as-given").folder), "last").network.state_dict()
    split = store.split("train")
    keep = np.asarray(split.read_result("selections", "clean").arrays["keep"]).astype(bool)
    other = make_store(store.path.with_name("other.zarr"), failed=(7,))
    moved = other.split("train")
    assert (np.asarray(moved.label_N()) == np.asarray(split.label_N())).all()
    original = Finetune.members

    def members(self: Finetune):
        found = original(self)
        found.label_M[~self.setup.selected_M] = (found.label_M[~self.setup.selected_M] + 1) % len(CLASSES)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finetune, "members", members)
        second = open_run(Path(run(store, name="moved").folder), "last").network.state_dict()
    assert 0 < keep.sum() < len(keep)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value)


def test_fixmatch_changes_what_is_learnt_and_is_recorded(store: Store) -> None:
    plain = run(store, name="plain")
    sure = run(store, name="sure", settings=("fixmatch=true", "threshold=0.0"))
    networks = [open_run(Path(result.folder), "last") for result in (plain, sure)]
    assert networks[1].recipe.settings["finetune"] == {"fixmatch": True, "threshold": 0.0, "weight": 1.0}
    a, b = (one.network.state_dict()["head.weight"] for one in networks)
    assert not torch.allclose(a, b, atol=1e-4)
    assert (plain.best_top1, plain.last_top1) != (None, None)


# ---- CLIP's own tower


def test_the_clip_network_is_the_tower_with_a_head_on_its_class_token(clip_dir: Path) -> None:
    network = build_network(f"clip:local-dir:{clip_dir}", 4, weights="model", image_size=16).eval()
    visual = load_encoder(resolve_model(f"local-dir:{clip_dir}", None), device="cpu", precision="fp32").model.visual
    image = torch.randn(3, 3, 16, 16)
    token = visual.ln_post(visual.transformer(visual._embeds(image)))[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(network(image), network.head(token), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(token @ visual.proj, visual(image), rtol=1e-5, atol=1e-6)


def test_blocks_and_head_are_trained_and_nothing_else(clip_dir: Path) -> None:
    network = build_network(f"clip:local-dir:{clip_dir}", 4, weights="model")
    network(torch.randn(3, 3, 16, 16)).sum().backward()
    trained = {name for name, value in network.named_parameters() if value.grad is not None}
    everything = {name for name, _ in network.named_parameters()}
    frozen = {"conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight", "ln_pre.bias"}
    frozen |= {"ln_post.weight", "ln_post.bias"}
    assert everything - trained == {f"tower.visual.{name}" for name in frozen}


def test_the_stores_own_model_is_fine_tuned_and_evaluated(store: Store, clip_dir: Path) -> None:
    source = resolve_model(f"local-dir:{clip_dir}", None)
    store.annotate(encoder=source.info("fp32").to_json())
    recipe = store.path.with_name("tower.toml")
    recipe.write_text(PLAIN + "flip = false\nmean = [0.3, 0.3, 0.3]\nstd = [0.2, 0.2, 0.2]\n")
    result = run(store, name="tower", network="clip", recipe=str(recipe), learning_rate=0.05, epochs=8)
    assert result.network == f"clip:local-dir:{clip_dir}"
    opened = open_run(Path(result.folder), "last")
    assert isinstance(opened.network, ClipClassifier)
    before = load_encoder(source, device="cpu", precision="fp32").model.visual.state_dict()
    after = opened.network.state_dict()
    assert torch.equal(after["tower.visual.conv1.weight"], before["conv1.weight"])
    moved = "transformer.resblocks.0.mlp.c_fc.weight"
    assert not torch.equal(after[f"tower.visual.{moved}"], before[moved])
    lines = (Path(result.folder) / "metrics.jsonl").read_text().splitlines()
    loss = [json.loads(line)["loss"] for line in lines]
    assert loss[-1] < 0.7 * loss[0], loss


def test_a_store_of_arrays_has_no_tower() -> None:
    with pytest.raises(StoreError, match="not from a model"):
        name_of({"name": "none"})


def test_images_of_another_size_than_the_towers_are_refused(clip_dir: Path) -> None:
    with pytest.raises(UsageError, match="cannot take images of 32 pixels"):
        build_network(f"clip:local-dir:{clip_dir}", 4, weights="model", image_size=32)


def test_a_tower_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        build_network(f"clip:local-dir:{tmp_path / 'absent'}", 4, weights="model")


# ---- recipes

# docs/method.md C.3: optimiser, momentum, lr, weight decay
BACKBONES = {
    "vit": ("vit_base_patch16_224.augreg_in1k", "sgd", 0.0, 1e-2, 1e-5),
    "resnet50": ("resnet50.a1_in1k", "adamw", 0.9, 1e-3, 1e-5),
    "convnext": ("convnext_tiny.fb_in1k", "adamw", 0.9, 1e-4, 1e-4),
    "mae": ("vit_base_patch16_224.mae", "adamw", 0.9, 1e-4, 1e-3),
    "clip": ("clip", "sgd", 0.9, 5e-4, 5e-4),
}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dataset", ["cifar100", "webvision"])
def test_the_second_phases_recipes_are_the_methods(dataset: str, backbone: str) -> None:
    r = load_recipe(f"deft-{dataset}-{backbone}")
    assert (r.network, r.optimizer, r.momentum, r.learning_rate, r.weight_decay) == BACKBONES[backbone]
    assert (r.image_size, r.batch_size, r.interpolation, r.flip, r.policy) == (224, 64, "bilinear", True, "none")
    assert r.weights == ("none" if backbone == "clip" else "imagenet")
    ends = [learning_rate(r, epoch, 0, 10) / r.learning_rate for epoch in (0, r.epochs - 1)]
    if dataset == "cifar100":
        assert (r.epochs, r.crop, r.pad, r.load_size, r.mean[0]) == (10, "pad", 28, 224, 0.507)
        assert ends == [1, pytest.approx((1 + np.cos(0.9 * np.pi)) / 2)]
    else:
        assert (r.epochs, r.crop, r.load_size, r.resize, r.mean[0]) == (5, "random", 256, "squash", 0.485)
        assert ends == [1, 1]


def test_published_weights_are_fetched_only_when_asked_for(store: Store) -> None:
    with pytest.raises(UsageError, match="Nothing is downloaded without being asked for"):
        run(store, name="published", recipe="deft-cifar100-resnet50", network=None)
