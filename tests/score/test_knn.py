"""kNN finds the neighbours that brute force finds, with FAISS and without, and never counts a row for itself."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanctl.config import SelectConfig
from cleanctl.errors import InputError, MissingPackageError
from cleanctl.score import neighbors
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.compute import posterior_of
from cleanctl.score.knn import Knn
from cleanctl.score.neighbors import drop_self, open_search
from cleanctl.score.scorer import ALONE, Rows

BACKENDS = ["blocked", pytest.param("faiss", marks=pytest.mark.filterwarnings("ignore"))]


def knn_posterior(blocks, label, *, num_classes, neighbors=200, include_self=False, backend="auto"):
    scorer = Knn(SelectConfig(neighbors=neighbors, knn_backend=backend))
    scorer.include_self = include_self
    return posterior_of(scorer, blocks, label, num_classes=num_classes)


def search_of(blocks, label, **options):
    """What the scorer says of its search."""
    rows = Rows(blocks=blocks, label_N=label, num_classes=4)
    scorer = Knn(SelectConfig(**options))
    return scorer.ran(scorer.fit(rows, ALONE), rows)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((300, 16))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    return image.astype(np.float16), rng.integers(0, 4, 300)


def brute_force(image, label, count, classes, *, include_self=False):
    cosine = image.astype(np.float64) @ image.astype(np.float64).T
    if not include_self:
        np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1)[:, :count]
    votes = np.stack([(label[nearest] == k).mean(axis=1) for k in range(classes)], axis=1)
    share = np.bincount(label, minlength=classes) / len(label)
    mass = np.divide(votes, share, out=np.zeros_like(votes), where=share > 0)
    return mass / mass.sum(axis=1, keepdims=True)


@pytest.fixture(params=["blocked", "faiss"])
def backend(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(neighbors, "QUERY_ROWS", 64)
    return request.param


@pytest.mark.parametrize("include_self", [False, True])
def test_it_agrees_with_brute_force(data, backend, include_self):
    image, label = data
    label[label == 2] = 1  # class 2 is absent
    prob = brute_force(image, label, 20, 5, include_self=include_self)
    blocks = ArrayBlocks(image_ND=image, block_rows=70)
    found = knn_posterior(blocks, label, num_classes=5, neighbors=20, include_self=include_self, backend=backend)
    np.testing.assert_allclose(found.p_label, prob[np.arange(300), label], atol=1e-5)
    np.testing.assert_allclose(found.p_max, prob.max(axis=1), atol=1e-5)
    assert not np.isin(found.suggested, [2, 4]).any()


def test_identical_images_do_not_count_themselves(backend):
    """Forty copies of one image: only the row's own number may be left out, whatever the order of equals."""
    image = np.eye(4, dtype=np.float16)[[0] * 40 + [1] * 41]
    label = np.array([0] * 39 + [1] * 42)
    found = knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=2, neighbors=39, backend=backend)
    assert found.p_label[39] == 0.0
    # A copy of class 0 has 38 votes of 39/81 share and one of 42/81 share.
    expected = (38 / 39) / (38 / 39 + 1 / 42)
    np.testing.assert_allclose(found.p_label[:39], expected, atol=1e-6)


@pytest.mark.parametrize("rows", [41, 101, 201])
def test_of_few_rows_fewer_neighbours_vote_and_labels_that_agree_are_kept(rows, backend, recorder):
    """With 200 neighbours of each they would be all of the others, among whom a row's own label lacks one vote."""
    group = np.arange(rows) % 3
    image = np.eye(4, dtype=np.float16)[group]
    label = np.where(np.arange(rows) < 3, (group + 1) % 3, group)  # one of each group is wrong
    data = Rows(blocks=ArrayBlocks(image_ND=image), label_N=label, num_classes=3, progress=recorder)
    scorer = Knn(SelectConfig(knn_backend=backend))
    model = scorer.fit(data, ALONE)
    found = scorer.posterior(model, data)
    assert found.suggested.tolist() == group.tolist()
    assert recorder.warnings == [
        f"knn: {rows // 2} neighbours of each image vote and not 200, for there are {rows} images: were they nearly "
        "all of the others, they would speak against every label. Give fewer with --neighbors."
    ]
    assert scorer.ran(model, data)["by"].endswith(f", {rows // 2} neighbours and not 200")


