"""The scorer `joint`: P(given label is right | image, label), from prompts, images and labels together.

    P(z | i)   = softmax(m (b L_i + a G_i))            L zero-shot at the model's own temperature, G the Gaussian head
    r(z | i)   ∝ P(z | i) T[z, y_i]                    T the transition matrix of the label noise, one for all images
    P(right)   = r(y_i | i) (1 - ρ + ρ P(y_i | i))     ρ: of the labels' word a small share is not believed

L, G and T are fitted in turn: T by EM with P held fixed, G on r, out of fold; a and b from two grids by the mean
ln P(given label), m so that the mix is never less sure than zero-shot alone. Nothing is drawn at random. The numbers
below were chosen on CIFAR-10 and are the same for all data (docs/quality.md says what was chosen on what). What it
assumes: the noise depends on the true class, not on the image beyond it. Where the labels look as if it did not
(joint_check.py), that is one of two things that the data do not tell apart: labels nearly all of which are right, or
wrong ones made where a network errs. In the second case a label says nothing beyond its image. Both are then taken for
about equally likely, and what the image says is half P(z | i), half v, the prompts' alone (joint_image.py):
    B_i        = w r(y_i | i) (1 - ρ + ρ P(y_i | i)) + (1 - w) (P(y_i | i) + v(y_i | i)) / 2
    P(right)   = (1 - a) B_i + a u_i
where w is the larger the fewer labels r itself holds for wrong (`trust_in_labels`). If these are next to none, the head
may have learnt all wrong ones: then a is 1 (`may_be_learnt`), and u says whether the prompts speak for another class.
Where the labels are clearly uneven over the classes (`are_uneven`), P(z | i) is at the end weighted with the shares of
the true classes, which EM finds beside T.

In: Rows with TextEmbeddings. Out: ClassStats a row, where P of the given label is P(right) and the other classes share
the rest as r does; T. Five passes over the images; sums are float64. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from cleanctl_kernels.arrays import as_array, namespace, numbers, pick, put
from cleanctl_kernels.threads import in_threads, one_blas_thread

from cleanctl.score.blocks import Float32Blocks
from cleanctl.score.joint_arrays import double, kind, softmax, zeros
from cleanctl.score.joint_channel import Channel, Groups, Kept, Whole, believed, fit_channel, keeps_whole
from cleanctl.score.joint_check import Check, examine, trust_in_labels
from cleanctl.score.joint_head import Head, Spread, fold_of, spread_sample
from cleanctl.score.joint_image import ByPrompts, by_prompts, share_of_classes
from cleanctl.score.joint_prompts import logits_of
from cleanctl.score.joint_tiles import Each
from cleanctl.score.joint_top import Top
from cleanctl.score.joint_weights import Weights, mixed, sharpness, sureness
from cleanctl.score.mechanisms import SHARED, Mechanism, RuleResult, Score
from cleanctl.score.scorer import Reduce, Rows, Scorer
from cleanctl.score.zeroshot import bank_of

if TYPE_CHECKING:
    from cleanctl_kernels import ClassStats, PromptBank

    from cleanctl.config import SelectConfig

ROUNDS, RHO = 2, 0.1
SAMPLE = 8_000  # rows on which weights are chosen
SCORE_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # of r, float64, that are worked on at once
PAIRS = 10_000  # of T that are stored: all of 100 classes
EVEN = 0.95


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
    """kept: P(z | i) of the part's rows. weights: a, b and m. check: whether the noise looks as the model assumes.
    count: expected rows of true class z and given label y, (C, C). trust: w, 1 where it does, and `prompts` is None."""

    kept: Kept
    channel: Channel
    weights: tuple[float, float, float]
    check: Check
    count: Any
    trust: float
    prompts: ByPrompts | None


class Joint(Scorer):
    name = "joint"
    mechanisms: ClassVar[Mapping[str, Mechanism]] = {"posterior": posterior, **SHARED}
    uses_text = True
    usual_temperature = "model"
    evidence = 4
    revision = 3  # since the prompts alone have a say where the check fires

    def parameters(self) -> dict[str, Any]:
        return {"temperature": self.config.temperature, "pooling": self.config.prompt_pooling}

    def fit(self, rows: Rows, reduce: Reduce) -> JointModel:
        assert rows.text is not None
        assert isinstance(self.config.temperature, float), "open_scorer gives the number"
        bank = bank_of(rows.text, rows, temperature=self.config.temperature, pooling=self.config.prompt_pooling)
        return _Fit(rows, reduce, bank).run()

    def score(self, model: JointModel, rows: Rows) -> Iterator[tuple[slice, ClassStats]]:
        label = as_array(rows.own_labels, rows.device.value)
        parts = _pieces(len(label), rows.num_classes, rows.device.value)
        threads = None if namespace(label) is np else 1
        yield from in_threads(lambda part: (part, _stats(model, part, label[part])), parts, threads=threads)

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
        class. `check`: whether the noise looks as the model assumes (joint_check.py)."""
        count = np.asarray(model.count.tolist())
        rate = count / np.maximum(count.sum(axis=1, keepdims=True), 1e-12)
        order = np.argsort(-count, axis=None, kind="stable")[:PAIRS]
        true_E, given_E = np.unravel_index(order[count.reshape(-1)[order] > 0], count.shape)
        size_C = np.bincount(rows.label_N, minlength=rows.num_classes)
        noise_C = 1 - np.diag(count) / np.maximum(size_C, 1)
        check = model.check
        return {
            "transition": {
                "true": true_E.tolist(),
                "given": given_E.tolist(),
                "samples": np.round(count[true_E, given_E], 2).tolist(),
                "rate": np.round(rate[true_E, given_E], 6).tolist(),
            },
            "noise": [round(float(noise), 6) if size else None for noise, size in zip(noise_C, size_C)],
            "check": {
                "others": check.others,
                "wrong": round(check.wrong, 4),
                "follows": round(check.follows, 4),
                "error": round(check.error, 4),
                "class_conditional": check.class_conditional,
            },
        }


