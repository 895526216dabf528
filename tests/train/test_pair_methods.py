"""Co-training and DivideMix: one step of each against the same step written down plainly, and who teaches whom.

The recipe augments nothing, so that a step's draws are the mixing alone: for each network λ, then a permutation.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import RECIPE, draw

from cleanctl.errors import InputError
from cleanctl.registry import METHODS
from cleanctl.train import augment
from cleanctl.train.methods.method import Batch, Compute, Method, Setup, View
from cleanctl.train.methods.pair import both, full_batches, shares
from cleanctl.train.recipe import Recipe, parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
M, K, B = 64, 4, 8
SELECTED = np.arange(M) % 4 != 0
GIVEN = (np.arange(M) % K).astype(np.int32)
PIXEL = torch.from_numpy(draw(GIVEN, seed=3)).permute(0, 3, 1, 2)


def recipe() -> Recipe:
    text = RECIPE.replace('crop = "pad"\npad = 2', 'crop = "center"\nflip = false').replace(
        "batch_size = 16", "batch_size = 8"
    )
    return parse_recipe(text.replace('"autoaugment-cifar10"', '"none"') + "momentum = 0.0\n", "bare")


def make(name: str, **settings: object) -> Method:
    torch.manual_seed(0)
    setup = Setup(
        recipe=recipe(),
        num_classes=K,
        compute=Compute(device="cpu"),
        label_M=GIVEN,
        selected_M=SELECTED,
        settings=settings,
    )
    method: Method = METHODS.load(name)(setup)
    for optimizer in method.optimizers:
        optimizer.param_groups[0]["lr"] = 0.1
    method.network.train()
    return method


def batch_of(position: np.ndarray, *, epochs_done: float = 0.0, slot: np.ndarray | None = None) -> Batch:
    return Batch(
        image_BCLL=PIXEL[position],
        position_B=position,
        slot_B=np.arange(len(position)) if slot is None else slot,
        label_B=torch.from_numpy(GIVEN[position].astype(np.int64)),
        rng=np.random.default_rng(11),
        epochs_done=epochs_done,
    )


def normalised(position: np.ndarray) -> torch.Tensor:
    return augment.plain(PIXEL[position], recipe())


def lam_and_order(rng: np.random.Generator, count: int) -> tuple[float, torch.Tensor]:
    lam = rng.beta(1.0, 1.0)
    return max(lam, 1 - lam), torch.from_numpy(rng.permutation(count))


def descend(network: torch.nn.Module, loss: torch.Tensor) -> None:
    """θ ← θ − 0.1·(∇ + 5e-4·θ)."""
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 0.1 * (weight.grad + 5e-4 * weight)


def assert_same_weights(ours: torch.nn.Module, wanted: torch.nn.Module) -> None:
    for (name, one), other in zip(ours.named_parameters(), wanted.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


# ---- co-training


def test_a_step_of_co_training_moves_each_network_by_its_own_members() -> None:
    method = make("co-training")
    relabelled = GIVEN.copy()
    relabelled[:] = (GIVEN + 1) % K
    method._keep_second(type(method.second)(member_M=SELECTED, label_M=relabelled))
    nets = copy.deepcopy(method.network.each)
    position = np.random.default_rng(2).permutation(M)[: 2 * B]
    loss = method.step(batch_of(position))

    rng, losses = np.random.default_rng(11), []
    for net, mine, label in zip(nets, (position[:B], position[B:]), (GIVEN, relabelled)):
        lam, order = lam_and_order(rng, B)
        x, y = normalised(mine), F.one_hot(torch.from_numpy(label[mine]).long(), K).float()
        logit = net(lam * x + (1 - lam) * x[order])
        target = lam * y + (1 - lam) * y[order]
        losses.append((-target * logit.log_softmax(1)).sum(1).mean())
        descend(net, losses[-1])
        losses[-1] = losses[-1].item()
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert_same_weights(method.network.each, nets)


def test_each_network_of_co_training_gets_what_the_other_is_sure_of() -> None:
    method = make("co-training")
    method.network.eval()
    said = {0: (GIVEN + 2) % K, 1: GIVEN}  # network 0 contradicts every label, network 1 agrees

    def logits_of(which: int, image: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.from_numpy(said[which]).long(), K).float() * 50

    method.logits_of = logits_of
    view = View(M, lambda: iter([(np.arange(M), normalised(np.arange(M)))]))
    first, second = method.end_epoch(view, method.members(), 1), method.second
    assert first.member_M.all()
    assert second.member_M.all()
    np.testing.assert_array_equal(first.label_M, GIVEN)
    np.testing.assert_array_equal(second.label_M, (GIVEN + 2) % K)
    assert (first.absorbed, first.relabelled) == ((~SELECTED).sum(), 0)
    assert (second.absorbed, second.relabelled) == (0, M)
    batches = method.batches(first, np.ones(M, bool), steps=3, rng=np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [2 * B] * 3


def test_networks_of_a_pair_start_apart_and_are_tested_by_the_sum_of_their_logits() -> None:
    method = make("co-training")
    method.network.eval()
    image = normalised(np.arange(B))
    first, second = (net(image) for net in method.network.each)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(method.predict(image), first + second)


# ---- DivideMix


def plan(method: Method) -> np.ndarray:
    return method.batches(method.members(), np.ones(M, bool), steps=1, rng=np.random.default_rng(1))[0]


@pytest.mark.parametrize("refinement_weight", [1.0, 0.6])
@pytest.mark.parametrize("lambda_u", [30.0, 0.0])
def test_a_step_of_dividemix(refinement_weight: float, lambda_u: float) -> None:
    method = make("dividemix", warmup=0, lambda_u=lambda_u, rampup=4, refinement_weight=refinement_weight)
    position = plan(method)
    parts = position.reshape(2, 4, B)
    assert SELECTED[parts[:, :2]].all()
    assert not SELECTED[parts[:, 2:]].any()
    np.testing.assert_array_equal(parts[:, ::2], parts[:, 1::2])  # two views of one draw
    nets = copy.deepcopy(method.network.each)
    others = [copy.deepcopy(nets[1])]  # whom each network asks: weights before the step, which moves both at once
    loss = method.step(batch_of(position, epochs_done=1.5))

    rng, losses = np.random.default_rng(11), []
    for k, net in enumerate(nets):
        x1, x2, u1, u2 = (normalised(part) for part in parts[k])
        with torch.no_grad():
            y = F.one_hot(torch.from_numpy(GIVEN[parts[k][0]]).long(), K).float()
            if refinement_weight < 1:
                p = (net(x1).softmax(1) + net(x2).softmax(1)) / 2
                y = (refinement_weight * y + (1 - refinement_weight) * p) ** 2
                y = y / y.sum(1, keepdim=True)
            other = others[k].eval()
            q = (net(u1).softmax(1) + net(u2).softmax(1) + other(u1).softmax(1) + other(u2).softmax(1)) / 4
            q = q**2 / (q**2).sum(1, keepdim=True)
        lam, order = lam_and_order(rng, 4 * B)
        everything, targets = torch.cat([x1, x2, u1, u2]), torch.cat([y, y, q, q])
        mixed = lam * everything + (1 - lam) * everything[order]
        target = lam * targets + (1 - lam) * targets[order]
        if lambda_u == 0:
            mixed, target = mixed[: 2 * B], target[: 2 * B]
        logit = net(mixed)
        labelled = -(target[: 2 * B] * logit[: 2 * B].log_softmax(1)).sum(1).mean()
        unlabelled = ((logit[2 * B :].softmax(1) - target[2 * B :]) ** 2).mean() if lambda_u else 0.0
        mean = logit.softmax(1).mean(0)
        penalty = (torch.full((K,), 1 / K) * (1 / K / mean).log()).sum()
        total = labelled + lambda_u * 1.5 / 4 * unlabelled + penalty
        others.append(copy.deepcopy(net))
        descend(net, total)
        losses.append(total.item())
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert_same_weights(method.network.each, nets)


@pytest.mark.parametrize("warmup_on", ["all", "selected"])
def test_a_warm_up_step_of_dividemix(warmup_on: str) -> None:
    method = make("dividemix", warmup=1, warmup_on=warmup_on, entropy_weight=0.7)
    position = plan(method)
    assert len(position) == 2 * B
    assert SELECTED[position].all() == (warmup_on == "selected")
    nets = copy.deepcopy(method.network.each)
    method.step(batch_of(position))
    for net, mine in zip(nets, (position[:B], position[B:])):
        logit, label = net(normalised(mine)), torch.from_numpy(GIVEN[mine].astype(np.int64))
        p = logit.softmax(1)
        descend(net, -logit.log_softmax(1)[np.arange(B), label].mean() + 0.7 * (p * p.log()).sum(1).mean())
    assert_same_weights(method.network.each, nets)


def test_the_warm_up_of_dividemix_ends_with_its_epochs() -> None:
    method = make("dividemix", warmup=2)
    lengths = []
    for done in (1, 2):
        method.end_epoch(View(0, lambda: iter(())), method.members(), done)
        lengths.append(len(plan(method)))
    assert lengths == [2 * B, 8 * B]


def test_without_unlabelled_images_dividemix_goes_on_with_the_labelled() -> None:
    method = make("dividemix", warmup=0)
    position = method.batches(method.members(), SELECTED, steps=1, rng=np.random.default_rng(1))[0]
    assert len(position) == 4 * B
    assert torch.isfinite(method.step(batch_of(position, epochs_done=3.0)))


def test_a_sample_of_which_one_view_cannot_be_read_is_left_out() -> None:
    method = make("dividemix", warmup=0)
    position = plan(method)
    there = np.setdiff1d(np.arange(8 * B), [0, 3 * B + 1, 5 * B + 2])
    assert torch.isfinite(method.step(batch_of(position[there], slot=there, epochs_done=2.0)))


# ---- shares of a step


def test_shares_say_where_the_images_of_each_part_lie() -> None:
    first, second = shares(np.array([0, 2, 3, 5]), (3, 3))
    assert (first.tolist(), second.tolist()) == ([0, -1, 1], [2, -1, 3])
    kept = both(first, np.array([5, 6, -1]))
    assert [one.tolist() for one in kept] == [[0], [5]]


def batches_of(count: int) -> np.ndarray:
    member = np.arange(100, 100 + count)
    return full_batches(member, member % 3, sampler="shuffled", steps=7, batch_size=4, rng=np.random.default_rng(0))


@pytest.mark.parametrize("count", [1, 3, 4, 10, 50])
def test_full_batches_have_one_size_and_visit_everyone_as_often(count: int) -> None:
    plan = batches_of(count)
    assert plan.shape == (7, 4)
    visits = np.bincount(plan.ravel() - 100, minlength=count)
    assert visits.max() - visits.min() <= (2 if count > 4 else 1)


def test_no_member_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(InputError, match="No readable image"):
        batches_of(0)
