"""Images of rows in galleries and strips: what was given, what is likely, and why, below each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cleanctl.report.evidence import Evidence, sentence
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.text import decimal, shown


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What every gallery needs. with_images: rows whose image is in the page; others are shown by their keys."""

    snapshot: Snapshot
    evidence: tuple[Evidence, ...]
    with_images: frozenset[int]

    def grid(self, rows: Iterable[int]) -> str:
        """A gallery of figures, each with the label, the likely class, and its evidence as a tooltip and for screen
        readers."""
        return f'<div class="grid">{"".join(map(self._figure, rows))}</div>\n'

    def strip(self, rows: Iterable[int]) -> str:
        return f'<div class="strip">{"".join(map(self._button, rows))}</div>\n'

    def _figure(self, row: int) -> str:
        return f"<figure>{self._button(row)}<figcaption>{self._caption(row)}</figcaption></figure>\n"

    def _button(self, row: int) -> str:
        snapshot = self.snapshot
        why = shown(sentence(snapshot, self.evidence, row))
        name = shown(snapshot.keys[row])
        given = shown(snapshot.classes[int(snapshot.label_N[row])])
        inside = f'<img data-row="{row}" alt="">' if row in self.with_images else f'<span class="key">{name}</span>'
        return (
            f'<button type="button" data-row="{row}" title="{name}&#10;{why}" '
            f'aria-label="{name}, labelled {given}">{inside}</button>'
        )

    def _caption(self, row: int) -> str:
        """`given → likely`, with their probabilities; struck out where the label was dropped."""
        snapshot, selection = self.snapshot, self.snapshot.selection
        given = shown(snapshot.classes[int(snapshot.label_N[row])])
        likely = int(selection.suggested[row])
        p_label, p_max = decimal(float(selection.p_label[row]), 2), decimal(float(selection.p_max[row]), 2)
        word = f"<b>{given}</b>" if selection.keep[row] else f"<s>{given}</s>"
        if likely < 0 or likely == int(snapshot.label_N[row]):
            return f"{word} <small>{p_label}</small>"
        return f"{word} <small>{p_label}</small> → {shown(snapshot.classes[likely])} <small>{p_max}</small>"