def are_uneven(count_C: np.ndarray) -> bool:
    """Whether the labels spread over clearly fewer classes than there are: exp(entropy) below EVEN of the classes."""
    share_C = count_C[count_C > 0] / max(count_C.sum(), 1)
    return float(np.exp(-(share_C * np.log(share_C)).sum())) < EVEN * len(share_C)


class _Fit:
    """One fit over the part's rows; every sum goes through `reduce`."""

    def __init__(self, rows: Rows, reduce: Reduce, bank: PromptBank) -> None:
        self.rows, self.reduce = rows, reduce
        self.classes, self.device = rows.num_classes, rows.device.value
        self.label, self.fold = rows.own_labels, fold_of(rows.own)
        self.data: Float32Blocks = rows.own_tiles()
        self.each: Each = in_threads if self.data.namespace is np else map
        whole = keeps_whole(rows.blocks.num_rows, self.classes, self.device)
        self.groups = Groups(self.label, self.classes, self.device) if whole else None
        self.prompts = logits_of(bank, self.label, self.device, whole=whole)
        self.sample = spread_sample(rows.blocks.num_rows, SAMPLE)
        self.first_chosen, end = np.searchsorted(self.sample, (rows.own.start, rows.own.stop))
        self.chosen = self.sample[self.first_chosen : end] - rows.own.start
        self.sample_prompts = zeros(self.device, len(self.chosen), self.classes)
        self.sample_high = zeros(self.device, len(self.chosen))
        self.sample_image = zeros(self.device, len(self.chosen), rows.blocks.dim)
        self.first_choice = 0
        self.uneven = are_uneven(np.bincount(rows.label_N, minlength=self.classes))
        self.weights = Weights(rows.label_N[self.sample], self.classes, self.device, self.each)

    def run(self) -> JointModel:
        with self.rows.progress.track("joint", total=1 + 2 * ROUNDS, unit="passes") as task, one_blas_thread():
            spread, kept = self._first_pass()
            sure = sureness(self._gathered(self.sample_prompts), 1.0, self.each)
            channel = fit_channel(kept, self.reduce, each=self.each)
            task.advance()
            for turn in range(ROUNDS):
                head = self._head(spread, kept, channel, blend=turn == 0)
                task.advance()
                weights = self._weights(head, sure)
                kept = self._mix(head, weights)
                last = turn == ROUNDS - 1
                channel = fit_channel(kept, self.reduce, each=self.each, uneven=last and self.uneven)
                task.advance()
        others = self.rows.blocks.num_rows - round(self._total([self.first_choice])[0])
        label_M = self.rows.label_N[self.sample]
        check = examine(self.sample_mix, label_M, channel, others, self.each)
        trust, count, by = 1.0, channel.count, None
        if check.class_conditional is False:
            trust = trust_in_labels(check.wrong)
            by = self._by_prompts(head, channel, check.wrong)
            count = self._mixed_count(kept, channel, trust, by)
        return JointModel(
            kept=kept, channel=channel, weights=weights, check=check, count=count, trust=trust, prompts=by
        )

    def _by_prompts(self, head: Head, channel: Channel, wrong: float) -> ByPrompts:
        logit_MC, label_M = self._gathered(self.sample_prompts), self.rows.label_N[self.sample]
        return by_prompts(
            self._mix(head, (0.0, 1.0, 1.0)), logit_MC, label_M, share_of_classes(self.sample_mix, channel), wrong
        )

    def _mixed_count(self, kept: Kept, channel: Channel, trust: float, by: ByPrompts) -> Any:
        """`count` of a JointModel where the check fires."""
        of_image = believed(kept, channel.prior_Z, self.reduce, self.each)
        of_prompts = believed(by.kept, by.factor_C, self.reduce, self.each)
        count = channel.count * trust + (of_image + of_prompts) * ((1 - trust) / 2)
        return count * (1 - by.alone) + self._with_right(of_prompts, by) * by.alone

    def _with_right(self, count: Any, by: ByPrompts) -> Any:
        """The same with Σ u of each given label's rows on the diagonal; what is wrong is spread as it was."""
        label = as_array(self.label, self.device)

        def right(part: slice) -> Any:
            u_B = by.allows(by.of(part), label[part])
            return namespace(u_B).bincount(label[part], u_B, minlength=self.classes)

        right_C = self.reduce.sum(sum(self.each(right, _pieces(len(label), self.classes, self.device)), count[0] * 0.0))
        rows_C, diagonal, count = count.sum(axis=0), numbers(count), count + 0.0
        count[diagonal, diagonal] = 0.0
        count *= (rows_C - right_C) / count.sum(axis=0).clip(1e-12)
        count[diagonal, diagonal] = right_C
        return count

    def _over(self, work: Callable[[slice, Any], Any]) -> Iterator[Any]:
        """work(rows, images) of all tiles in their order."""
        return self.data.map(work, row_bytes=3 * 4 * self.classes)

    def _keeper(self) -> Kept:
        if self.groups is not None:
            return Whole(self.groups)
        first, num_rows = self.rows.own.start, self.rows.blocks.num_rows
        return Top(self.label, self.classes, self.device, first=first, num_rows=num_rows)

    def _first_pass(self) -> tuple[Spread, Kept]:
        """What the head needs of the images, and P(z | i) of zero-shot, kept; fills the sample."""
        spread, kept = Spread(self.data.dim, self.device), self._keeper()

        def work(part: slice, image: Any) -> Any:
            logit_BC, high_B = self.prompts.first(part, image)
            first, last = np.searchsorted(self.chosen, (part.start, part.stop))
            within = as_array(self.chosen[first:last] - part.start, self.device)
            self.sample_image[first:last], self.sample_prompts[first:last] = image[within], logit_BC[within]
            self.sample_high[first:last] = high_B[within]
            q_BC = softmax(logit_BC)
            return self._first_choice(part, q_BC), kept.put(part, q_BC), spread.of(image, self.fold[part])

        for first, agree, sums in self._over(work):
            self.first_choice += first
            kept.add(agree)
            spread.add(sums)
        self.prompts.finish(self.sample_image, self.sample_prompts, self.sample_high, self.reduce)
        spread.finish(self.reduce)
        kept.finish(self.reduce)
        return spread, kept

    def _mix(self, head: Head, weights: tuple[float, float, float]) -> Kept:
        """P(z | i) of all rows, kept."""
        a, b, m = weights
        kept, mixing = self._keeper(), self.prompts.mixing(head.linear, a * m, b * m)

        def work(part: slice, image: Any) -> Any:
            return kept.put(part, softmax(mixing(part, image, self.fold[part])))

        for agree in self._over(work):
            kept.add(agree)
        kept.finish(self.reduce)
        return kept

    def _head(self, spread: Spread, kept: Kept, channel: Channel, *, blend: bool) -> Head:
        """Fitted on r; with `blend` on half r and half the given label."""
        head = Head(spread, self.classes)

        def work(part: slice, image: Any) -> Any:
            r_BC = kept.joint(part, channel.seen_YZ)
            r_BC /= r_BC.sum(axis=1)[:, None].clip(1e-30)
            if blend:
                r_BC *= 0.5
                r_BC[numbers(r_BC), as_array(self.label[part], self.device)] += 0.5
            return head.of(image, r_BC, self.fold[part])

        for sums in self._over(work):
            head.add(sums)
        head.finish(self.reduce)
        return head

    def _weights(self, head: Head, sure: float) -> tuple[float, float, float]:
        """a, b and m, found on the sample, which every part has whole."""
        of_head = self._gathered(head.logits(self.sample_image, self.fold[self.chosen]))
        prompts = self._gathered(self.sample_prompts)
        pair = self.weights.choose(prompts, of_head)
        self.sample_mix = mixed(prompts, of_head, pair)
        sharp = sharpness(self.sample_mix, sure, self.each)
        self.sample_mix *= sharp
        return *pair, sharp

    def _gathered(self, own: Any) -> Any:
        """The parts' rows of the sample, one part's after the other's."""
        if self.reduce.parts == 1:
            return own
        whole = zeros(self.device, len(self.sample), own.shape[1])
        whole[self.first_chosen : self.first_chosen + len(own)] = own
        return self.reduce.sum(whole)

    def _total(self, numbers: Sequence[float]) -> list[float]:
        """Over the parts."""
        return self.reduce.sum(as_array(np.array(numbers, np.float64), self.device)).tolist()

    def _first_choice(self, part: slice, q_BC: Any) -> int:
        """How many labels are the most probable class."""
        return int((as_array(self.label[part], self.device) == q_BC.argmax(axis=1)).sum())


