"""Tiles of embeddings: every number as it is stored, every row once, read no oftener than need be."""

from __future__ import annotations

import numpy as np
import pytest
from cleanctl_kernels import threads

from cleanctl.errors import InputError
from cleanctl.score import blocks as module
from cleanctl.score.blocks import ArrayBlocks, Float32Blocks, PartBlocks, widen


def test_every_finite_half_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    out = np.empty(len(finite), np.float32)
    widen(finite, out)
    np.testing.assert_array_equal(out.view(np.int32), finite.astype(np.float32).view(np.int32))  # the sign of 0 too


def rows_of(count=1_000, dim=24):
    return np.random.default_rng(0).standard_normal((count, dim)).astype(np.float16)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_map_gives_every_row_once_and_in_order(device, number, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: number)
    monkeypatch.setattr(module, "TILE_BYTES", {"cpu": 100 * 24 * 4})
    image = rows_of()
    data = Float32Blocks(ArrayBlocks(image_ND=image, block_rows=333), device=device)
    for _ in range(2):  # the second pass is of what was kept
        found = list(data.map(lambda rows, tile: (rows, np.array(tile))))
        assert [rows.start for rows, _ in found][1:] == [rows.stop for rows, _ in found][:-1]
        assert max(len(tile) for _, tile in found) <= 100
        np.testing.assert_array_equal(np.concatenate([tile for _, tile in found]), image.astype(np.float32))


class Counted(ArrayBlocks):
    """Says how often its blocks were asked for."""

    def __iter__(self):
        asked.append(1)
        return super().__iter__()


asked: list[int] = []


@pytest.mark.parametrize(("cache_bytes", "times"), [(None, 1), (0, 3), (500 * 24 * 2, 3)])
def test_what_fits_the_cache_is_read_once(cache_bytes, times):
    asked.clear()
    data = Float32Blocks(Counted(image_ND=rows_of(), block_rows=500), cache_bytes=cache_bytes)
    sums = [sum(data.map(lambda rows, tile: float(tile.sum(dtype=np.float64)))) for _ in range(3)]
    assert len(asked) == times
    assert sums[1:] == sums[:-1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_by_its_number_among_all_rows(dtype, bad):
    image = rows_of().astype(dtype)
    image[517, 3] = bad
    data = Float32Blocks(PartBlocks(blocks=ArrayBlocks(image_ND=image), part=slice(400, 900)))
    with pytest.raises(InputError, match="rows 517 "):
        list(data.map(lambda rows, tile: None))
