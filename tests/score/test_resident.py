"""kNN among rows on the device is exact search, ties by row number, whatever the products' rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cleanctl.config import SelectConfig
from cleanctl.runtime import Choice
from cleanctl.score import neighbors, resident
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks
from cleanctl.score.ivf import open_ivf
from cleanctl.score.knn import Knn
from cleanctl.score.neighbors import open_search
from cleanctl.score.resident import ROUNDING, Resident, open_resident
from cleanctl.score.scorer import ALONE, Rows

DEVICES = ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """With tiles so small that there are several of each kind."""
    monkeypatch.setattr(resident, "BASE_ROWS", 128)
    monkeypatch.setattr(resident, "TILE_BYTES", dict.fromkeys(("cpu", "cuda"), 4 * 128 * 80))
    return request.param


def rows_of(count, dim=24, *, seed=0, copies=1):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((-(-count // copies), dim))
    image = (image / np.linalg.norm(image, axis=1, keepdims=True)).astype(np.float16)
    return np.repeat(image, copies, axis=0)[rng.permutation(count)]


def brute_force(image, count):
    """Sums of products of float16 are exact in float64."""
    wide = image.astype(np.float64)
    return np.argsort(-(wide @ wide.T), axis=1, kind="stable")[:, :count]


def found(image, count, device, part=None):
    data = Float32Blocks(ArrayBlocks(image_ND=image, block_rows=90), device=device, cache_bytes=0)
    parts = list(open_resident(data).batches(count, part or slice(0, len(image))))
    assert [rows.start for rows, _ in parts][1:] == [rows.stop for rows, _ in parts][:-1]
    return np.concatenate([number.cpu().numpy() for _, number in parts])


@pytest.mark.parametrize("count", [1, 20, 211])
def test_the_neighbours_are_those_of_exact_search(count, device):
    image = rows_of(211)
    np.testing.assert_array_equal(found(image, count, device), brute_force(image, count))


@pytest.mark.parametrize("copies", [3, 60, 211])
def test_rows_alike_are_taken_by_their_number_however_many_there_are(copies, device):
    """60 copies are more than the candidates of 20 neighbours hold."""
    image = rows_of(211, copies=copies)
    np.testing.assert_array_equal(found(image, 20, device), brute_force(image, 20))


def test_a_part_asks_among_all_rows(device):
    image = rows_of(211)
    part = slice(30, 177)
    np.testing.assert_array_equal(found(image, 20, device, part), brute_force(image, 20)[part])


@pytest.mark.parametrize("copies", [1, 30])
def test_rounding_of_the_products_does_not_change_the_neighbours(copies, device, monkeypatch):
    """As coarse as a tensor core's sums may be; dimensions enough that it matters."""
    image = rows_of(300, dim=200, copies=copies)
    exact = Resident._products

    def rounded(self, query, base):
        near = exact(self, query, base)
        noise = torch.rand(near.shape, generator=torch.Generator().manual_seed(1)).to(near.device)
        return near + (noise - 0.5) * 2 * ROUNDING * 200 * 0.9

    monkeypatch.setattr(Resident, "_products", rounded)
    np.testing.assert_array_equal(found(image, 10, device), brute_force(image, 10))


def test_only_what_the_candidates_leave_open_is_searched_again(monkeypatch):
    asked = []
    again = Resident._searched_again
    monkeypatch.setattr(
        Resident, "_searched_again", lambda self, row_B, n: asked.append(len(row_B)) or again(self, row_B, n)
    )
    found(rows_of(240), 20, "cpu:0")
    assert asked == []
    found(rows_of(240, copies=60), 20, "cpu:0")
    assert sum(asked) == 240


