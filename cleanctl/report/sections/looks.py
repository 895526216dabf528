"""Galleries: rows to look at, each with a reason."""

from __future__ import annotations

from cleanctl.report.changes import Changes
from cleanctl.report.galleries import Gallery
from cleanctl.report.page.record import Section
from cleanctl.report.sections.images import Shelf
from cleanctl.report.text import count, paragraph, shown, table


def gallery(one: Gallery, shelf: Shelf) -> Section:
    said = f"{shown(one.about)} Shown are {count(len(one.rows))} of {count(one.of)}."
    return Section(id=one.id, title=one.title, html=paragraph(said) + shelf.grid(one.rows), wide=True)


def changes(found: Changes, shelf: Shelf) -> Section:
    """What another selection decides otherwise: why, in which classes, with images."""
    diff = found.diff
    first, second = shown(diff.first), shown(diff.second)
    html = paragraph(
        f"<b>{first}</b> keeps {count(diff.both + diff.only_first)}, <b>{second}</b> "
        f"{count(diff.both + diff.only_second)} of {count(diff.count)}; they differ in "
        f"{count(diff.only_first + diff.only_second)}: {count(diff.only_first)} only in {first}, "
        f"{count(diff.only_second)} only in {second}. Each of these has one reason."
    )
    html += "".join(paragraph(shown(note), note=True) for note in diff.notes)
    names = {"first": first, "second": second}
    if diff.reasons:
        html += '<div class="charts">'
        html += table(
            ["dropped by", "because", "samples"],
            [[names[one.dropped_by], shown(one.reason), count(one.samples)] for one in diff.reasons],
            numbers=(2,),
        )
        html += table(
            ["class", f"only {first}", f"only {second}"],
            [[shown(one.name), count(one.only_first), count(one.only_second)] for one in diff.classes],
            numbers=(1, 2),
        )
        html += "</div>\n"
    for dropped_by, reason, samples, rows in found.examples:
        html += f"<h3>Dropped by {names[dropped_by]}, {shown(reason)}: {count(samples)}</h3>\n{shelf.grid(rows)}"
    return Section(id="changes", title="Changes", html=html, wide=True)
