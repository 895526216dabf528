"""The scorer `joint` against its equations written plainly, its corner cases, and what it keeps of a row."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from cleanctl.config import SelectConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.records import TextEmbeddings
from cleanctl.runtime import Choice
from cleanctl.score import joint_channel, joint_top, joint_weights
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import open_scorer, posterior_of
from cleanctl.score.scorer import ALONE, Rows


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load("joint_reference", Path(__file__).with_name("joint_reference.py"))
geometry = load("geometry_of_joint", Path(__file__).parents[2] / "bench" / "geometry.py")
SCALE = 20.0


@pytest.fixture(autouse=True)
def one_thread():
    """Small products: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def drawn(rows, classes, *, noise=0.4, seed=0, dim=24):
    data = geometry.clip_like(rows, dim=dim, classes=classes, prompts=3 * classes, noise=noise, seed=seed)
    text = TextEmbeddings(embedding_PD=data.text_PD, class_P=data.class_P, prompts=("",) * len(data.class_P))
    return data, text


def fitted(data, text, classes, *, block_rows=65_536, scale=SCALE, label_N=None, device="cpu"):
    label_N = data.label_N if label_N is None else label_N
    blocks = ArrayBlocks(image_ND=data.image_ND, block_rows=block_rows)
    choice = Choice(value=device, reason="asked for")
    rows = Rows(blocks=blocks, label_N=label_N, num_classes=classes, text=text, device=choice)
    scorer = open_scorer("joint", SelectConfig(temperature=1 / scale))
    model = scorer.fit(rows, ALONE)
    return model, scorer.posterior(model, rows)


def expected(data, classes, *, scale=SCALE, label_N=None):
    label_N = data.label_N if label_N is None else label_N
    image = data.image_ND.astype(np.float64)
    return reference.joint(image, data.text_PD.astype(np.float64), data.class_P, classes, label_N, scale)


@pytest.mark.parametrize(("rows", "classes", "scale"), [(1500, 6, SCALE), (600, 20, SCALE), (8300, 3, 60.0)])
def test_it_is_the_same_as_its_equations(rows, classes, scale):
    data, text = drawn(rows, classes)
    model, found = fitted(data, text, classes, scale=scale, block_rows=700)
    right, rate, weights = expected(data, classes, scale=scale)
    np.testing.assert_allclose(model.weights, weights, rtol=1e-3)
    np.testing.assert_allclose(model.channel.rate, rate, atol=1e-4)
    np.testing.assert_allclose(found.p_label, right, atol=1e-4)


def test_uneven_classes_are_weighted_with_their_shares():
    data, text = drawn(4000, 6, dim=64)
    chosen = np.random.default_rng(0).random(4000) < 2.0**-data.truth_N
    data = geometry.Geometry(
        **(vars(data) | {key: vars(data)[key][chosen] for key in ("image_ND", "label_N", "truth_N")})
    )
    model, found = fitted(data, text, 6, scale=60.0)
    right, rate, _ = expected(data, 6, scale=60.0)
    np.testing.assert_allclose(model.channel.rate, rate, atol=1e-4)
    np.testing.assert_allclose(found.p_label, right, atol=1e-4)
    assert model.channel.prior_Z[0] > 5 * model.channel.prior_Z[5]
    assert model.channel.prior_Z.sum() == pytest.approx(6)


@pytest.mark.parametrize("labels", ["drawn", "right"])
def test_where_labels_may_follow_the_images_these_and_the_prompts_alone_have_a_say(labels):
    """Labels drawn from the prompts' probabilities; all right ones, of which next to none is held for wrong."""
    data, text = drawn(1500, 6, dim=64)
    rng = np.random.default_rng(0)
    q = reference.softmax(reference.prompt_logits(data.image_ND, data.text_PD, data.class_P, 6, SCALE))
    label_N = np.array([rng.choice(6, p=one / one.sum()) for one in q.astype(np.float64)])
    label_N = data.truth_N if labels == "right" else label_N
    model, found = fitted(data, text, 6, label_N=label_N)
    assert 0.2 <= model.trust <= 0.7
    assert model.prompts.alone > 0.5
    assert (model.prompts.alone == 1) is (labels == "right")
    right, _, _ = expected(data, 6, label_N=label_N)
    np.testing.assert_allclose(found.p_label, right, atol=1e-4)
    np.testing.assert_allclose(model.count.sum(axis=0), np.bincount(label_N, minlength=6), rtol=1e-5)
    sure = 1 - float(model.channel.count.trace() / model.channel.count.sum())
    assert 1 - float(model.count.trace() / model.count.sum()) > sure


