"""The scorer `joint`: P(given label is right | image, label), from prompts, images and labels together.

    P(z | i)   = softmax(m (b L_i + a G_i))            L zero-shot at the model's own temperature, G the Gaussian head
    r(z | i)   ∝ P(z | i) T[z, y_i]                    T the transition matrix of the label noise, one for all images
    P(right)   = r(y_i | i) (1 - ρ + ρ P(y_i | i))     ρ: of the labels' word a small share is not believed

L, G and T are fitted in turn: T by EM with P held fixed, G on r, out of fold; a and b from two grids by the mean
ln P(given label), m so that the mix is never less sure than zero-shot alone. Nothing is drawn at random. The numbers
below were chosen on CIFAR-10 and are the same for all data (docs/quality.md says what was chosen on what). What it
assumes: the noise depends on the true class, not on the image beyond it.

In: Rows with TextEmbeddings. Out: ClassStats a row, where P of the given label is P(right) and the other classes share
the rest as r does; T. Five passes over the images; sums are float64. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.joint_channel import Channel, Top, Whole, fit_channel, keeper
from cleanctl.score.joint_head import Head, Spread, fold_of, hashed
from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.objective import tiles
from cleanctl.score.scorer import Reduce, Rows, Scorer
from cleanctl.score.zeroshot import bank_of

if TYPE_CHECKING:
    import torch
    from cleanctl_kernels import ClassStats, PromptBank

    from cleanctl.config import SelectConfig

HEAD = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # weights of the head
PROMPTS = (0.0, 0.15, 0.3, 0.5, 0.75, 1.0)  # weights of zero-shot
ROUNDS, RHO = 2, 0.1
SAMPLE = 8_000  # rows on which weights are chosen
SAMPLE_ITERATIONS = 12
BETTER = 1e-4  # mean ln P by which a later pair of weights must win
PAIRS = 10_000  # of T that are stored: all of 100 classes
FEWEST_OTHERS, FOLLOWS = 100, 0.84
LOWEST = float(np.log(1e-30))


def posterior(score: Score, label_N: np.ndarray, config: SelectConfig) -> RuleResult:
    """P(given label is right) against θ_posterior, or the longest ranking that is expected to be right often enough."""
    score_N = score["p_label"]
    if config.keep_precision is not None:
        return RuleResult(score_N=score_N, keep_N=longest(score_N, config.keep_precision))
    return RuleResult(score_N=score_N, keep_N=score_N >= np.float32(config.theta_posterior))


def longest(p_N: np.ndarray, precision: float) -> np.ndarray:
    """(N,) bool: the longest top part of the ranking by p whose mean p is at least `precision`.

    Ties go to the lower row. The mean falls along the ranking, so the part is one piece.
    """
    order_N = np.argsort(-p_N, kind="stable")
    mean_N = np.cumsum(p_N[order_N], dtype=np.float64) / np.arange(1, len(p_N) + 1)
    keep_N = np.zeros(len(p_N), bool)
    keep_N[order_N[: np.count_nonzero(mean_N >= precision)]] = True
    return keep_N


@dataclass(frozen=True, kw_only=True)
class JointModel:
    """kept: P(z | i) of the part's rows. weights: a, b and m. others: of all rows, how many labels are not the prompts'
    first choice, how many of these are their second, and how many would be if they were right."""

    kept: Whole | Top
    channel: Channel
    weights: tuple[float, float, float]
    others: tuple[float, float, float]


class Joint(Scorer):
    name = "joint"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {"posterior": posterior, **SHARED}
    uses_text = True
    usual_temperature = "model"
    evidence = 4

    def parameters(self) -> dict[str, Any]:
        return {"temperature": self.config.temperature, "pooling": self.config.prompt_pooling}

    def fit(self, rows: Rows, reduce: Reduce) -> JointModel:
        assert rows.text is not None
        assert isinstance(self.config.temperature, float), "open_scorer gives the number"
        bank = bank_of(rows.text, rows, temperature=self.config.temperature, pooling=self.config.prompt_pooling)
        return _Fit(rows, reduce, bank).run()

    def score(self, model: JointModel, rows: Rows) -> Iterator[tuple[slice, ClassStats]]:
        import torch

        label = torch.from_numpy(rows.own_labels).to(rows.device.value)
        step = max(1, (32 << 20) // (4 * rows.num_classes))
        for start in range(0, len(label), step):
            part = slice(start, min(start + step, len(label)))
            yield part, _stats(model, part, label[part])

    def ran(self, model: JointModel, rows: Rows) -> dict[str, Any]:
        head, prompts, sharp = (float(f"{value:.4g}") for value in model.weights)
        device = rows.device
        left_out = model.kept.left_out
        kept = f"; {left_out:.1e} of P lies outside the classes kept of a row" if isinstance(model.kept, Top) else ""
        by = (
            f"weights {head:g} of the Gaussian head, {prompts:g} of the prompts, sharpened {sharp:g} times, "
            f"on {device.value} ({device.reason}){kept}"
        )
        return {"by": by, "head": head, "prompts": prompts, "sharpness": sharp, "left_out": left_out}

    def findings(self, model: JointModel, rows: Rows) -> dict[str, Any]:
        """`transition`: pairs (true, given) by falling expected samples, with T[true, given]. `noise`: of each given
        class. `check`: whether the noise looks as the model assumes (`looks_class_conditional`)."""
        count, rate = model.channel.count.cpu().numpy(), model.channel.rate.cpu().numpy()
        order = np.argsort(-count, axis=None, kind="stable")[:PAIRS]
        true_E, given_E = np.unravel_index(order[count.reshape(-1)[order] > 0], count.shape)
        size_C = np.bincount(rows.label_N, minlength=rows.num_classes)
        noise_C = 1 - np.diag(count) / np.maximum(size_C, 1)
        other, second, expected = model.others
        return {
            "transition": {
                "true": true_E.tolist(),
                "given": given_E.tolist(),
                "samples": np.round(count[true_E, given_E], 2).tolist(),
                "rate": np.round(rate[true_E, given_E], 6).tolist(),
            },
            "noise": [round(float(noise), 6) if size else None for noise, size in zip(noise_C, size_C)],
            "check": {
                "others": int(other),
                "second": round(second / max(other, 1), 4),
                "second_if_right": round(expected / max(other, 1), 4),
                "class_conditional": looks_class_conditional(other, second, expected, rows.num_classes),
            },
        }


def looks_class_conditional(other: float, second: float, expected: float, num_classes: int) -> bool | None:
    """Whether labels that are not the prompts' first choice are their second clearly less often than right labels are.

    Noise that a class alone decides goes past the second choice of the image; noise made where a network errs follows
    it, and then no label tells which it is: the data look like right labels, and T comes out near the identity. None
    where too few labels or classes tell. docs/quality.md says where the bound was set.
    """
    if num_classes < 3 or other < FEWEST_OTHERS or expected <= 0:
        return None
    return second / expected < FOLLOWS


class _Fit:
    """One fit over the part's rows; every sum goes through `reduce`."""

    def __init__(self, rows: Rows, reduce: Reduce, bank: PromptBank) -> None:
        import torch

        self.rows, self.reduce, self.bank = rows, reduce, bank
        self.classes, self.device = rows.num_classes, rows.device.value
        self.label = torch.from_numpy(rows.own_labels).to(self.device)
        self.fold = torch.from_numpy(fold_of(rows.own)).to(self.device)
        self.data: Float32Blocks = rows.own_tiles()
        chosen = _sample(rows)
        self.chosen = chosen
        self.sample_label = self.label[torch.from_numpy(chosen).to(self.device)]
        self.sample_prompts = torch.empty(len(chosen), self.classes, device=self.device)
        self.others = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.sample_image = torch.empty(len(chosen), rows.blocks.dim, device=self.device)
        self.sample_fold = self.fold[torch.from_numpy(chosen).to(self.device)]

    def run(self) -> JointModel:
        spread = Spread(self.data.dim, self.device)
        with self.rows.progress.track("joint", total=1 + 2 * ROUNDS, unit="passes") as task:
            kept, agree = self._mix(None, (0.0, 1.0, 1.0), spread)
            spread.finish(self.reduce)
            sure = self._sureness(1.0, self.sample_prompts)
            channel = fit_channel(kept, agree, self.reduce)
            task.advance()
            for turn in range(ROUNDS):
                head = self._head(spread, kept, channel, blend=turn == 0)
                task.advance()
                weights = self._weights(head, sure)
                kept, agree = self._mix(head, weights)
                channel = fit_channel(kept, agree, self.reduce)
                task.advance()
        other, second, expected = self.reduce.sum(self.others).tolist()
        return JointModel(kept=kept, channel=channel, weights=weights, others=(other, second, expected))

    def _mix(
        self, head: Head | None, weights: tuple[float, float, float], spread: Spread | None = None
    ) -> tuple[Whole | Top, torch.Tensor]:
        """P(z | i) of all rows, kept, and Σ P Pᵀ. The first pass has no head, and fills the sample and `spread`."""
        import torch

        a, b, m = weights
        kept = keeper(self.label, self.classes, num_rows=self.rows.blocks.num_rows)
        agree = torch.zeros(self.classes, self.classes, dtype=torch.float64, device=self.device)
        for part, image in tiles(self.data, 3 * self.classes):
            mix = self._prompts(image)
            if head is None:
                self._fill_sample(part, image, mix)
                self._count_others(part, mix)
                assert spread is not None
                spread.add(image, self.fold[part])
            else:
                mix = mix.mul_(b).add_(head.logits(image, self.fold[part]), alpha=a)
            q_BC = torch.softmax(mix.mul_(m), dim=1)
            kept.put(part, q_BC)
            agree += q_BC.T @ q_BC
        kept.finish(self.reduce)
        return kept, self.reduce.sum(agree)

    def _prompts(self, image: torch.Tensor) -> torch.Tensor:
        """Zero-shot logits (B, C), the largest of a row 0."""
        from cleanctl_kernels.zeroshot import class_logits

        logit = class_logits(image, self.bank)
        logit -= logit.amax(dim=1, keepdim=True)
        return logit.clamp_(min=LOWEST)

    def _head(self, spread: Spread, kept: Whole | Top, channel: Channel, *, blend: bool) -> Head:
        """Fitted on r; with `blend` on half r and half the given label."""
        head = Head(spread, self.classes)
        for part, image in tiles(self.data, 3 * self.classes):
            r_BC = kept.joint(part, channel.rate)
            r_BC /= r_BC.sum(dim=1, keepdim=True).clamp_(min=1e-30)
            if blend:
                r_BC *= 0.5
                own_B1 = self.label[part][:, None]
                r_BC.scatter_add_(1, own_B1, r_BC.new_full(own_B1.shape, 0.5))
            head.add(image, r_BC, self.fold[part])
        head.finish(self.reduce)
        return head

    def _weights(self, head: Head, sure: float) -> tuple[float, float, float]:
        """a and b of the grid with the highest mean ln P(given label) of the sample, and m."""
        of_head = head.logits(self.sample_image, self.sample_fold)
        best, a_best, b_best = -np.inf, 0.0, 1.0
        for b in PROMPTS:
            for a in HEAD:
                if a or b:
                    fit = self._fit_of(b * self.sample_prompts + a * of_head)
                    if fit > best + BETTER:
                        best, a_best, b_best = fit, a, b
        mixed = b_best * self.sample_prompts + a_best * of_head
        return a_best, b_best, self._sharpness(mixed, sure)

    def _fit_of(self, mixed: torch.Tensor) -> float:
        import torch

        q_BC = torch.softmax(mixed, dim=1)
        kept = Whole(self.sample_label, self.classes)
        kept.put(slice(None), q_BC)
        agree = self.reduce.sum((q_BC.T @ q_BC).double())
        return fit_channel(kept, agree, self.reduce, iterations=SAMPLE_ITERATIONS).mean_log

    def _sharpness(self, mixed: torch.Tensor, target: float) -> float:
        """Smallest m ≥ 1 at which the mean of the highest probability is `target` or more; at most 40."""
        if self._sureness(1.0, mixed) >= target:
            return 1.0
        low, high, middle = 1.0, 40.0, 1.0
        for _ in range(25):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self._sureness(middle, mixed) < target else (low, middle)
        return middle

    def _sureness(self, sharp: float, mixed: torch.Tensor) -> float:
        import torch

        highest = torch.softmax(sharp * mixed, dim=1).amax(dim=1) if len(mixed) else mixed.new_zeros(0)
        total = torch.tensor([float(highest.sum(dtype=torch.float64)), float(len(highest))], dtype=torch.float64)
        total = self.reduce.sum(total)
        return float(total[0] / total[1])

    def _count_others(self, part: slice, prompts: torch.Tensor) -> None:
        import torch

        if self.classes < 2:
            return
        top = torch.topk(torch.softmax(prompts, dim=1), 2, dim=1)
        label = self.label[part]
        other = label != top.indices[:, 0]
        share = top.values[:, 1] / (1 - top.values[:, 0]).clamp(min=1e-12)
        self.others[0] += other.sum()
        self.others[1] += (label == top.indices[:, 1]).sum()
        self.others[2] += share[other].clamp(max=1.0).sum()

    def _fill_sample(self, part: slice, image: torch.Tensor, prompts: torch.Tensor) -> None:
        first, last = np.searchsorted(self.chosen, (part.start, part.stop))
        if last > first:
            within = self.chosen[first:last] - part.start
            self.sample_image[first:last], self.sample_prompts[first:last] = image[within], prompts[within]


