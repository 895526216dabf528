"""Conflicts that `cleanctl conflicts` found are in the report, with their images and labels."""

from __future__ import annotations

import re
import shutil

import numpy as np
from PIL import Image

from cleanctl import api
from cleanctl.config import ConflictsConfig, EmbedConfig, ReportConfig, SelectConfig


def test_a_copy_with_another_label_is_shown_with_its_group(tmp_path, tiny_model):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixel = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(pixel).resize((64, 64), Image.Resampling.BICUBIC)
            picture.save(tmp_path / "images" / name / f"{number}.jpg")
    shutil.copy(tmp_path / "images" / "cat" / "2.jpg", tmp_path / "images" / "dog" / "copy.jpg")
    store = tmp_path / "cleanctl.zarr"
    model = f"local-dir:{tiny_model}"
    api.embed(EmbedConfig(source=str(tmp_path / "images"), model=model, loader="torch", workers=0), store=store)
    api.select(SelectConfig(strategy="zeroshot.match", device="cpu"), store=store)
    assert "conflicts" not in api.report(ReportConfig(), store=store).sections
    found = api.conflicts(ConflictsConfig(loader="torch", workers=0), store=store)
    made = api.report(ReportConfig(), store=store)
    assert "conflicts" in made.sections
    text = (tmp_path / "cleanctl.report.html").read_text(encoding="utf-8")
    section = re.search(r'<section id="conflicts".*?</section>', text, re.DOTALL).group(0)
    rows = [int(row) for row in re.findall(r'<button[^>]* data-row="(\d+)"', section)]
    keys = sorted((tmp_path / "images").glob("*/*.jpg"))
    shown = {str(keys[row].relative_to(tmp_path / "images")) for row in rows}
    assert {"cat/2.jpg", "dog/copy.jpg"} <= shown
    assert f"{found.groups} groups of copies" in section
    assert "different labels" in section
