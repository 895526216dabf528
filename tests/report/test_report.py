"""`report` writes one page whose numbers are the store's, from whatever a store holds, and overwrites only its own."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import ReportConfig, SelectConfig
from cleanctl.errors import InputError, StoreError, UsageError
from tests.report.stores import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return make_store(folder, strategies=("zeroshot.match", "joint", "intersection"))


class Page(HTMLParser):
    """Section id → its text; tags are counted, so that markup that a name smuggles in is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.tags: list[str] = []
        self.section = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.sections[self.section] = ""

    def handle_endtag(self, tag):
        if tag == "section":
            self.section = ""
        elif self.section:
            self.sections[self.section] += " " if tag in ("td", "th", "dd") else ""

    def handle_data(self, data):
        if self.section:
            self.sections[self.section] += data


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_what_the_store_holds(store, tmp_path):
    made = api.report(ReportConfig(out=tmp_path / "page.html"), store=store)
    page = read(tmp_path / "page.html")
    rows = api.read_selection(store, "intersection").to_pylist()
    kept = sum(row["keep"] for row in rows)
    assert made.selection == "intersection"
    assert made.samples == made.shown == 600
    assert made.bytes == (tmp_path / "page.html").stat().st_size
    assert set(made.sections) | {"table"} == set(page.sections)
    assert f"{kept:,} are kept by intersection" in page.sections["overview"]
    for rule in ("zeroshot.loss", "zeroshot.consistency", "logistic.loss", "logistic.consistency"):
        assert re.search(
            rf"{rule}\s*labels whose .*?{sum(row[f'{rule}.keep'] for row in rows)}", page.sections["rules"]
        )
    for name in {row["label_name"] for row in rows}:
        keeps = [row["keep"] for row in rows if row["label_name"] == name]
        assert re.search(rf"{name}\s*{len(keeps)}\s*{sum(keeps)}\s", page.sections["classes"])
    truth = np.load(store.parent / "z.npy")
    precision = np.mean([row["label"] == true for row, true in zip(rows, truth, strict=True) if row["keep"]])
    assert f"{100 * precision:.1f} %" in page.sections["quality"]
    assert "There are no images" in page.sections["overview"]


def test_the_table_beside_it_is_the_selection(store, tmp_path):
    made = api.report(ReportConfig(out=tmp_path / "page.html", selection="joint"), store=store)
    assert made.table == str(tmp_path / "page.parquet")
    assert pq.read_table(made.table).to_pylist() == api.read_selection(store, "joint").to_pylist()


def test_joint_brings_its_transition_matrix(store, tmp_path):
    api.report(ReportConfig(out=tmp_path / "page.html", selection="joint"), store=store)
    page = read(tmp_path / "page.html")
    assert "joint's transition matrix" in page.sections["confusion"]
    assert "joint.posterior keeps" in page.sections["scores"]
    assert not any(name.startswith("mixture") for name in page.sections)


def test_changes_add_up_to_what_diff_says(store, tmp_path):
    made = api.report(ReportConfig(out=tmp_path / "page.html", against="zeroshot.match"), store=store)
    assert "changes" in made.sections
    first, second = (api.read_selection(store, name)["keep"].to_numpy() for name in ("zeroshot.match", "intersection"))
    said = read(tmp_path / "page.html").sections["changes"]
    assert f"they differ in {int((first != second).sum())}" in said
    assert f"{int((first & ~second).sum())} only in zeroshot.match" in said


def test_it_works_with_one_rule_without_truth_and_says_what_is_missing(tmp_path):
    store = make_store(tmp_path, rows=60, truth=False, strategies=("zeroshot.match",))
    made = api.report(ReportConfig(), store=store)
    assert made.out == str(tmp_path / "cleanctl.report.html")
    assert not {"quality", "runs", "failures", "changes", "disagreements"} & set(made.sections)
    with pytest.raises(StoreError, match="no selection named 'nine'"):
        api.report(ReportConfig(selection="nine"), store=store)
    with pytest.raises(StoreError, match="no run 'nine'"):
        api.report(ReportConfig(run=("nine",)), store=store)


def test_only_a_page_that_a_report_wrote_is_overwritten(store, tmp_path):
    out = tmp_path / "page.html"
    first = api.report(ReportConfig(out=out), store=store)
    assert api.report(ReportConfig(out=out, selection="joint"), store=store).selection != first.selection
    out.write_text("<!doctype html><p>cleanctl report</p>")
    with pytest.raises(InputError, match="no report wrote it"):
        api.report(ReportConfig(out=out), store=store)
    assert out.read_text() == "<!doctype html><p>cleanctl report</p>"
    table = tmp_path / "other.parquet"
    pq.write_table(api.read_selection(store, "joint"), table)
    with pytest.raises(InputError, match="no report wrote it"):
        api.report(ReportConfig(out=tmp_path / "other.html"), store=store)
    assert not (tmp_path / "other.html").exists()
    with pytest.raises(UsageError, match="--out"):
        ReportConfig(out=tmp_path / "page.txt")


HOSTILE = ("<script>alert(1)</script>", 'a"b&c</title>', "\x1b[31mred\u202e")


def test_names_and_keys_are_text_wherever_they_stand(tmp_path):
    keys = [f"</section><img src=x onerror=alert(1)>{row:04d}\x1b[2J" for row in range(300)]
    (tmp_path / "plain").mkdir()
    plain = make_store(tmp_path / "plain", rows=300)
    store = make_store(tmp_path, rows=300, classes=HOSTILE, keys=keys)
    pages = {}
    for name, path in (("plain", plain), ("hostile", store)):
        api.report(ReportConfig(out=tmp_path / f"{name}.html"), store=path)
        pages[name] = read(tmp_path / f"{name}.html")
    for tag in ("script", "img", "section", "title", "b"):
        assert pages["hostile"].tags.count(tag) == pages["plain"].tags.count(tag)
    text = (tmp_path / "hostile.html").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mred\\u202e" in pages["hostile"].sections["classes"]
    assert "<script>alert(1)</script>" in pages["hostile"].sections["classes"]


def test_the_command_prints_one_json_object(store, tmp_path):
    words = ["report", "--store", str(store), "--out", str(tmp_path / "page.html"), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["out"] == str(tmp_path / "page.html")


def test_a_stale_selection_is_shown_as_stale(tmp_path):
    store = make_store(tmp_path, rows=60, strategies=("zeroshot.match",))
    make_store(tmp_path, rows=60, strategies=(), seed=5)
    api.report(ReportConfig(out=tmp_path / "page.html"), store=store)
    assert "This selection is stale" in read(tmp_path / "page.html").sections["overview"]
    api.select(SelectConfig(strategy="zeroshot.match"), store=store)
    api.report(ReportConfig(out=tmp_path / "page.html"), store=store)
    assert "stale" not in read(tmp_path / "page.html").sections["overview"]
