"""What every scorer promises, run against each that is registered, its options and variants, and a toy."""

from __future__ import annotations

import copy
import importlib.util
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cleanctl_kernels import threads

from cleanctl.config import SelectConfig
from cleanctl.distributed.reduce import Exchange
from cleanctl.errors import InputError
from cleanctl.records import TextEmbeddings
from cleanctl.registry import SCORERS
from cleanctl.runtime import Choice
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.compute import open_scorer
from cleanctl.score.recorded import RecordedScorer
from cleanctl.score.scorer import ALONE, Rows

_spec = importlib.util.spec_from_file_location("toy_scorer", Path(__file__).with_name("toy_scorer.py"))
assert _spec is not None
assert _spec.loader is not None
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

DIM, CLASSES = 12, 5
COMPUTED = [name for name in SCORERS.names() if not issubclass(SCORERS.load(name), RecordedScorer)]
CASES = {name: (name, {}) for name in COMPUTED} | {
    "joint": ("joint", {"temperature": 0.05}),
    "logistic, crossfit": ("logistic", {"crossfit": 3}),
    "zeroshot, cold": ("zeroshot", {"temperature": 0.001, "prompt_pooling": "mean"}),
    "logistic, published": ("logistic", {"compat": "paper-code"}),
    "knn, published": ("knn", {"compat": "paper-code"}),
    "knn, ivf": ("knn", {"knn_index": "ivf", "neighbors": 30}),
    "knn, ivf by FAISS": ("knn", {"knn_index": "ivf", "knn_probes": 2, "neighbors": 30, "knn_backend": "faiss"}),
    "toy": ("toy", {}),
}
SHARED = [case for case in CASES if case != "logistic, published"]  # scikit-learn's fit needs all rows


# L-BFGS stops at a gap of 5e-9, perhaps a step earlier where sums are rounded otherwise: probabilities within 5e-4.
TOLERANCE = {case: 2e-4 if case.startswith("logistic") else 1e-5 for case in CASES}
TOLERANCE["zeroshot, cold"] = 5e-4  # logits up to 1,000, of which float32 holds four digits behind the point


def scorer_of(case):
    name, options = CASES[case]
    config = SelectConfig(**options)
    return toy.Centroid(config) if name == "toy" else open_scorer(name, config)


def unit(rng, rows):
    x = rng.standard_normal((rows, DIM)) + np.linspace(0, 1, DIM)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make(rows=300, *, labels=None, seed=0, block_rows=64, part=None):
    rng = np.random.default_rng(seed)
    centre = unit(rng, CLASSES)
    label = rng.integers(0, CLASSES, rows) if labels is None else np.asarray(labels)
    image = centre[label] + 0.2 * rng.standard_normal((len(label), DIM))
    image = (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)
    class_P = np.repeat(np.arange(CLASSES), [3, 1, 2, 4, 1]).astype(np.int32)
    text = TextEmbeddings(embedding_PD=unit(rng, 11).astype(np.float32), class_P=class_P, prompts=("",) * 11)
    blocks = ArrayBlocks(image_ND=image, block_rows=block_rows)
    return Rows(blocks=blocks, label_N=label, num_classes=CLASSES, text=text, part=part)


def run(case, rows, reduce=ALONE):
    scorer = scorer_of(case)
    return scorer.posterior(scorer.fit(rows, reduce), rows)


def assert_coherent(found, rows):
    """Six numbers a row that can be those of one distribution over the classes."""
    for name, values in vars(found).items():
        assert len(values) == rows.blocks.num_rows
        assert not np.isnan(values).any(), name
    assert (found.p_label >= 0).all()
    assert (found.p_label <= found.p_max + 1e-6).all()
    assert (found.p_second <= found.p_max + 1e-6).all()
    assert (found.p_max + found.p_second <= 1 + 1e-5).all()
    assert (found.entropy >= 0).all()
    assert (found.entropy <= np.log(CLASSES) + 1e-5).all()
    assert np.isin(found.suggested, np.arange(CLASSES)).all()
    own = found.suggested == rows.label_N
    np.testing.assert_allclose(found.p_label[own], found.p_max[own], atol=1e-6)
    np.testing.assert_allclose(np.exp(found.log_p_label), found.p_label, atol=1e-5, rtol=1e-3)


