"""The whole way in a real Chromium: `review serve`'s own page, single keys, the store, and the selection made again."""

from __future__ import annotations

import os
import shutil
import signal

import commands
import pytest
from browser import wait

from cleanctl import api
from cleanctl.config import EmbedConfig, SelectConfig
from cleanctl.store import Store
from cleanctl.store.decisions import Decisions

SHOWN = "#review .about .key"


@pytest.fixture
def store(tmp_path, tiny_model, web_folder):
    """Embedded images and a selection of them."""
    shutil.copytree(web_folder, tmp_path / "images")
    machine = {"loader": "torch", "workers": 0, "device": "cpu"}
    config = EmbedConfig(source=tmp_path / "images", model=f"local-dir:{tiny_model}", prompts="photo", **machine)
    api.embed(config, store=tmp_path / "s.zarr")
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def keys_kept(store):
    table = api.read_selection(store, "zeroshot.match")
    return {key for key, keep in zip(table["key"].to_pylist(), table["keep"].to_pylist()) if keep}


def test_what_a_person_decides_in_the_served_page_is_obeyed(browser, store):
    process = commands.Command("-m", "cleanctl", "review", "serve", "--store", store, "--by", "ann", "--json")
    try:
        url = next(line.split()[2] for line in process.stderr if line.startswith("Review at "))
        browser.open(url)
        assert browser.errors() == []
        browser.click("#start")
        browser.until("return document.querySelector('#review img.large')?.naturalWidth > 0")  # the real file's
        assert browser.js("return document.querySelector('#review footer input[type=text]').placeholder") == "ann"
        dropped = browser.text(SHOWN)
        browser.press("d")
        kept = browser.text(SHOWN)
        browser.press("k")
        log = Decisions(store, "train")
        wait(lambda: len(log.read()) == 2, 60, "both verdicts are in the store")
        assert browser.errors() == []
        assert {url.split("/")[2] for url in browser.requests()} == {url.split("/")[2]}
    finally:
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [(one.key, one.verdict, one.by) for one in log.read()] == [(dropped, "drop", "ann"), (kept, "keep", "ann")]
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=store)
    assert dropped not in keys_kept(store)
    assert kept in keys_kept(store)
    assert Store.open(store).split("train").num_rows > 2
