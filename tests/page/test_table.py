"""The table in a real Chromium, from file://: opens without a request, filters, sorts, shows, saves what it shows."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from browser import written
from made_page import made_page

from cleanctl.report.page import Section

pytestmark = pytest.mark.browser

ROWS = 400
KEYS = """return [...document.querySelectorAll("#list .row")]
    .map((row) => [+row.parentElement.ariaPosInSet, row.querySelector(".key").innerText])"""
HOSTILE = '<img src=x onerror="window.hurt=1">'


@pytest.fixture(scope="module")
def data():
    return made_page(count=ROWS, images=ROWS)


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page") / "report.html", data)


@pytest.fixture
def page(browser, file):
    """The page with no filter set, opened where another one is open."""
    browser.resize(1280, 900)
    if browser.js("return location.href.split('#')[0]") != file.as_uri():
        browser.open(file)
    browser.click("#filters [type='reset']")
    return browser


def saved_rows(browser) -> list[dict[str, str]]:
    """The rows of the view, in its order, as the page saves them."""
    saved = browser.downloaded(lambda: browser.click("#export"))
    return list(csv.DictReader(io.StringIO(saved.decode(), newline="")))


def saved_keys(browser) -> list[str]:
    return [row["key"] for row in saved_rows(browser)]


def keys_of(data, rows) -> list[str]:
    return [data.key[row] for row in rows]


def test_opens_from_a_file_without_a_complaint_or_a_request(page, data):
    assert page.text("#count").startswith(f"{ROWS} images, {data.keep_N.sum()} kept")
    assert page.errors() == []
    assert page.requests() == []
    assert page.js("return location.protocol") == "file:"


def test_the_first_rows_are_the_first_of_the_page(page, data):
    shown = page.js(KEYS)
    assert len(shown) > 10
    assert [key for _, key in shown] == data.key[: len(shown)]
    assert [place for place, _ in shown] == list(range(1, len(shown) + 1))


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"q": "CAT/0001"}, lambda d: np.array(["cat/0001" in key for key in d.key])),
        ({"class": "dog"}, lambda d: d.label_N == d.classes.index("dog")),
        ({"suggested": "~given"}, lambda d: d.suggested_N != d.label_N),
        ({"suggested": "ship", "kept": "no"}, lambda d: (d.suggested_N == d.classes.index("ship")) & ~d.keep_N),
        ({"kept": "yes"}, lambda d: d.keep_N),
        ({"rule": "~zeroshot.loss"}, lambda d: ~d.rules[0].keep_N),
        ({"rule": "~"}, lambda d: d.rules[0].keep_N != d.rules[1].keep_N),
        ({"score": "p_max", "min": "0.5", "max": "0.75"}, lambda d: (d.p_max_N >= 0.5) & (d.p_max_N <= 0.75)),
        ({"score": "zeroshot.loss", "max": "-2"}, lambda d: d.rules[0].score_N <= -2),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_filters_show_the_rows_that_fit_and_no_others(page, data, fields, fits):
    for name, value in fields.items():
        page.choose(name, value)
    wanted = keys_of(data, np.flatnonzero(fits(data)))
    assert 0 < len(wanted) < ROWS
    assert saved_keys(page) == wanted
    assert page.text("#count").startswith(f"{len(wanted)} of {ROWS} images")
    assert [key for _, key in page.js(KEYS)] == wanted[: len(page.js(KEYS))]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("class", lambda d: [d.classes[label] for label in d.label_N]),
        ("suggested", lambda d: [d.classes[label] for label in d.suggested_N]),
        ("zeroshot.loss", lambda d: np.float32(d.rules[0].score_N).tolist()),
        ("gain", lambda d: d.gain_N.tolist()),
    ],
)
def test_a_column_head_sorts_up_then_down_then_not_at_all(page, data, name, keys):
    values = dict(zip(data.key, keys(data), strict=True))
    if name in ("zeroshot.loss", "gain"):
        page.choose("score", name)
    orders = []
    for _ in range(3):
        page.js("document.querySelector(`#head [data-sort='${arguments[0]}']`).click()", name)
        orders.append(saved_keys(page))
    # The page holds four digits of a number: what they cannot tell apart may stand either way.
    ranks = [_rounded(values[key]) for key in orders[0]]
    assert ranks == sorted(ranks)
    assert [_rounded(values[key]) for key in orders[1]] == sorted(ranks, reverse=True)
    assert orders[2] == list(data.key)


def _rounded(value):
    if isinstance(value, str):
        return value
    bits = np.array([value], "f4").view("u4").astype(np.uint64)
    return float((((bits + 1024) >> np.uint64(11)) << np.uint64(11)).astype("u4").view("f4")[0])


def test_rows_without_a_value_are_sorted_last_both_ways(browser, tmp_path):
    p_max_N = np.array([0.5, np.nan, 0.25, 1.0], "f4")
    browser.open(written(tmp_path / "report.html", made_page(count=4, p_max_N=p_max_N)))
    keys = made_page(count=4).key
    browser.choose("sort", "p_max")
    assert saved_keys(browser) == keys_of_places(keys, [2, 0, 3, 1])
    browser.click("#direction")
    assert saved_keys(browser) == keys_of_places(keys, [3, 0, 2, 1])


def keys_of_places(keys, places) -> list[str]:
    return [keys[place] for place in places]


def test_a_click_shows_the_large_image_and_the_evidence_in_words(page, data):
    page.js("document.querySelectorAll('#list .row')[4].scrollIntoView()")
    page.click("#list [aria-posinset='5'] .row")
    page.until("return document.querySelector('#detail img.large')?.naturalWidth === 96")
    assert page.js("return document.querySelector('#detail img.large').getBoundingClientRect().width") > 250
    said = page.text("#detail")
    assert data.key[4] in said
    assert ("Kept." if data.keep_N[4] else "Dropped.") in said
    for rule in data.rules:
        assert rule.name in said
        assert ("Keeps it" if rule.keep_N[4] else "Drops it") in said
        assert rule.criterion in said


def test_a_failed_image_tells_why_and_no_rule_speaks_of_it(browser, tmp_path):
    failed_N = np.array([False, True, False])
    data = made_page(count=3, images=0, failed_N=failed_N, reason=["", "truncated file", ""], keep_N=~failed_N)
    browser.open(written(tmp_path / "report.html", data))
    browser.choose("kept", "failed")
    assert saved_keys(browser) == [data.key[1]]
    browser.click("#list .row")
    assert "could not be read: truncated file" in browser.text("#detail")
    assert "Drops it" not in browser.text("#detail")


def test_the_saved_table_has_every_column_of_the_view(page, data):
    page.choose("class", "frog")
    rows = saved_rows(page)
    places = [data.key.index(row["key"]) for row in rows]
    assert [int(row["label"]) for row in rows] == data.label_N[places].tolist()
    assert [row["keep"] for row in rows] == [str(bool(kept)).lower() for kept in data.keep_N[places]]
    assert [row["suggested_name"] for row in rows] == [data.classes[label] for label in data.suggested_N[places]]
    for name, values in (("p_label", data.p_label_N), ("zeroshot.loss.score", data.rules[0].score_N)):
        np.testing.assert_allclose([float(row[name]) for row in rows], values[places], rtol=1 / 5000)
    assert [bytes.fromhex(row["digest"]) for row in rows] == [data.digest_N[place].tobytes() for place in places]


def test_names_that_a_spreadsheet_would_run_are_saved_as_text(browser, tmp_path):
    keys = ["=1+1.jpg", "+a.jpg", "-b.jpg", "@c.jpg", 'quote",\nbreak.jpg', "plain.jpg"]
    browser.open(written(tmp_path / "report.html", made_page(count=6, images=0, key=keys)))
    assert saved_keys(browser) == ["'=1+1.jpg", "'+a.jpg", "'-b.jpg", "'@c.jpg", 'quote",\nbreak.jpg', "plain.jpg"]


def test_names_are_shown_as_text_whatever_they_are(browser, tmp_path):
    data = made_page(count=30, images=0, classes=[f"{HOSTILE}{place}" for place in range(10)], title=HOSTILE)
    section = Section(id="bad", title=HOSTILE, html="<p>a section<script>window.hurt = 2</script></p>")
    keys = [f"{HOSTILE}/{place}\u202e.jpg\x1b[31m" for place in range(30)]
    browser.open(written(tmp_path / "report.html", dataclasses.replace(data, key=keys, before=[section])))
    browser.click("#list .row")
    browser.click("#start")
    assert browser.js("return window.hurt ?? null") is None
    assert browser.text("h1") == HOSTILE
    assert HOSTILE in browser.text("#detail")
    assert all("Content Security Policy" in error for error in browser.errors())  # of the section's script alone