def assert_same(found, expected, tolerance, rows=slice(None)):
    for name, scale in (("p_label", 1), ("p_max", 1), ("p_second", 1), ("entropy", 5)):
        values, wanted = getattr(found, name), getattr(expected, name)[rows]
        np.testing.assert_allclose(values, wanted, atol=scale * tolerance, err_msg=name)
    sure = (expected.p_max - expected.p_second)[rows] > 10 * tolerance
    np.testing.assert_array_equal(found.suggested[sure], expected.suggested[rows][sure])


@pytest.mark.parametrize("case", CASES)
def test_the_statistics_are_those_of_a_distribution_and_better_than_chance_is_not_asked_of_prompts(case):
    rows = make()
    found = run(case, rows)
    assert_coherent(found, rows)
    if not scorer_of(case).uses_text:  # the prompts here are random
        assert (found.suggested == rows.label_N).mean() > 0.5


@pytest.mark.parametrize("case", CASES)
def test_a_block_more_or_less_does_not_matter(case):
    assert_same(run(case, make(block_rows=37)), run(case, make(block_rows=300)), TOLERANCE[case])


@pytest.mark.parametrize("case", CASES)
def test_the_number_of_threads_does_not_matter(case, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 1)
    one = run(case, make())
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    assert_same(run(case, make()), one, TOLERANCE[case])


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", [case for case in CASES if case != "toy"])
def test_torch_computes_what_numpy_computes(case, device):
    """The path of CUDA, on torch's own CPU too. On CUDA tensor cores cut what they add up."""
    rows = make()
    there = replace(rows, device=Choice(value=device, reason="the test"))
    assert_same(run(case, there), run(case, rows), TOLERANCE[case] * (5 if device == "cuda" else 1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "labels",
    [[0] * 40 + [3] * 40, [0] * 40 + [1] * 40 + [4], [1, 0, 0, 0], [0, 1]],
    ids=["absent classes", "a class of one", "four rows", "two rows"],
)
def test_rare_and_absent_classes_are_scored(case, labels):
    if "crossfit" in CASES[case][1] and len(labels) < 3:
        pytest.skip("fewer rows than folds are refused")
    rows = make(labels=labels)
    assert_coherent(run(case, rows), rows)


@pytest.mark.parametrize("case", [case for case in CASES if case != "logistic, published"])
def test_one_class_is_certain_where_labels_are_all_there_is(case):
    rows = make(labels=[2] * 30)
    found = run(case, rows)
    assert_coherent(found, rows)
    if not scorer_of(case).uses_text:
        np.testing.assert_allclose(found.p_label, 1.0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_identical_images_are_scored_alike_where_they_do_not_vote_for_themselves(case):
    rows = make(labels=[0, 1] * 20)
    rows.blocks.image_ND[:] = rows.blocks.image_ND[0]
    found = run(case, rows)
    assert_coherent(found, rows)
    if case not in ("knn", "knn, ivf", "knn, ivf by FAISS", "logistic, crossfit"):
        for k in (0, 1):
            np.testing.assert_allclose(found.p_label[rows.label_N == k], found.p_label[k], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused_by_number(case, bad):
    rows = make()
    rows.blocks.image_ND[211, 3] = bad
    with pytest.raises(InputError, match="211"):
        run(case, rows)


class Barrier:
    """Parts as threads: each waits for the others, and the first one tells them."""

    def __init__(self, parts):
        self.parts, self.values = parts, [None] * parts
        self.barrier = threading.Barrier(parts, timeout=60)

    def all_at(self, number, value):
        """What each part gave here, in all of them."""
        self.values[number] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found

    def of(self, number):
        return ByBarrier(number, self)


class ByBarrier(Exchange):
    def __init__(self, number, barrier):
        super().__init__(number, barrier.parts)
        self._barrier = barrier

    def collect(self, value):
        found = self._barrier.all_at(self.number, copy.copy(value))
        return found if self.number == 0 else []

    def spread(self, value):
        return copy.deepcopy(self._barrier.all_at(self.number, value)[0])

    def hand_on(self, value, *, to):
        found = self._barrier.all_at(self.number, value)[0]
        return found if self.number == to else None


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("cuts", [[0, 130, 300], [0, 10, 290, 300]], ids=["two parts", "three uneven parts"])
def test_parts_that_share_the_work_get_what_one_process_gets(case, cuts):
    whole = run(case, make())
    barrier, found = Barrier(len(cuts) - 1), {}

    def work(index):
        part = slice(cuts[index], cuts[index + 1])
        found[index] = run(case, make(part=part), barrier.of(index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(cuts) - 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for index, one in found.items():
        assert_same(one, whole, TOLERANCE[case], slice(cuts[index], cuts[index + 1]))
