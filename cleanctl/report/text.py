"""Numbers, names and pieces of HTML as the page shows them. Everything that a dataset can name goes through `shown`."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from urllib.parse import quote


def shown(name: object) -> str:
    """Any text as safe HTML: markup escaped, control characters and lone surrogates written out (`\\x1b`)."""
    text = str(name)
    if not text.isprintable():
        text = "".join(one if one.isprintable() else _written_out(one) for one in text)
    return html.escape(text, quote=True)


def _written_out(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65_536 else f"\\U{code:08x}"


def in_address(name: str) -> str:
    """A name as a value in the page's fragment, whatever it holds."""
    return quote(name.encode("utf-8", "surrogatepass"), safe="")


def count(number: float) -> str:
    return f"{number:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as per cent, a dash where it is not known."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number to so many digits after the point; tiny ones as powers of ten, a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.5 * 10**-digits:
        return f"{value:.0e}"
    return f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of ready cells; the columns in `numbers` are set right. It scrolls sideways where it is too wide."""
    kinds = [' class="n"' if place in numbers else "" for place in range(len(head))]
    names = "".join(f'<th scope="col"{kind}>{name}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>\n{body}\n</tbody></table></div>\n'


def numbers(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Big numbers: (value, what it is, a remark or nothing)."""
    said = "".join(
        f"<div><dt>{title}</dt><dd>{value}{f'<small>{remark}</small>' if remark else ''}</dd></div>"
        for value, title, remark in pairs
    )
    return f'<dl class="numbers">{said}</dl>\n'


def paragraph(text: str, *, note: bool = False) -> str:
    return f'<p class="note">{text}</p>\n' if note else f"<p>{text}</p>\n"