def test_it_finds_the_wrong_labels_and_their_share():
    """With prompts that are right for 61 % of the images; in 24 dimensions they are for 45 %, and the share is off."""
    data, text = drawn(3000, 6, dim=64)
    model, found = fitted(data, text, 6, scale=60.0)
    clean = data.label_N == data.truth_N
    keep = found.p_label >= 0.5
    assert clean[keep].mean() > 0.94
    assert keep[clean].mean() > 0.94
    wrong = 1 - float(model.channel.count.trace() / model.channel.count.sum())
    assert wrong == pytest.approx(1 - clean.mean(), abs=0.03)
    assert (found.suggested == data.truth_N).mean() > clean.mean() + 0.2


def test_what_is_left_out_of_many_classes_is_small_and_told(monkeypatch):
    data, text = drawn(900, 40)
    whole, found = fitted(data, text, 40)
    assert isinstance(whole.kept, joint_channel.Whole)
    monkeypatch.setitem(joint_channel.KEPT_BYTES, "cpu", 0)
    top, few = fitted(data, text, 40, block_rows=101)
    assert isinstance(top.kept, joint_top.Top)
    q = whole.kept.likelihood(slice(0, 900))
    assert 0 < top.kept.left_out < 0.5
    np.testing.assert_allclose(top.kept.likelihood(slice(0, 900)).sum(axis=1), q.sum(axis=1), atol=1e-4)
    assert np.abs(few.p_label - found.p_label).mean() < 2 * top.kept.left_out
    assert ((few.p_label >= 0.5) == (found.p_label >= 0.5)).mean() > 0.98


@pytest.mark.parametrize("labels", ["by class", "by image"])
@pytest.mark.parametrize("kept_bytes", [128 << 20, 0], ids=["whole", "top"])
def test_torch_says_what_numpy_says(monkeypatch, kept_bytes, labels):
    """On torch's own CPU runs what runs on CUDA, the check, its half belief and the shares of uneven classes too."""
    monkeypatch.setitem(joint_channel.KEPT_BYTES, "cpu", kept_bytes)
    data, text = drawn(1000, 30)
    label_N = data.label_N
    if labels == "by image":
        rng = np.random.default_rng(0)
        q = reference.softmax(reference.prompt_logits(data.image_ND, data.text_PD, data.class_P, 30, SCALE))
        label_N = (q.cumsum(axis=1) > rng.random((1000, 1))).argmax(axis=1)
        chosen_N = rng.random(1000) < 2.0 ** (-label_N / 8)
        data, label_N = replace(data, image_ND=data.image_ND[chosen_N]), label_N[chosen_N]
    model, found = fitted(data, text, 30, label_N=label_N)
    other, same = fitted(data, text, 30, label_N=label_N, device="cpu:0")
    assert isinstance(other.channel.rate, torch.Tensor)
    assert model.check.class_conditional is (labels == "by class")
    assert (model.trust == 1) is (model.prompts is None) is (labels == "by class")
    assert (float(model.channel.prior_Z.min()) < 1) is (labels == "by image")
    for name, wanted in vars(model.check).items():
        assert getattr(other.check, name) == pytest.approx(wanted, abs=1e-4), name
    assert other.trust == pytest.approx(model.trust, abs=1e-4)
    np.testing.assert_allclose(other.weights, model.weights, rtol=1e-3)
    np.testing.assert_allclose(other.count, model.count, atol=2e-2)
    for name in ("p_label", "p_max", "p_second"):
        np.testing.assert_allclose(getattr(same, name), getattr(found, name), atol=1e-4, err_msg=name)
    np.testing.assert_allclose(same.entropy, found.entropy, atol=1e-3)
    clear_N = found.p_max - found.p_second > 1e-3
    np.testing.assert_array_equal(same.suggested[clear_N], found.suggested[clear_N])