def _pieces(rows: int, classes: int, device: str) -> list[slice]:
    """Of r that are worked on at once."""
    step = max(1, SCORE_BYTES[kind(device)] // (8 * classes))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _stats(model: JointModel, part: slice, label_B: Any) -> ClassStats:
    """The given label's P is P(right); the others share the rest as r does."""
    from cleanctl_kernels.zeroshot import stats_of_probabilities

    r_BC = double(model.kept.joint(part, model.channel.seen_YZ))
    r_BC /= r_BC.sum(axis=1)[:, None].clip(1e-30)
    q_BC = model.kept.likelihood(part) * model.channel.prior_Z
    q_BC /= q_BC.sum(axis=1)[:, None].clip(1e-30)
    right_B = pick(r_BC, label_B) * (1 - RHO + RHO * pick(q_BC, label_B))
    if model.prompts is not None:
        trust, alone, v_BC = model.trust, model.prompts.alone, model.prompts.of(part)
        q_BC = (q_BC + v_BC) / 2
        right_B = (trust * right_B + (1 - trust) * pick(q_BC, label_B)) * (1 - alone)
        right_B += alone * model.prompts.allows(v_BC, label_B)
        r_BC = (trust * r_BC + (1 - trust) * q_BC) * (1 - alone) + alone * v_BC
    put(r_BC, label_B, 0.0)
    r_BC *= ((1 - right_B) / r_BC.sum(axis=1).clip(1e-30))[:, None]
    put(r_BC, label_B, right_B)
    return stats_of_probabilities(r_BC, label_B)
