"""The page in a real Chromium by keyboard alone, on a narrow window, by its address, and with 100,000 rows."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from browser import written
from made_page import made_page

pytestmark = pytest.mark.browser

ACTIVE = """const one = document.activeElement;
    return [one.tagName, one.id || one.name || one.dataset.sort || one.className || one.getAttribute("href")]"""
# What can be used: in sight and enabled. Of the rows one is in the tab order, arrows reach the others.
USABLE = """return [...document.querySelectorAll("a[href], button, input, select, summary")]
    .filter((one) => one.checkVisibility() && !one.disabled && !(one.matches(".row") && one.tabIndex < 0))
    .map((one) => [one.tagName, one.id || one.name || one.dataset.sort || one.className || one.getAttribute("href")])"""
OUTLINE = "return parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
PLACE = "return +(document.activeElement.parentElement?.ariaPosInSet ?? 0)"


@pytest.fixture(scope="module")
def data():
    return made_page(count=300, images=300)


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page") / "report.html", data)


@pytest.fixture
def page(browser, file):
    browser.resize(1280, 900)
    browser.open(file)
    return browser


def saved_keys(browser) -> list[str]:
    saved = browser.downloaded(lambda: browser.click("#export"))
    return [row["key"] for row in csv.DictReader(io.StringIO(saved.decode(), newline=""))]


def tab_to(page, wanted: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(60):
        page.press("Tab")
        if page.js("return document.activeElement.matches(arguments[0])", wanted):
            return
    raise AssertionError(f"Tab never reaches {wanted}")


def test_tab_reaches_everything_and_shows_where_it_is(page):
    page.js("document.querySelector('#list .row').click()")  # the details have buttons too
    page.js("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    page.press("Tab")
    first = page.js(ACTIVE)
    reached, outlines = [first], [page.js(OUTLINE)]
    for _ in range(80):
        page.press("Tab")
        if page.js("return document.activeElement === document.body"):
            break
        reached.append(page.js(ACTIVE))
        outlines.append(page.js(OUTLINE))
    missing = [one for one in page.js(USABLE) if one not in reached]
    assert missing == []
    assert min(outlines) >= 2


def test_arrows_walk_through_the_rows_and_end_jumps_to_the_last(page, data):
    tab_to(page, "#list .row")
    assert page.js(PLACE) == 1
    page.press("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown")
    assert page.js(PLACE) == 3
    page.press("End")
    assert page.js(PLACE) == len(data)
    box = page.js("""const row = document.activeElement.getBoundingClientRect(), list = document.getElementById("list")
        .getBoundingClientRect(); return [row.top >= list.top - 1, row.bottom <= list.bottom + 1]""")
    assert box == [True, True]
    page.press("PageUp")
    assert page.js(PLACE) < len(data) - 5
    page.press("Home", "Enter")
    page.until("return document.querySelector('#detail img.large')?.naturalWidth > 0")
    assert data.key[0] in page.text("#detail")
    page.press("ArrowDown")
    assert data.key[1] in page.text("#detail")  # the details follow


def test_a_row_keeps_the_focus_wherever_the_list_is_scrolled(page):
    tab_to(page, "#list .row")
    page.press("ArrowDown")
    page.js("document.getElementById('list').scrollTop = 5000")
    page.until("return ![...document.querySelectorAll('#list > div > div')].some((one) => one.ariaPosInSet === '1')")
    assert page.js(PLACE) == 2
    page.press("ArrowDown")
    assert page.js(PLACE) == 3
    assert page.js("return document.getElementById('list').scrollTop") < 200


def test_a_filter_is_set_and_rows_are_reached_by_keys_alone(page, data):
    tab_to(page, "[name='q']")
    page.press(*"ship/")
    wanted = [key for key in data.key if "ship/" in key]
    tab_to(page, "#to-end")
    page.press("Enter")
    assert page.js(PLACE) == len(wanted)
    assert page.js("return document.activeElement.querySelector('.key').innerText") == wanted[-1]


def test_a_view_is_linked_by_its_address(page, data, file):
    page.choose("class", "cat")
    page.choose("kept", "no")
    page.choose("score", "zeroshot.loss")
    page.choose("max", "-1.5")
    page.choose("sort", "p_label")
    page.click("#direction")
    shown = saved_keys(page)
    address = page.until("return location.hash.includes('sort=-p_label') && location.href")
    page.open(address)
    assert saved_keys(page) == shown
    in_view_N = (data.label_N == 3) & ~data.keep_N & (data.rules[0].score_N <= -1.5)
    assert sorted(shown) == sorted(np.array(data.key)[in_view_N])
    assert "row=" not in address
    page.open(f"{file.as_uri()}#table?class=nosuch")
    assert page.text("#count").startswith("0 of 300 images")


def test_a_link_in_a_section_leads_to_its_view_and_a_gallery_opens_its_image(page, data):
    page.click("#summary a")
    page.until("return document.querySelector('#filters [name=\"class\"]').value === 'cat'")
    cats_N = (data.label_N == data.classes.index("cat")) & ~data.keep_N
    assert saved_keys(page) == [data.key[row] for row in np.flatnonzero(cats_N)]
    page.js("scrollTo(0, 0)")
    page.click("#summary button[data-row='3']")
    page.until("return document.querySelector('#look[open] img.large')?.naturalWidth > 0")
    assert data.key[3] in page.text("#look")
    page.press("Escape")
    assert page.js("return document.getElementById('look').open") is False
    assert page.js("return document.activeElement.dataset.row") == "3"


def test_a_narrow_window_shows_details_over_the_list_and_nothing_sticks_out(page, data):
    page.resize(390, 844, dark=True)
    page.until("return getComputedStyle(document.getElementById('detail')).display === 'none'")
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    page.js("document.getElementById('list').scrollIntoView()")
    page.click("#list [aria-posinset='2'] .row")
    page.until("return document.querySelector('#look[open] img.large')?.naturalWidth > 0")
    assert data.key[1] in page.text("#look")
    page.press("Escape")
    assert page.js(PLACE) == 2
    dark = "return getComputedStyle(document.body).backgroundColor"
    assert sum(map(int, page.js(dark).strip("rgb()").split(","))) < 120
    page.resize(390, 844)
    assert sum(map(int, page.js(dark).strip("rgb()").split(","))) > 700


def test_a_hundred_thousand_rows_open_filter_and_end(browser, tmp_path):
    browser.resize(1280, 900)
    data = made_page(count=100_000, images=20)
    path = written(tmp_path / "report.html", data)
    assert path.stat().st_size < 10_000_000
    browser.open(path)
    browser.click("#to-end")
    assert browser.js(PLACE) == 100_000
    assert browser.js("return document.activeElement.querySelector('.key').innerText") == data.key[-1]
    assert browser.js("return document.querySelectorAll('#list .row').length") < 60
    browser.choose("q", "dog/")
    browser.choose("kept", "no")
    dogs_N = (data.label_N == 5) & ~data.keep_N
    assert browser.text("#count").startswith(f"{dogs_N.sum():,} of 100,000 images")
    assert saved_keys(browser) == [data.key[row] for row in np.flatnonzero(dogs_N)]
    assert browser.errors() == []


def test_a_list_too_long_for_a_browser_shows_every_row(browser, tmp_path):
    """Elements above some millions of pixels are cut: the list scrolls in proportion."""
    count = 300_000
    data = made_page(count=count, images=0)
    browser.open(written(tmp_path / "report.html", data))
    assert browser.js("return document.querySelector('.sheet').offsetHeight") < 17_000_000
    tab_to(browser, "#list .row")
    browser.press("End")
    assert browser.js(PLACE) == count
    browser.press("ArrowUp")
    assert browser.js("return document.activeElement.querySelector('.key').innerText") == data.key[-2]
    browser.js("const list = document.getElementById('list'); list.scrollTop = list.scrollHeight / 2")
    places = browser.until(
        """const all = [...document.querySelectorAll("#list .row")];
        const told = (row) => [+row.parentElement.ariaPosInSet, row.querySelector(".key").innerText];
        const here = all.map(told).filter(([place]) => place < arguments[0]);  // the last rows stand until it is drawn
        return here.length > 10 && here""",
        count - 100,
    )
    assert all(data.key[place - 1] == key for place, key in places)
    assert 0.45 * count < places[0][0] < 0.55 * count