def test_as_many_neighbours_as_half_of_the_others_are_taken_without_a_word(data, recorder):
    image, label = data
    rows = Rows(blocks=ArrayBlocks(image_ND=image), label_N=label, num_classes=4, progress=recorder)
    scorer = Knn(SelectConfig(neighbors=149))
    assert "149" not in scorer.ran(scorer.fit(rows, ALONE), rows)["by"]
    assert recorder.warnings == []


def test_three_rows_and_a_row_alone(backend):
    image = np.eye(4, dtype=np.float16)[[0, 1, 1]]
    found = knn_posterior(ArrayBlocks(image_ND=image), np.array([0, 1, 1]), num_classes=2, backend=backend)
    assert found.suggested.tolist() == [1, 1, 1]
    assert found.p_label.tolist() == [0.0, 1.0, 1.0]
    alone = knn_posterior(ArrayBlocks(image_ND=image[:1]), np.array([1]), num_classes=2, backend=backend)
    assert alone.p_label.tolist() == [1.0]


def test_drop_self_removes_the_own_number_or_else_the_last():
    neighbor = np.array([[5, 0, 7], [1, 9, 8], [3, 4, 6]])
    assert drop_self(neighbor, np.array([0, 1, 2])).tolist() == [[5, 7], [9, 8], [3, 4]]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    distinct=st.integers(1, 6),
    classes=st.integers(1, 5),
    neighbors=st.integers(1, 50),
    include_self=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_ties_and_classes_give_votes_of_true_neighbours(rows, distinct, classes, neighbors, include_self, seed):
    """Identical images, absent classes, one class, one row, K beyond N: each vote comes from a nearest neighbour."""
    rng = np.random.default_rng(seed)
    image = np.eye(8, dtype=np.float16)[rng.integers(0, distinct, rows)]
    label = rng.integers(0, classes, rows)
    count = min(neighbors, rows - (not include_self))
    blocks = ArrayBlocks(image_ND=image, block_rows=7)
    data = Float32Blocks(blocks, cache_bytes=0)
    for part, neighbor in open_search(data, count + (not include_self), backend="blocked").batches(slice(0, rows)):
        own = np.arange(part.start, part.stop)
        kept = neighbor if include_self else drop_self(neighbor, own)
        cosine = image[part].astype(np.float32) @ image.T.astype(np.float32)
        if not include_self:
            assert not (kept == own[:, None]).any()
            cosine[np.arange(len(own)), own] = -1.0
        expected = -np.sort(-cosine, axis=1)[:, :count]
        np.testing.assert_array_equal(-np.sort(-np.take_along_axis(cosine, kept, axis=1), axis=1), expected)
        assert all(len(set(line)) == count for line in kept.tolist())
    found = knn_posterior(
        blocks, label, num_classes=classes, neighbors=neighbors, include_self=include_self, backend="blocked"
    )
    assert ((found.p_label >= 0) & (found.p_label <= found.p_max + 1e-6)).all()
    assert np.isin(found.suggested, label).all()


def test_without_faiss_the_blocked_search_runs_and_says_so(data, monkeypatch):
    real = builtins.__import__

    def no_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_faiss)
    image, label = data
    assert "FAISS is not installed" in search_of(ArrayBlocks(image_ND=image), label, neighbors=5)["by"]
    with pytest.raises(MissingPackageError, match=r"\[cpu\]"):
        knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, backend="faiss")


def test_non_finite_rows_are_refused_and_named(data, backend):
    image, label = data
    image[12, 0] = np.nan
    with pytest.raises(InputError, match="rows 12 "):
        knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, backend=backend)


def test_faiss_and_our_threads_work_side_by_side_with_several_threads(data):
    """Both bring an OpenMP runtime; results must not change when they take turns."""
    pytest.importorskip("faiss")
    image, label = data
    blocks = ArrayBlocks(image_ND=image)
    rounds = [
        knn_posterior(blocks, label, num_classes=4, neighbors=15, backend=name).p_label
        for name in ("faiss", "blocked", "faiss", "blocked")
    ]
    for other in rounds[1:]:
        np.testing.assert_allclose(other, rounds[0], atol=1e-6)
