"""The report's page in a real Chromium: its size, how long it takes to open, and what a keystroke in its filters costs.

    python -m bench.page [--rows 100000,1000000] [--runs 5] [--out FILE]

Made-up columns of a report with two rules (the tests' `made_page`), no thumbnails, opened from file:// in Debian's
chromium. A keystroke: a character more in the text filter until the list, laid out, shows what fits; other filters and
the score range the same. Milliseconds by the browser's own clock: median, and the slowest. `keystroke cpu` is what the
page's thread computes for one, which depends less on what else the machine does. `sort first` computes an order, `sort
again` uses it; `csv` makes the whole table's file. `open` is from navigation to a table that can be used.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import report

TESTS = Path(__file__).resolve().parent.parent / "tests" / "page"
WORDS = ("dog/0001", "automobile/", ".jpg", "nothing like it")
# One change of a field, until the list is laid out; in milliseconds.
CHANGE = """const [name, value] = arguments;
    const field = document.querySelector(`#filters [name="${name}"]`);
    field.value = value;
    const start = performance.now();
    field.dispatchEvent(new Event("input", { bubbles: true }));
    document.getElementById("list").getBoundingClientRect();
    return performance.now() - start"""
CLICK = """const start = performance.now();
    document.querySelector(arguments[0]).click();
    document.getElementById("list").getBoundingClientRect();
    return performance.now() - start"""
OPENED = "return performance.now()"
# All words, a character more each time, without a pause; how many changes these were.
TYPE = """const field = document.querySelector('#filters [name="q"]');
    let changes = 0;
    for (const word of arguments[0]) for (let end = 0; end <= word.length; end++, changes++) {
        field.value = word.slice(0, end);
        field.dispatchEvent(new Event("input", { bubbles: true }));
        document.getElementById("list").getBoundingClientRect();
    }
    return changes"""


def main() -> None:
    options = _options()
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        sys.exit("This bench drives chromium and chromedriver (Debian: chromium, chromium-driver), and finds neither.")
    sys.path.insert(0, str(TESTS))
    from browser import Browser

    with tempfile.TemporaryDirectory() as folder:
        downloads = Path(folder) / "downloads"
        downloads.mkdir()
        browser = Browser(*programs, downloads)
        browser.driver.set_script_timeout(300)
        version = browser.driver.capabilities["browserVersion"]
        try:
            rows = [_measure(browser, int(count), Path(folder), options.runs) for count in options.rows.split(",")]
        finally:
            browser.quit()
    report("page", rows, out=options.out, chromium=version)


def _measure(browser: Any, count: int, folder: Path, runs: int) -> dict[str, Any]:
    from browser import written
    from made_page import made_page

    data = made_page(count=count, images=0)
    start = time.perf_counter()
    path = written(folder / "report.html", data)
    rendered = time.perf_counter() - start
    browser.open(path)
    # To the answer of the first question after the page said that it is ready: a few milliseconds too many.
    opened = browser.js(OPENED)
    keystrokes: list[float] = []
    filters: list[float] = []
    for _ in range(runs):
        for word in WORDS:
            keystrokes += [browser.js(CHANGE, "q", word[:end]) for end in range(1, len(word) + 1)]
            browser.js(CHANGE, "q", "")
        for name, value in (("class", "dog"), ("kept", "no"), ("rule", "~"), ("max", "0.2"), ("max", "0.25")):
            filters.append(browser.js(CHANGE, name, value))
        browser.js(CLICK, "#filters [type='reset']")
    before = _thread_seconds(browser)
    changes = browser.js(TYPE, list(WORDS))
    cpu_ms = 1000 * (_thread_seconds(browser) - before) / changes
    browser.js(CHANGE, "q", "")
    first, again = [], []
    for name in ("p_label", "suggested", "zeroshot.loss", "key"):
        first.append(browser.js(CHANGE, "sort", name))
        browser.js(CHANGE, "sort", "")
        again.append(browser.js(CHANGE, "sort", name))
    return {
        "rows": count,
        "MB": path.stat().st_size / 1e6,
        "render s": rendered,
        "open ms": opened,
        "keystroke ms": statistics.median(keystrokes),
        "slowest": max(keystrokes),
        "keystroke cpu ms": cpu_ms,
        "filter ms": statistics.median(filters),
        "slowest filter": max(filters),
        "sort first ms": max(first),
        "sort again ms": statistics.median(again),
        "csv ms": browser.js(CLICK, "#export"),
        "n": len(keystrokes),
    }


def _thread_seconds(browser: Any) -> float:
    """Processor time of the page's main thread so far."""
    browser.do("Performance.enable")
    return {one["name"]: one["value"] for one in browser.do("Performance.getMetrics")["metrics"]}["ThreadTime"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000", help="row counts, joined by commas")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