def _sample(rows: Rows) -> np.ndarray:
    """int64: which of the part's rows are among the SAMPLE of all rows with the lowest hash; ascending."""
    hash_N = hashed(slice(0, rows.blocks.num_rows))
    if len(hash_N) <= SAMPLE:
        return np.arange(rows.own.stop - rows.own.start)
    last = np.partition(hash_N, SAMPLE - 1)[SAMPLE - 1]
    chosen = np.flatnonzero(hash_N <= last)
    return chosen[(chosen >= rows.own.start) & (chosen < rows.own.stop)] - rows.own.start


def _stats(model: JointModel, part: slice, label_B: torch.Tensor) -> ClassStats:
    """The given label's P is P(right); the others share the rest as r does."""
    from cleanctl_kernels.zeroshot import stats_of_probabilities

    own_B1 = label_B[:, None]
    own_q_B1 = model.kept.likelihood(part).gather(1, own_B1)
    r_BC = model.kept.joint(part, model.channel.rate).double()
    r_BC /= r_BC.sum(dim=1, keepdim=True).clamp_(min=1e-30)
    r_B1 = r_BC.gather(1, own_B1)
    right_B1 = r_B1 * (1 - RHO + RHO * own_q_B1)
    r_BC.scatter_(1, own_B1, 0.0)
    r_BC *= (1 - right_B1) / r_BC.sum(dim=1, keepdim=True).clamp_(min=1e-30)
    r_BC.scatter_(1, own_B1, right_B1)
    return stats_of_probabilities(r_BC, label_B)
