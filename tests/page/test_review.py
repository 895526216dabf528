"""Review in a real Chromium: verdicts by single keys, undo, what this browser keeps, the file, and a server."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browser import wait, written
from made_page import made_page

from cleanctl.report.page import Verdict, render
from cleanctl.review.files import read_verdicts

pytestmark = pytest.mark.browser

SHOWN = "#review .about .key"


@pytest.fixture(scope="module")
def data():
    return made_page(count=60, images=60)


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    return written(tmp_path_factory.mktemp("page") / "report.html", data)


@pytest.fixture
def page(browser, file):
    browser.open(file)
    browser.click("#start")
    return browser


def by_gain(data) -> list[str]:
    return [data.key[row] for row in np.argsort(-data.gain_N, kind="stable")]


def saved(browser) -> dict:
    return json.loads(browser.downloaded(lambda: browser.click("#review footer button")))


def said(file: dict) -> list[tuple]:
    return sorted((one["key"], one["verdict"], one.get("label")) for one in file["verdicts"])


def test_images_come_by_expected_gain_and_keys_decide(page, data):
    order, decided = by_gain(data), []
    for key, verdict in (("k", "keep"), ("d", "drop"), ("s", "skip"), ("K", "keep")):
        decided.append((page.text(SHOWN), verdict, None))
        page.press(key)
    gain_of = dict(zip(data.key, data.gain_N.tolist(), strict=True))
    gains = [gain_of[key] for key, _, _ in decided]
    assert gains == pytest.approx([gain_of[key] for key in order[:4]], rel=1 / 5000)
    assert page.text("#review .count") == "4 of 60 decided · 4 verdicts in all"
    assert said(saved(page)) == sorted(decided)


def test_relabelling_finds_the_class_that_is_typed(page, data):
    shown = page.text(SHOWN)
    page.press("r", *"tru", "Enter")
    second = page.text(SHOWN)
    page.press("r", *"r", "ArrowDown", "Escape")  # nothing is said
    assert page.text(SHOWN) == second
    assert page.js("return document.getElementById('review').open")
    label = data.label_N[data.key.index(shown)]
    expected = ("keep", None) if data.classes[label] == "truck" else ("relabel", "truck")
    assert said(saved(page)) == [(shown, *expected)]


def test_the_suggested_class_is_taken_by_one_key_and_leads_the_list(page, data):
    page.press("Escape")
    page.choose("suggested", "~given")
    page.click("#start")
    first = page.text(SHOWN)
    page.press("a")
    second = page.text(SHOWN)
    page.press("r", "Enter")
    suggested = {key: data.classes[label] for key, label in zip(data.key, data.suggested_N, strict=True)}
    assert said(saved(page)) == sorted((key, "relabel", suggested[key]) for key in (first, second))


def test_undo_takes_verdicts_back_one_by_one_and_shows_their_images(page):
    first = page.text(SHOWN)
    page.press("d")
    second = page.text(SHOWN)
    page.press("k", "u")
    assert page.text(SHOWN) == second
    assert said(saved(page)) == [(first, "drop", None)]
    page.press("u")
    assert page.text(SHOWN) == first
    assert page.text("#review .count").startswith("0 of 60 decided")
    assert page.js("return document.querySelector('#review [data-does=undo]').disabled")


def test_verdicts_outlive_the_tab_and_their_images_are_not_asked_for_again(page, file):
    first = page.text(SHOWN)
    page.press("d")
    page.open(file, forget=False)
    page.click("#start")
    assert page.text(SHOWN) != first
    assert page.text("#review .count") == "0 of 59 decided · 1 verdict in all"
    page.press("Escape")
    page.choose("verdict", "drop")
    assert page.text("#count").startswith("1 of 60 images")
    assert page.text("#list .row .verdict") == "drop"


def test_the_saved_file_is_the_one_that_review_apply_reads(page, data, tmp_path):
    page.js("document.querySelector('#review footer input').focus()")
    page.press(*"Ada", "Tab")
    for key in "kds":
        page.press(key)
    page.press("r", *"frog", "Enter")
    text = page.downloaded(lambda: page.click("#review footer button"))
    file = json.loads(text)
    assert {name: file[name] for name in ("format", "version", "store", "split", "selection", "by")} == {
        "format": "cleanctl.review",
        "version": 1,
        "store": data.store,
        "split": "train",
        "selection": "intersection",
        "by": "Ada",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", file["saved"])
    for one in file["verdicts"]:
        row = data.key.index(one["key"])
        assert one["digest"] == data.digest_N[row].tobytes().hex()
        assert one["given"] == data.classes[data.label_N[row]]
    path = tmp_path / "verdicts.json"
    path.write_bytes(text)
    told = read_verdicts(path)
    assert [(one.key, one.verdict, one.by) for one in told.verdicts] == [
        (one["key"], one["verdict"], "Ada") for one in file["verdicts"]
    ]


def test_a_saved_file_is_read_again_in_another_browser(page, file, tmp_path):
    page.press("k", "d", "a", "s", "r", *"ship", "Enter")
    before = saved(page)
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps(before))
    page.open(file)  # with nothing kept
    page.click("#start")
    assert page.text("#review .count").endswith("0 verdicts in all")
    load(page, path)
    assert page.text("#review .said") == f"{len(before['verdicts'])} of {len(before['verdicts'])} verdicts taken."
    assert said(saved(page)) == said(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": "another"}, "another dataset or split"),
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "no file of verdicts"),
    ],
)
def test_a_file_of_something_else_is_refused(page, data, tmp_path, change, message):
    verdicts = [
        {"key": data.key[0], "digest": None, "given": "airplane", "verdict": "keep", "at": "2026-01-01T00:00:00Z"}
    ]
    file = {"format": "cleanctl.review", "version": 1, "store": data.store, "split": "train", "verdicts": verdicts}
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps(file | change))
    load(page, path)
    assert message in page.text("#review .said")
    assert page.text("#review .count").endswith("0 verdicts in all")


def test_verdicts_on_other_content_or_that_make_no_sense_are_left_out(page, data, tmp_path):
    good = {"key": data.key[0], "digest": None, "given": "airplane", "verdict": "keep", "at": "2026-01-01T00:00:00Z"}
    verdicts = [
        good,
        good | {"key": data.key[1], "digest": "00" * 7 + "01"},
        good | {"key": data.key[2], "verdict": "relabel", "label": "no class"},
        good | {"key": data.key[3], "verdict": "relabel"},
        good | {"key": "no such key"},
    ]
    file = {"format": "cleanctl.review", "version": 1, "store": data.store, "split": "train", "verdicts": verdicts}
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps(file))
    load(page, path)
    assert page.text("#review .said") == "1 of 5 verdicts taken. 4 fit no image of this page."


def load(browser, path) -> None:
    """Chooses a file as a person does in the dialog of the operating system."""
    document = browser.do("DOM.getDocument")
    field = browser.do("DOM.querySelector", nodeId=document["root"]["nodeId"], selector="#review input[type=file]")
    browser.do("DOM.setFileInputFiles", files=[str(path)], nodeId=field["nodeId"])
    browser.until("return document.querySelector('#review .said').innerText !== ''")


def test_what_the_store_holds_is_shown_and_not_asked_for_or_saved_again(browser, data, tmp_path):
    known = Verdict(key=data.key[7], verdict="relabel", label="ship", by="Grace", at="2026-01-02T03:04:05Z")
    browser.open(written(tmp_path / "report.html", made_page(count=60, verdicts=[known])))
    browser.choose("verdict", "relabel")
    assert browser.text("#list .row .verdict") == "→ ship"
    browser.click("#list .row")
    assert "Relabelled as ship by Grace, 2026-01-02 03:04 UTC." in browser.text("#detail")
    browser.click("#start")
    assert browser.text("#review .done") == "Every image of this view has a verdict."
    assert browser.js("return document.querySelector('#review footer button').disabled")


class Server(ThreadingHTTPServer):
    """Serves one page as `review serve` does. refusing: it answers 503 to these verdicts."""

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.page, self.told, self.refusing, self.images = b"".join(render(data)), [], (), data.thumbnails
        self.held = [{"key": data.key[0], "verdict": "drop", "by": "Grace", "at": "2026-01-02T03:04:05Z"}]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.removeprefix("/token/")
        if path == "api/verdicts":
            self.answer(200, json.dumps({"verdicts": self.server.held}).encode(), "application/json")
        elif path.startswith("image/"):
            self.answer(200, self.server.images[int(path.removeprefix("image/"))], "image/jpeg")
        else:
            self.answer(200, self.server.page, "text/html; charset=utf-8")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if json.loads(body)["verdict"] in self.server.refusing:
            return self.answer(503, b"the disk is full", "text/plain")
        assert self.path == "/token/api/verdict"
        self.server.told.append(json.loads(body))
        return self.answer(200, b"{}", "application/json")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(browser, data):
    server = Server(data)
    browser.open(f"http://127.0.0.1:{server.server_port}/token/")
    yield server
    browser.driver.get("about:blank")
    server.shutdown()
    server.server_close()


def test_a_server_is_told_every_verdict_at_once_in_order_and_undone_ones_as_skipped(browser, data, served):
    assert browser.errors() == []
    browser.click("#start")
    assert browser.text("#review .count").startswith("0 of 59")  # the store holds one
    browser.until("return document.querySelector('#review img.large')?.src.includes('/token/image/')")
    first = browser.text(SHOWN)
    browser.press("d")
    second = browser.text(SHOWN)
    browser.press("r", *"ship", "Enter")
    browser.press("u")
    browser.until("return document.querySelector('#review .about .verdict')?.innerText.startsWith('Skipped')")
    browser.until("return document.querySelector('#review .alert').hidden")
    wait_for(served, 3)
    assert [(one["key"], one["verdict"], one.get("label")) for one in served.told] == [
        (first, "drop", None),
        (second, "relabel", "ship"),
        (second, "skip", None),
    ]
    row = data.key.index(first)
    assert served.told[0]["digest"] == data.digest_N[row].tobytes().hex()
    assert set(served.told[0]) <= {"key", "digest", "given", "verdict", "at", "by"}


def test_a_server_that_fails_is_told_of_plainly_and_gets_the_verdicts_later(browser, served):
    browser.click("#start")
    served.refusing = ("keep", "drop")
    browser.press("d")
    browser.until("return !document.querySelector('#review .alert').hidden")
    browser.press("k")
    browser.until("return document.querySelector('#review .alert').innerText.startsWith('2 verdicts are not saved')")
    assert "503: the disk is full" in browser.text("#review .alert")
    assert len(saved(browser)["verdicts"]) == 2
    served.refusing = ()
    browser.open(f"http://127.0.0.1:{served.server_port}/token/", forget=False)  # the tab was closed meanwhile
    wait_for(served, 2)
    assert sorted(one["verdict"] for one in served.told) == ["drop", "keep"]
    browser.click("#start")
    assert browser.js("return document.querySelector('#review .alert').hidden")


def test_a_verdict_that_the_server_refuses_holds_up_no_other(browser, served):
    browser.click("#start")
    served.refusing = ("drop",)
    browser.press("d", "k", "s")
    wait_for(served, 2)
    assert [one["verdict"] for one in served.told] == ["keep", "skip"]
    browser.until("return document.querySelector('#review .alert').innerText.startsWith('1 verdict is not saved')")


def wait_for(served, count) -> None:
    wait(lambda: len(served.told) >= count, 30, f"{count} verdicts at the server")