def test_rows_that_do_not_fit_are_streamed(monkeypatch):
    image, label = rows_of(200), np.arange(200) % 3
    rows = Rows(blocks=ArrayBlocks(image_ND=image), label_N=label, num_classes=3)
    there = replace(rows, device=Choice(value="cpu:0", reason="the test"))
    scorer = Knn(SelectConfig(neighbors=15))
    usual = scorer.posterior(scorer.fit(there, ALONE), there)
    monkeypatch.setattr(resident, "_free_bytes", lambda device: 200 * 24)
    model = scorer.fit(there, ALONE)
    assert "do not fit" in model.by
    np.testing.assert_allclose(scorer.posterior(model, there).p_label, usual.p_label, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_the_votes_are_those_of_a_cpu(device):
    rng = np.random.default_rng(2)
    image, label = rows_of(500), rng.integers(0, 4, 500)
    rows = Rows(blocks=ArrayBlocks(image_ND=image, block_rows=120), label_N=label, num_classes=6)
    there = replace(rows, device=Choice(value=device, reason="the test"))
    scorer = Knn(SelectConfig(neighbors=25))
    posterior, expected = (scorer.posterior(scorer.fit(one, ALONE), one) for one in (there, rows))
    for name in ("p_label", "p_max", "p_second", "entropy"):
        np.testing.assert_allclose(getattr(posterior, name), getattr(expected, name), atol=1e-5, err_msg=name)


class GpuIndex:
    """What FAISS gives for an index moved to a GPU, here the index itself."""

    def __init__(self, index):
        self.index, self.nprobe, self.asked = index, 1, 0

    def add(self, rows):
        self.index.add(rows)

    def search(self, queries, count):
        self.asked += len(queries)
        if hasattr(self.index, "nprobe"):
            self.index.nprobe = self.nprobe
        return self.index.search(queries, count)


@pytest.fixture
def faiss_gpu(monkeypatch):
    """faiss-gpu's names on faiss-cpu; remembers what was moved."""
    faiss = pytest.importorskip("faiss")
    moved = []

    def to_gpu(resources, number, index):
        assert resources == "resources"
        assert number == 0
        moved.append(GpuIndex(index))
        return moved[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    return moved


def searched(search):
    return np.concatenate([number for _, number in search.batches(slice(0, 300))])


def test_where_faiss_is_asked_for_it_searches_on_the_gpu(faiss_gpu):
    image = rows_of(300)
    search = open_search(Float32Blocks(ArrayBlocks(image_ND=image)), 11, backend="faiss", device="cuda")
    assert "FAISS on the GPU, exact" in search.by
    assert np.mean(searched(search) == brute_force(image, 11)) > 0.99  # FAISS sums in float32
    assert faiss_gpu[0].asked == 300


@pytest.mark.parametrize("backend", ["auto", "faiss"])
def test_an_inverted_file_is_searched_on_the_gpu(faiss_gpu, backend):
    image = rows_of(300)
    data = Float32Blocks(ArrayBlocks(image_ND=image))
    search = open_ivf(data, data, 11, ALONE, recall=1.0, backend=backend, device="cuda")
    assert "FAISS IVF on the GPU" in search.by
    assert f"{search.probes} of 6 cells visited" in search.by
    assert faiss_gpu[0].nprobe == search.probes
    hits = np.mean([np.isin(*pair).mean() for pair in zip(brute_force(image, 11), searched(search))])
    assert hits >= search.recall - 0.02
    assert faiss_gpu[0].asked == 300


def test_more_neighbours_than_faiss_finds_on_a_gpu_are_found_on_the_cpu(faiss_gpu, monkeypatch):
    monkeypatch.setattr(neighbors, "GPU_MOST", 10)
    data = Float32Blocks(ArrayBlocks(image_ND=rows_of(300)))
    assert open_search(data, 11, backend="faiss", device="cuda").by == "FAISS, exact inner product"
    assert faiss_gpu == []


def test_auto_searches_a_gpu_without_faiss(faiss_gpu, monkeypatch):
    """Nobody has measured FAISS faster there."""
    monkeypatch.setattr(neighbors, "_on_device", lambda data, count: "ours")
    data = Float32Blocks(ArrayBlocks(image_ND=rows_of(50)))
    assert open_search(data, 5, device="cuda") == "ours"
