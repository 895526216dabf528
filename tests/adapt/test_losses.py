"""DeFT's losses: equal to the formulas of docs/method.md C.2 written down plainly, gradients and a step included."""

from __future__ import annotations

import pytest
import torch
from tiny_clip import RESNET, VIT, tiny_clip
from torch.nn import functional as F

from cleanctl.adapt.contexts import DualContexts, TextTower
from cleanctl.adapt.losses import Phase, step_losses

CLASSES = ("maple_tree", "cat", "dog", "ship", "bed")
PHASES = {
    "warm-up": Phase(warmup=True, pseudo=False),
    "after it": Phase(warmup=False, pseudo=True),
    "warm-up of real data": Phase(warmup=True, pseudo=True, warmup_loss="sce", agree=True),
    "real data": Phase(warmup=False, pseudo=True, warmup_loss="sce", agree=True),
    "heavy noise": Phase(warmup=False, pseudo=True, positive_weight=0.25),
}
SCALE = 3.0  # probabilities stay inside their cuts


class Setting:
    """A tiny CLIP whose image tower is tuned, its two contexts, and a batch of images."""

    def __init__(self, vision, batch=9):
        self.model, tokenizer, size = tiny_clip(vision)
        self.model.requires_grad_(False)
        self.model.visual.requires_grad_(True)
        self.tower = TextTower(self.model, tokenizer, CLASSES, tokens=4)
        # Of this seed some samples are clean, and some of those have the highest p_clean.
        self.text = DualContexts(self.tower, seed=17, dtype=torch.float64)
        with torch.no_grad():
            self.text.positive_context.mul_(20)
            self.text.negative_context.mul_(5).add_(self.text.positive_context)
        random = torch.Generator().manual_seed(2)
        self.pixel = torch.randn(batch, 3, size, size, generator=random, dtype=torch.float64)
        self.label = torch.randint(0, 5, (batch,), generator=random)
        self.complement = (self.label + 1 + torch.randint(0, 4, (batch,), generator=random)) % 5

    def images(self):
        return F.normalize(self.model.visual(self.pixel), dim=1)

    def parameters(self):
        return {
            "positive": [self.text.positive_context],
            "negative": [self.text.negative_context],
            "image": [p for p in self.model.visual.parameters() if p.requires_grad],
        }

    def losses(self, phase):
        return step_losses(self.images(), self.text, self.label, self.complement, scale=SCALE, phase=phase)

    def plain(self, phase):
        """(L_dp, L_sim, clean) by C.2's formulas, over all classes and samples at once."""
        image = self.images()
        z_plus = SCALE * image @ self.tower.embed(self.text.positive_context).T
        z_minus = SCALE * image.detach() @ self.tower.embed(self.text.negative_context).T
        pair = torch.stack([z_plus.detach(), z_minus], dim=2).softmax(dim=2)
        p_clean, p_noisy = pair[:, :, 0], pair[:, :, 1]
        at = range(len(self.label))
        clean = p_clean[at, self.label] > 0.5
        if phase.agree:
            clean = clean & (p_clean.max(dim=1).indices == self.label)
        pseudo = self.label.clone()
        if phase.pseudo:
            pseudo[~clean] = z_plus.max(dim=1).indices[~clean]
        dual = F.nll_loss(p_noisy.clamp(1e-5, 1).log(), self.complement)
        dual = dual + phase.positive_weight * F.nll_loss(p_clean.clamp(1e-5, 1).log(), pseudo)
        per_sample = F.cross_entropy(z_plus, self.label, reduction="none")
        if phase.warmup and phase.warmup_loss == "sce":
            one_hot = F.one_hot(self.label, 5).double().clamp(1e-4, 1)
            per_sample = per_sample - (z_plus.softmax(dim=1).clamp(1e-7, 1) * one_hot.log()).sum(dim=1)
        similarity = per_sample.mean() if phase.warmup else per_sample[clean].mean()
        return dual, similarity, clean


@pytest.fixture(scope="module", params=[VIT, RESNET], ids=["ViT", "ResNet"])
def setting(request):
    return Setting(request.param)


def gradients(loss, setting):
    flat = [one for group in setting.parameters().values() for one in group]
    found = torch.autograd.grad(loss, flat, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(flat, found)]


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_losses_and_gradients_are_those_of_the_paper(setting, phase):
    ours, (dual, similarity, clean) = setting.losses(phase), setting.plain(phase)
    assert 0 < clean.sum() < len(clean)
    torch.testing.assert_close(ours.clean_B, clean)
    torch.testing.assert_close(ours.dual, dual)
    torch.testing.assert_close(ours.similarity, similarity)
    for mine, plain in ((ours.dual, dual), (ours.similarity, similarity)):
        torch.testing.assert_close(gradients(mine, setting), gradients(plain, setting))


def test_one_step_of_the_optimiser_is_that_of_the_plain_formulas():
    moved = []
    for plain in (False, True):
        setting = Setting(VIT)
        parameters = [one for group in setting.parameters().values() for one in group]
        optimiser = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=5e-4)
        for phase in (PHASES["warm-up"], PHASES["after it"]):
            loss = sum(setting.plain(phase)[:2]) if plain else setting.losses(phase).total
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        moved.append([p.detach().clone() for p in parameters])
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_the_dual_loss_trains_the_negative_context_alone_and_the_similarity_the_others(setting, phase):
    ours = setting.losses(phase)
    for loss, trained in ((ours.dual, {"negative"}), (ours.similarity, {"positive", "image"})):
        for name, parameters in setting.parameters().items():
            found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            norm = sum(float(g.norm()) for g in found if g is not None)
            assert (norm > 0) == (name in trained), name


def test_a_batch_without_clean_samples_leaves_zero_and_gradients_that_are_numbers(setting):
    everything_noisy = Phase(warmup=False, pseudo=True)
    with torch.no_grad():
        kept = setting.text.negative_context.clone()
        setting.text.negative_context.copy_(setting.text.positive_context)  # p_clean is 1/2: nothing is above it
    ours = setting.losses(everything_noisy)
    assert not ours.clean_B.any()
    assert ours.similarity.item() == 0
    assert all(bool(g.isfinite().all()) for g in gradients(ours.total, setting))
    with torch.no_grad():
        setting.text.negative_context.copy_(kept)


def test_probabilities_beyond_the_cut_give_finite_losses():
    setting = Setting(VIT)
    phase = PHASES["after it"]
    ours = step_losses(setting.images(), setting.text, setting.label, setting.complement, scale=1e4, phase=phase)
    assert bool(ours.total.isfinite())
    assert all(bool(g.isfinite().all()) for g in gradients(ours.total, setting))
