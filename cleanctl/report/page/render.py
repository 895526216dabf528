"""`PageData` to one HTML file, in pieces: the template, its style and script inlined, then columns and thumbnails.

The file asks for nothing: its content policy allows its one script by digest, images from the file itself, beside it
and from the server that it came from. Everything that names or keys can say goes in as JSON or escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import accumulate
from typing import Any

import numpy as np

from cleanctl.report.page import columns
from cleanctl.report.page.columns import Encoded
from cleanctl.report.page.record import PageData, Rule, Section, Verdict

STYLES = ("base.css", "sections.css", "table.css", "panes.css")
# In the order of their imports: they become one module, so that a name is given once in all of them.
SCRIPTS = (
    "elements.js", "columns.js", "model.js", "images.js", "sorting.js", "filters.js", "address.js", "words.js",
    "csv.js", "list.js", "detail.js", "verdicts.js", "chooser.js", "review.js", "controls.js", "main.js",
)  # fmt: skip
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async function|function|const|let|class)", re.MULTILINE)
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def render(data: PageData) -> Iterator[bytes]:
    """The HTML file as UTF-8 pieces of at most a few megabytes each; the same record gives the same bytes."""
    script = _script()
    values = {
        "title": html.escape(data.title),
        "subtitle": html.escape(data.subtitle),
        "made": html.escape(data.made),
        "policy": _policy(script),
        "style": "".join(_asset(name) for name in STYLES),
        "script": script,
        "before": "".join(map(_section, data.before)),
        "after": "".join(map(_section, data.after)),
        "contents": "".join(map(_link, [*data.before, Section(id="table", title="Images", html=""), *data.after])),
    }
    for number, part in enumerate(_SLOT.split(_asset("template.html"))):
        if number % 2 == 0:
            yield part.encode()
        elif part == "data":
            yield from (piece.encode() for piece in _data(data))
        else:
            yield values[part].encode("utf-8", "replace")


def _asset(name: str) -> str:
    return (files("cleanctl.report.page") / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    return "\n" + "".join(_EXPORT.sub("", _IMPORT.sub("", _asset(name))) for name in SCRIPTS)


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _section(section: Section) -> str:
    assert re.fullmatch(r"[A-Za-z0-9-]+", section.id), f"not an id: {section.id!r}"
    wide = ' class="wide"' if section.wide else ""
    head = f'<h2 id="{section.id}-title">{html.escape(section.title)}</h2>'
    return f'<section id="{section.id}"{wide} aria-labelledby="{section.id}-title">{head}\n{section.html}</section>\n'


def _link(section: Section) -> str:
    return f'<a href="#{section.id}">{html.escape(section.title)}</a>\n'


def _data(data: PageData) -> Iterator[str]:
    encoded = dict(_columns(data))
    facts = {**_facts(data), "columns": {name: spec for name, (spec, _) in encoded.items()}}
    yield _element("facts", "application/json", _json(facts))
    for name, (_, text) in encoded.items():
        yield _element(f"column-{name}", "text/plain", text)
    if data.thumbnails:
        yield '<script type="text/plain" id="thumbnails">'
        yield from _base64(list(data.thumbnails.values()))
        yield "</script>\n"


def _element(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{html.escape(name)}">{text}</script>\n'


def _json(value: Any) -> str:
    """JSON that no HTML parser takes for a tag or a comment, whatever a name holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _base64(parts: Sequence[bytes]) -> Iterator[str]:
    """One base64 text of all parts; a piece ends at a multiple of three bytes, so that no padding falls inside."""
    rest = b""
    for part in parts:
        rest += part
        cut = len(rest) - len(rest) % 3
        yield base64.b64encode(rest[:cut]).decode()
        rest = rest[cut:]
    yield base64.b64encode(rest).decode()


def _facts(data: PageData) -> dict[str, Any]:
    sizes = [len(thumbnail) for thumbnail in data.thumbnails.values()]
    return {
        "title": data.title,
        "store": data.store,
        "split": data.split,
        "selection": data.selection,
        "count": len(data),
        "rows_in_split": data.rows_in_split or len(data),
        "classes": list(data.classes),
        "rules": [_rule(rule, data) for rule in data.rules],
        "thumbnails": {"row": [int(row) for row in data.thumbnails], "end": list(accumulate(sizes))},
        "image_folder": data.image_folder,
        "verdicts": [_verdict(verdict) for verdict in data.verdicts],
    }


def _rule(rule: Rule, data: PageData) -> dict[str, Any]:
    cut: Any = rule.cut
    if isinstance(cut, np.ndarray):
        assert len(cut) == len(data.classes), f"{rule.name}: a cut a class"
        cut = [_number(value) for value in cut]
    return {
        "name": rule.name,
        "criterion": rule.criterion,
        "cut": cut if cut is None or isinstance(cut, list) else _number(cut),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {name: value for name in Verdict.__dataclass_fields__ if (value := getattr(verdict, name)) is not None}


def _columns(data: PageData) -> Iterator[tuple[str, Encoded]]:
    yield "key", columns.strings(data.key)
    integers = {"label": data.label_N, "suggested": data.suggested_N, "truth": data.truth_N}
    integers |= {"group": data.group_N, "row": data.row_N}
    floats = {"p_label": data.p_label_N, "p_max": data.p_max_N, "gain": data.gain_N}
    flags = {"keep": data.keep_N, "failed": data.failed_N}
    for number, rule in enumerate(data.rules):
        floats[f"rule{number}.score"] = rule.score_N
        flags[f"rule{number}.keep"] = rule.keep_N
    yield from ((name, columns.integers(values)) for name, values in integers.items() if values is not None)
    yield from ((name, columns.floats(values)) for name, values in floats.items() if values is not None)
    yield from ((name, columns.flags(values)) for name, values in flags.items() if values is not None)
    if data.reason is not None:
        yield "reason", columns.categories(data.reason)
    if data.digest_N is not None:
        yield "digest", columns.hexes(data.digest_N)
