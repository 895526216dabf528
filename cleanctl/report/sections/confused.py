"""Which label is mistaken for which: the matrix, and the most confused pairs with their images."""

from __future__ import annotations

from cleanctl.report import svg
from cleanctl.report.confusion import ConfusionView, Pair
from cleanctl.report.page.record import Section
from cleanctl.report.sections.images import Shelf
from cleanctl.report.text import count, in_address, paragraph, shown


def confusion(view: ConfusionView, shelf: Shelf) -> Section | None:
    """None where no pair was found."""
    if not view.pairs:
        return None
    classes = shelf.snapshot.classes
    names = [classes[place] for place in view.places]
    html = paragraph(
        "Labels as given (rows) against what they likely are (columns), in per cent of the given class, as estimated "
        f"from the evidence of {shown(shelf.snapshot.summary.get('evidence', 'the scores'))}."
    )
    if len(names) < len(classes):
        html += paragraph(f"Shown are the {len(names)} of {len(classes)} classes that are confused most.", note=True)
    pictures = svg.matrix(
        "given against likely class", names, view.share_SS, row_title="given label", column_title="likely class"
    )
    if view.transition_SS is not None:
        pictures += svg.matrix(
            "transition matrix", names, view.transition_SS, row_title="true class", column_title="given label"
        )
        html += paragraph(
            "The second matrix is joint's transition matrix: of a true class, the share that is labelled so."
        )
    html += f'<div class="charts">{pictures}</div>\n'
    return Section(id="confusion", title="Confused classes", html=html, wide=view.transition_SS is not None)


def pairs(view: ConfusionView, shelf: Shelf) -> Section | None:
    """A strip of images for each of the most confused pairs: the surest rows of it."""
    shown_pairs = [pair for pair in view.pairs if pair.rows]
    if not shown_pairs:
        return None
    html = f'<div class="pairs">{"".join(_pair(pair, shelf) for pair in shown_pairs)}</div>\n'
    return Section(id="pairs", title="Confused pairs", html=html, wide=True)


def _pair(pair: Pair, shelf: Shelf) -> str:
    given, likely = (shelf.snapshot.classes[place] for place in (pair.given, pair.likely))
    where = f"class={in_address(given)}&amp;suggested={in_address(likely)}"
    return (
        f'<div><h3>Labelled {shown(given)}, likely {shown(likely)}: <a href="#table?{where}">about '
        f"{count(pair.samples)}</a></h3>\n{shelf.strip(pair.rows)}</div>\n"
    )
