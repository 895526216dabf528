"""A store keeps to the variant of a published dataset that it was begun with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from published_copy import copies

from cleanctl import api
from cleanctl.config import EmbedConfig
from cleanctl.errors import StoreError
from cleanctl.store import Store


@pytest.fixture
def config(tmp_path, model_dir) -> EmbedConfig:
    next(copy for copy in copies() if copy.dataset == "clothing1m").build(tmp_path / "c")
    return EmbedConfig(
        source=tmp_path / "c", variant="balanced:28", seed=5, splits=("train",), model=f"local-dir:{model_dir}",
        prompts="photo", loader="torch", workers=0, device="cpu",
    )  # fmt: skip


def test_a_subset_is_drawn_once_and_another_is_refused(config, tmp_path):
    path = tmp_path / "s.zarr"
    api.embed(config, store=path)
    keys = Store.open(path).split("train").keys()
    assert Store.open(path).source["variant"] == "balanced:28 with seed 5"
    assert [split.embedded for split in api.embed(config, store=path).splits] == [0]
    for other, words in (
        (replace(config, seed=6), r"balanced:28 with seed 5; this run asks for it balanced:28 with seed 6"),
        (replace(config, variant="balanced:14"), r"asks for it balanced:14 with seed 5"),
        (replace(config, variant=None, seed=0), r"asks for it as a whole.*--variant"),
    ):
        with pytest.raises(StoreError, match=words):
            api.embed(other, store=path)
    assert Store.open(path).split("train").keys() == keys
    api.embed(replace(config, seed=6, replace=True), store=path)
    assert Store.open(path).split("train").keys() != keys


def test_a_whole_dataset_is_not_cut_down_to_a_subset(config, tmp_path):
    api.embed(replace(config, variant=None, seed=0), store=tmp_path / "s.zarr")
    assert "variant" not in Store.open(tmp_path / "s.zarr").source
    with pytest.raises(StoreError, match="holds clothing1m as a whole; this run asks for it balanced:28 with seed 5"):
        api.embed(config, store=tmp_path / "s.zarr")
