"""joint tells noise that a class decides from noise that follows the image, by labels alone and for any classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from cleanctl.score import joint_check
from cleanctl.score.joint_channel import Channel, Groups, Whole, fit_channel
from cleanctl.score.joint_check import FOLLOWS, Check, examine, trust_in_labels
from cleanctl.score.scorer import ALONE

spec = importlib.util.spec_from_file_location("joint_reference", Path(__file__).with_name("joint_reference.py"))
assert spec is not None
assert spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

ROWS = 3000


def drawn(classes, seed=0):
    """(logits of P(z | i), true classes): groups of five classes look alike, P is what it should be."""
    rng = np.random.default_rng(seed)
    logit_NC = rng.normal(size=(ROWS, classes))
    near_N = rng.integers(0, classes, ROWS)
    logit_NC[np.arange(classes)[None] // 5 == near_N[:, None] // 5] += 3
    logit_NC[np.arange(ROWS), near_N] += 4
    p_NC = reference.softmax(logit_NC)
    truth_N = (p_NC.cumsum(axis=1) > rng.random((ROWS, 1))).argmax(axis=1)
    return logit_NC.astype(np.float32), truth_N, rng


def fitted(logit_NC, label_N):
    groups = Groups(label_N, logit_NC.shape[1])
    kept = Whole(groups, groups.placed(reference.softmax(logit_NC.astype(np.float64)).astype(np.float32)))
    return fit_channel(kept, ALONE)


def found(logit_NC, label_N, others=1000):
    return examine(logit_NC, label_N, fitted(logit_NC, label_N), others, map)


def replaced(truth_N, rng, other_N, share=0.3):
    return np.where(rng.random(ROWS) < share, other_N, truth_N)


def by_class(kind, truth_N, classes, rng):
    if kind == "symmetric":
        return rng.integers(0, classes, ROWS)
    return (truth_N + 1) % classes if kind == "pair" else truth_N - truth_N % 5 + rng.integers(0, 5, ROWS)


def by_image(logit_NC, truth_N, rng):
    """The best wrong class of a network that sees the image in another way."""
    seen_NC = logit_NC + rng.normal(size=logit_NC.shape)
    seen_NC[np.arange(ROWS), truth_N] = -np.inf
    return seen_NC.argmax(axis=1)


@pytest.mark.parametrize("classes", [10, 60])
@pytest.mark.parametrize("kind", ["symmetric", "pair", "group"])
def test_noise_that_the_class_decides_passes_with_few_classes_and_with_many(classes, kind):
    logit_NC, truth_N, rng = drawn(classes)
    label_N = replaced(truth_N, rng, by_class(kind, truth_N, classes, rng))
    check = found(logit_NC, label_N)
    assert check.class_conditional is True
    assert check.wrong == pytest.approx((label_N != truth_N).mean(), abs=0.08)
    assert 0 < check.error < 0.1


@pytest.mark.parametrize("classes", [10, 60])
def test_noise_that_follows_the_image_does_not_pass(classes):
    logit_NC, truth_N, rng = drawn(classes)
    check = found(logit_NC, replaced(truth_N, rng, by_image(logit_NC, truth_N, rng)))
    assert check.class_conditional is False


def test_right_labels_do_not_pass_as_nothing_tells_them_from_labels_that_follow_the_image():
    logit_NC, truth_N, _ = drawn(10)
    check = found(logit_NC, truth_N)
    assert check.wrong < 0.02
    assert check.class_conditional is False


def test_it_is_what_the_equations_say():
    logit_NC, truth_N, rng = drawn(10, seed=1)
    label_N = replaced(truth_N, rng, by_image(logit_NC, truth_N, rng))
    channel = fitted(logit_NC, label_N)
    q_NC = reference.softmax(logit_NC.astype(np.float64))
    r_NC, _ = reference.responsibilities(q_NC, label_N, channel.rate)
    expected, _ = reference.follows(q_NC, r_NC, channel.count, label_N)
    assert examine(logit_NC, label_N, channel, 1000, map).follows == pytest.approx(expected, abs=1e-5)


def test_tiles_and_torch_give_the_same(monkeypatch):
    logit_NC, truth_N, rng = drawn(10)
    label_N = replaced(truth_N, rng, by_class("symmetric", truth_N, 10, rng))
    channel = fitted(logit_NC, label_N)
    whole = examine(logit_NC, label_N, channel, 1000, map)
    monkeypatch.setattr(joint_check, "TILE", 70)
    assert examine(logit_NC, label_N, channel, 1000, map).follows == pytest.approx(whole.follows, rel=1e-5)
    other = Channel(
        **{
            name: torch.from_numpy(np.ascontiguousarray(getattr(channel, name)))
            for name in ("rate", "count", "prior_Z")
        },
        mean_log=channel.mean_log,
    )
    in_torch = examine(torch.from_numpy(logit_NC), label_N, other, 1000, map)
    assert (in_torch.follows, in_torch.error) == pytest.approx((whole.follows, whole.error), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
def test_it_says_nothing_of_two_classes_or_one(classes):
    rng = np.random.default_rng(0)
    logit_NC, label_N = rng.normal(size=(500, classes)).astype(np.float32), rng.integers(0, classes, 500)
    check = found(logit_NC, label_N)
    assert np.isfinite([check.wrong, check.follows, check.error]).all()
    assert check.class_conditional is None


def test_it_says_nothing_where_few_labels_are_not_the_prompts_first_choice():
    given = {"wrong": 0.1, "follows": FOLLOWS + 0.1, "error": 0.01, "num_classes": 10}
    assert Check(others=99, **given).class_conditional is None
    assert Check(others=100, **given).class_conditional is False
    assert Check(others=100, **{**given, "follows": FOLLOWS - 0.1}).class_conditional is True


def test_the_fewer_labels_look_wrong_the_more_all_are_trusted_and_never_wholly():
    trusts = [trust_in_labels(wrong) for wrong in (0.9, 0.16, 0.1, 0.05, 0.03, 0.0)]
    assert trusts == sorted(trusts)
    assert (trusts[0], trusts[-1]) == (0.2, 0.7)
    assert 0.3 < trust_in_labels(0.1) < 0.6
