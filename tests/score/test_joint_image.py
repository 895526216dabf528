"""What the prompts alone say of a label, which joint asks where the labels may follow a network's errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cleanctl.score.joint_channel import Channel, Groups, Whole, believed
from cleanctl.score.joint_image import KAPPA, by_prompts, may_be_learnt, share_of_classes
from cleanctl.score.scorer import ALONE

EVEN = np.full(4, 0.25)


def kept(q_NC, label_N, device="cpu"):
    groups = Groups(label_N, q_NC.shape[1], device)
    q_NC = q_NC.astype(np.float32)
    one = Whole(groups)
    one.add(one.put(slice(0, len(q_NC)), q_NC if device == "cpu" else torch.from_numpy(q_NC)))
    one.finish(ALONE)
    return one


def seen(q_NC, label_N, share_C=EVEN):
    return by_prompts(kept(q_NC, label_N), np.log(q_NC), label_N, share_C, 0.0)


def toward(classes, sure):
    """Rows of four classes: of each `sure`, the others share what is left."""
    q_NC = np.repeat(((1 - np.array(sure)) / 3)[:, None], 4, axis=1)
    q_NC[np.arange(len(sure)), classes] = sure
    return q_NC


def test_a_label_is_allowed_unless_the_prompts_speak_nearly_as_surely_for_another_class_as_they_usually_do():
    label_N = np.tile(np.arange(4), 50)
    view = seen(toward(label_N, np.full(200, 0.9)), label_N)
    bound = 1 / (1 + (0.1 / 0.9) ** KAPPA)
    other = toward(np.array([1, 1, 1, 1]), np.array([0.9, bound + 0.02, bound - 0.02, 0.4]))
    allowed = view.allows(other, np.zeros(4, int))
    assert (allowed >= 0.5).tolist() == [False, False, True, True]
    assert list(allowed) == sorted(allowed)
    assert view.allows(other, np.ones(4, int))[0] > 0.9


def test_where_the_prompts_are_never_sure_of_a_class_less_speaks_for_it():
    label_N = np.tile(np.arange(4), 50)
    view = seen(toward(label_N, np.where(label_N == 1, 0.45, 0.9)), label_N)
    both = view.allows(toward(np.array([1, 2]), np.array([0.52, 0.52])), np.zeros(2, int))
    assert both[0] < both[1] - 0.05


def test_a_prompt_that_draws_images_of_other_classes_loses_what_its_class_has_too_much():
    rng = np.random.default_rng(0)
    label_N = np.tile(np.arange(4), 100)
    mass_NC = np.exp(2.0 * np.eye(4)[label_N] + rng.normal(size=(400, 4)) + [1.5, 0, 0, 0])
    q_NC = mass_NC / mass_NC.sum(axis=1, keepdims=True)
    view = seen(q_NC, label_N)
    v_NC = view.of(slice(0, 400))
    np.testing.assert_allclose(v_NC.mean(axis=0), EVEN, atol=1e-4)
    np.testing.assert_allclose(v_NC.sum(axis=1), 1.0)
    assert (v_NC.argmax(axis=1) == label_N).mean() > (q_NC.argmax(axis=1) == label_N).mean() + 0.05
    np.testing.assert_allclose(
        believed(view.kept, view.factor_C, ALONE), v_NC.T @ np.eye(4)[label_N], rtol=1e-4, atol=1e-3
    )


def test_many_classes_and_one_that_no_label_names_leave_probabilities():
    rng = np.random.default_rng(1)
    q_NC, label_N = rng.dirichlet(np.full(300, 0.02), 400) + 1e-12, rng.integers(0, 299, 400)
    view = seen(q_NC / q_NC.sum(axis=1, keepdims=True), label_N, np.append(np.full(299, 1 / 299), 0.0))
    v_NC = view.of(slice(0, 400))
    allowed = view.allows(v_NC, label_N)
    assert np.isfinite(view.bound_C).all()
    assert view.factor_C.mean() == pytest.approx(1.0)
    assert ((v_NC >= 0) & (v_NC <= 1)).all()
    assert ((allowed >= 0) & (allowed <= 1)).all()


def test_torch_says_what_numpy_says():
    rng = np.random.default_rng(2)
    q_NC, label_N = rng.dirichlet(np.ones(4), 100), rng.integers(0, 4, 100)
    view = seen(q_NC, label_N)
    logit, share = torch.from_numpy(np.log(q_NC)), torch.from_numpy(EVEN)
    other = by_prompts(kept(q_NC, label_N, "cpu:0"), logit, label_N, share, 0.0)
    np.testing.assert_allclose(other.bound_C, view.bound_C, rtol=1e-9)
    part = slice(10, 70)
    np.testing.assert_allclose(other.of(part), view.of(part), rtol=1e-5)
    allowed = other.allows(other.of(part), torch.from_numpy(label_N[part]))
    np.testing.assert_allclose(allowed, view.allows(view.of(part), label_N[part]), rtol=1e-5)


def test_shares_of_classes_are_those_of_probabilities_under_the_channels_shares():
    logit_NC, prior_Z = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])), np.array([2.0, 0.5, 0.5])
    channel = Channel(rate=np.eye(3), count=np.eye(3), prior_Z=prior_Z, mean_log=0.0)
    expected = np.mean([[1.0, 0.15, 0.1], [0.4, 0.1, 0.3]] / np.array([[1.25], [0.8]]), axis=0)
    np.testing.assert_allclose(share_of_classes(logit_NC, channel), expected)


def test_only_a_fit_that_holds_next_to_no_label_for_wrong_may_have_learnt_all():
    assert [may_be_learnt(wrong) for wrong in (0.0, 0.005, 0.02, 0.3)] == [1, 1, 0, 0]
    assert may_be_learnt(0.0125) == pytest.approx(0.5)