def test_channel_counts_every_row_once_whatever_the_groups():
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(7, 0.3), 333).astype(np.float32)
    label = rng.choice([0, 1, 1, 1, 4, 6], 333)
    kept = joint_channel.Whole(joint_channel.Groups(label, 7))
    kept.add(kept.put(slice(0, 200), q[:200]))
    kept.add(kept.put(slice(200, 333), q[200:]))
    kept.finish(ALONE)
    channel = joint_channel.fit_channel(kept, ALONE)
    rate, _, total, _ = reference.channel(q.astype(np.float64), label)
    np.testing.assert_allclose(channel.rate, rate, atol=1e-5)
    np.testing.assert_allclose(channel.rate.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose(channel.count.sum(axis=0), np.bincount(label, minlength=7), rtol=1e-5)
    assert channel.mean_log == pytest.approx(np.log(total).mean(), abs=1e-5)


@pytest.mark.parametrize("labels", [[2] * 30, [0, 0, 0, 3], [1]], ids=["one class", "absent classes", "one sample"])
def test_corner_cases_agree_with_the_equations_or_are_probabilities(labels):
    data, text = drawn(len(labels), 4, dim=8)
    _, found = fitted(data, text, 4, label_N=np.array(labels))
    assert ((found.p_label >= 0) & (found.p_label <= 1)).all()
    assert np.isfinite(found.entropy).all()


def test_a_class_without_prompts_is_refused():
    data, text = drawn(50, 4)
    few = text.class_P != 2
    text = TextEmbeddings(embedding_PD=text.embedding_PD[few], class_P=text.class_P[few], prompts=("",) * few.sum())
    with pytest.raises(InputError, match=r"classes without a prompt: \[2\]"):
        fitted(data, text, 4)


def test_without_a_number_the_models_own_scale_is_asked_for():
    data, text = drawn(50, 4)
    with pytest.raises(UsageError, match="its logit scale is not known"):
        posterior_of("joint", ArrayBlocks(image_ND=data.image_ND), data.label_N, num_classes=4, text=text)


@pytest.mark.parametrize(("classes", "dim"), [(12, 24), (40, 64)])
def test_weights_found_step_by_step_are_those_of_the_whole_grid(monkeypatch, classes, dim):
    """What is done with many classes, on so few that the whole grid can be tried."""
    data, text = drawn(2000, classes, dim=dim)
    whole, _ = fitted(data, text, classes)
    monkeypatch.setattr(joint_weights, "FEW", 0)
    some, _ = fitted(data, text, classes)
    assert some.weights[:2] == whole.weights[:2]
    torches, _ = fitted(data, text, classes, device="cpu:0")
    np.testing.assert_allclose(torches.weights, some.weights, rtol=1e-3)


@pytest.mark.parametrize(("rows", "wrong"), [(300, 0.3), (300, 1.0), (1, 1.0)])
def test_prompts_that_are_wholly_sure_of_a_class_overrule_labels_without_a_nan(rows, wrong):
    """Images at right angles to every prompt but one: e^-100 of the others' mass, which is 0 in float32."""
    classes, random = 5, np.random.default_rng(0)
    truth_N = random.integers(0, classes, rows)
    label_N = np.where(random.random(rows) < wrong, (truth_N + 1) % classes, truth_N)
    image_ND, text_PD = np.eye(8, dtype=np.float16)[truth_N], np.eye(8, dtype=np.float32)[:classes]
    text = TextEmbeddings(embedding_PD=text_PD, class_P=np.arange(classes, dtype=np.int32), prompts=("",) * classes)
    found = posterior_of(
        "joint", ArrayBlocks(image_ND=image_ND), label_N, num_classes=classes, text=text, temperature=0.01
    )
    np.testing.assert_array_equal(found.suggested, truth_N)
    np.testing.assert_allclose(found.p_label, label_N == truth_N, atol=1e-3)
    np.testing.assert_allclose(found.p_max, 1, atol=1e-3)
    assert np.isfinite(found.entropy).all()
    assert np.isfinite(found.p_second).all()
