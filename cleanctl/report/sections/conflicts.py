"""Copies and contradictions that `cleanctl conflicts` found: how many of each kind, and groups with their images."""

from __future__ import annotations

from collections import Counter

from cleanctl.conflicts.read import ConflictGroup, StoredConflicts
from cleanctl.report.page.record import Section
from cleanctl.report.sections.images import Shelf
from cleanctl.report.text import count, paragraph, shown, table

GROUPS, ROWS_A_GROUP = 24, 9
WORDS = {
    "exact": "the same bytes",
    "near": "nearly the same image",
    "label": "different labels",
    "placeholder": "one image under many labels, such as “image unavailable”",
}


def shown_groups(found: StoredConflicts) -> list[ConflictGroup]:
    """Those to look at: of different labels and placeholders first, then leaks, then the largest."""

    def order(one: ConflictGroup) -> tuple[bool, bool, int]:
        leaks = any(kind.startswith("leak:") for kind in one.kinds)
        return "label" not in one.kinds and "placeholder" not in one.kinds, not leaks, -len(one.row_K)

    return sorted(found.groups, key=order)[:GROUPS]


def rows_of(found: StoredConflicts) -> list[int]:
    """Rows whose images the section shows."""
    return [row for one in shown_groups(found) for row in one.row_K[:ROWS_A_GROUP].tolist()]


def conflicts(found: StoredConflicts, shelf: Shelf) -> Section:
    """None of the groups is left out of the counts; the first GROUPS of them are shown."""
    samples = sum(len(one.row_K) for one in found.groups)
    html = paragraph(
        f"{count(len(found.groups))} groups of copies with {count(samples)} samples"
        f"{f', compared by {shown(found.compared_by)}' if found.compared_by else ''}."
    )
    if found.outdated:
        html += paragraph(
            f"Looked for before a change: {shown(found.outdated)}. Run cleanctl conflicts again.", note=True
        )
    kinds = Counter(kind for one in found.groups for kind in one.kinds)
    html += table(
        ["groups with", "groups"], [[_kind(kind), count(number)] for kind, number in kinds.most_common()], numbers=(1,)
    )
    first = shown_groups(found)
    if len(first) < len(found.groups):
        html += paragraph(f"Shown are {len(first)} groups: different labels first, then copies in other splits.")
    html += "".join(_group(one, shelf) for one in first)
    return Section(id="conflicts", title="Conflicts", html=html, wide=True)


def _kind(kind: str) -> str:
    _, mark, split = kind.partition("leak:")
    return f"copies in the split {shown(split)}" if mark else shown(WORDS.get(kind, kind))


def _group(one: ConflictGroup, shelf: Shelf) -> str:
    rows = one.row_K[:ROWS_A_GROUP].tolist()
    said = "; ".join(map(_kind, one.kinds))
    more = f", {count(len(one.row_K) - len(rows))} more" if len(one.row_K) > len(rows) else ""
    there = "".join(
        paragraph(
            f"{shown(shelf.snapshot.keys[leak.row])} is {shown(leak.other_key)} of {shown(leak.split)}, labelled "
            f"{shown(shelf.snapshot.classes[leak.other_label])} there."
        )
        for leak in one.leaks[:3]
    )
    return f"<h3>{count(len(one.row_K))} samples: {said}{more}</h3>\n{shelf.grid(rows)}{there}"
