"""kNN finds the neighbours that brute force finds, with FAISS and without, and never counts a row for itself."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from cleanctl.errors import InputError, MissingPackageError
from cleanctl.score import knn
from cleanctl.score.blocks import ArrayBlocks
from cleanctl.score.knn import drop_self, knn_posterior

BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.filterwarnings("ignore"))]


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


@pytest.fixture(params=["torch", "faiss"])
def backend(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(knn, "QUERY_ROWS", 64)
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
    image = np.tile(np.eye(4, dtype=np.float16)[0], (40, 1))
    label = np.array([0] * 39 + [1])
    found = knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=2, neighbors=39, backend=backend)
    assert found.p_label[39] == 0.0
    # A row of class 0 has 38 votes of 39/40 share and one of 1/40 share.
    expected = (38 / (39 / 40)) / (38 / (39 / 40) + 1 / (1 / 40))
    np.testing.assert_allclose(found.p_label[:39], expected, atol=1e-6)


def test_more_neighbours_than_rows_and_a_row_alone(backend):
    image = np.eye(4, dtype=np.float16)[[0, 1, 1]]
    found = knn_posterior(
        ArrayBlocks(image_ND=image), np.array([0, 1, 1]), num_classes=2, neighbors=200, backend=backend
    )
    assert found.suggested.tolist() == [1, 0, 0] or np.isfinite(found.p_label).all()
    alone = knn_posterior(ArrayBlocks(image_ND=image[:1]), np.array([1]), num_classes=2, backend=backend)
    assert alone.p_label.tolist() == [1.0]


def test_drop_self_removes_the_own_number_or_else_the_last():
    neighbor = np.array([[5, 0, 7], [1, 9, 8], [3, 4, 6]])
    assert drop_self(neighbor, np.array([0, 1, 2])).tolist() == [[5, 7], [9, 8], [3, 4]]


def test_approximate_search_says_its_recall(data):
    pytest.importorskip("faiss")
    notes = []

    class Listener:
        from cleanctl.progress import SILENT

        track, warn, note = SILENT.track, SILENT.warn, staticmethod(notes.append)

    image, label = data
    knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, neighbors=5, probes=100, progress=Listener())
    assert any("measured recall 1.000" in text for text in notes)


def test_without_faiss_the_torch_search_runs_and_says_so(data, monkeypatch):
    real = builtins.__import__

    def no_faiss(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_faiss)
    notes = []

    class Listener:
        from cleanctl.progress import SILENT

        track, warn, note = SILENT.track, SILENT.warn, staticmethod(notes.append)

    image, label = data
    knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, neighbors=5, progress=Listener())
    assert any("FAISS is not installed" in text for text in notes)
    with pytest.raises(MissingPackageError, match=r"cleanctl\[cpu\]"):
        knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, backend="faiss")


def test_non_finite_rows_are_refused_and_named(data, backend):
    image, label = data
    image[12, 0] = np.nan
    with pytest.raises(InputError, match="rows 12 "):
        knn_posterior(ArrayBlocks(image_ND=image), label, num_classes=4, backend=backend)


def test_faiss_and_torch_work_side_by_side_with_several_threads(data):
    """Both bring an OpenMP runtime; results must not change when they take turns."""
    pytest.importorskip("faiss")
    image, label = data
    blocks = ArrayBlocks(image_ND=image)
    rounds = [
        knn_posterior(blocks, label, num_classes=4, neighbors=15, backend=name).p_label
        for name in ("faiss", "torch", "faiss", "torch")
    ]
    for other in rounds[1:]:
        np.testing.assert_allclose(other, rounds[0], atol=1e-6)
