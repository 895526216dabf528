"""What `render` writes: one file whose columns hold what the record held, and in which no name becomes markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_page import made_page

import cleanctl.report.page
from cleanctl.report.page import Section, render
from cleanctl.report.page.columns import floats, integers
from cleanctl.report.page.render import SCRIPTS, STYLES

ASSETS = sorted((Path(cleanctl.report.page.__file__).parent / "assets").iterdir())
HOSTILE = "</script><script>alert(1)</script>"


def page_text(data) -> str:
    return b"".join(render(data)).decode()


def column(text: str, name: str) -> bytes:
    found = re.search(rf'id="column-{re.escape(name)}">([^<]*)<', text)
    return gzip.decompress(base64.b64decode(found[1]))


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict]]:
    parser = Tags()
    parser.feed(text)
    return parser.found


def test_columns_hold_what_the_record_held():
    data = made_page(count=1000)
    text = page_text(data)
    assert json.loads(column(text, "key")) == data.key
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])
    assert facts["columns"]["label"] == {"kind": "numbers", "type": "i8"}
    np.testing.assert_array_equal(np.frombuffer(column(text, "label"), np.int8), data.label_N)
    kept_N = np.unpackbits(np.frombuffer(column(text, "keep"), np.uint8), count=1000, bitorder="little")
    np.testing.assert_array_equal(kept_N, data.keep_N)
    planes = np.frombuffer(column(text, "p_label"), np.uint8).reshape(4, 1000)
    p_label_N = np.ascontiguousarray(planes.T).view("<f4")[:, 0]
    np.testing.assert_allclose(p_label_N, data.p_label_N, rtol=1 / 8000)


def test_rounded_floats_stay_finite_and_keep_what_is_no_number():
    values_N = np.array([0, -0.0, 1, np.pi, np.finfo("f4").max, np.finfo("f4").tiny, np.nan, np.inf, -np.inf], "f4")
    spec, text = floats(values_N)
    planes = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8).reshape(4, -1)
    read_N = np.ascontiguousarray(planes.T).view("<f4")[:, 0]
    assert spec["type"] == "f32"
    np.testing.assert_allclose(read_N, values_N, rtol=1 / 8000)


@pytest.mark.parametrize(("top", "kind"), [(127, "i8"), (128, "i16"), (32_767, "i16"), (32_768, "i32")])
def test_integers_take_the_bytes_that_they_need(top, kind):
    spec, _ = integers(np.array([-1, top]))
    assert spec["type"] == kind


def test_names_never_become_markup():
    data = made_page(count=2, title=HOSTILE, classes=[HOSTILE] * 10, key=[HOSTILE, "<!--<script>"], made=HOSTILE)
    found = tags(page_text(data))
    assert [attributes for tag, attributes in found if tag == "script" and attributes.get("type") == "module"] == [
        {"type": "module"}
    ]
    assert all(attributes.get("id") for tag, attributes in found if tag == "script" and "module" not in str(attributes))
    assert json.loads(column(page_text(data), "key")) == [HOSTILE, "<!--<script>"]


def test_the_policy_allows_the_one_script_and_nothing_from_elsewhere():
    text = page_text(made_page(count=3))
    policy = next(attributes["content"] for tag, attributes in tags(text) if "http-equiv" in attributes)
    script = text.split('<script type="module">')[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy.replace("http-equiv", "")
    loaded = [attributes for _, attributes in tags(text) for name in ("src", "href") if name in attributes]
    assert all(attributes.get("href", "").startswith(("#", "data:,")) for attributes in loaded)


def test_equal_records_give_equal_bytes():
    assert page_text(made_page(count=50)) == page_text(made_page(count=50))


def test_thumbnails_come_back_byte_for_byte():
    data = made_page(count=10, images=5)
    text = page_text(data)
    blob = base64.b64decode(re.search(r'id="thumbnails">([^<]*)<', text)[1], validate=True)
    assert blob == b"".join(data.thumbnails.values())


def test_a_section_has_an_id_that_a_fragment_can_name():
    with pytest.raises(AssertionError, match="not an id"):
        page_text(made_page(count=3, before=[Section(id='x" onload="', title="x", html="")]))


def test_columns_of_another_length_are_refused():
    with pytest.raises(AssertionError, match="3 keys, 2 values of label_N"):
        made_page(count=3, label_N=np.zeros(2, int))


@pytest.mark.parametrize("path", ASSETS, ids=lambda path: path.name)
def test_scripts_and_styles_stay_readable_and_each_is_used(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 150 if path.suffix == ".html" else max(map(len, lines)) <= 120
    assert lines[0].startswith(("//", "/*", "<!doctype"))  # says what it is for
    assert path.name in (*STYLES, *SCRIPTS, "template.html")


def test_scripts_are_joined_in_the_order_of_their_imports():
    folder = ASSETS[0].parent
    for place, name in enumerate(SCRIPTS):
        imported = re.findall(r'^import [^;]* from "./([^"]+)";', (folder / name).read_text(), re.MULTILINE)
        assert set(imported) <= set(SCRIPTS[:place]), name
