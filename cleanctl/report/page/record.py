"""What the page shows: one frozen record, columns of N rows, ready sections, thumbnails.

N rows of the page, C classes. A row of the page is a place in these columns; a *store row* is its number in the split,
which thumbnails, images and the HTML of sections go by. Text is plain text everywhere but in `Section.html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule's evidence. Higher scores are cleaner, unless the name says `~`: then what the rule holds of is dropped.

    score_N: float, NaN where there is none. keep_N: bool. cut: the score from which the rule keeps, one for all or
    (C,) by given class (NaN: none), None where no cut of the score decides. criterion: the condition in words, which
    completes "keeps labels whose …", e.g. "clean posterior of the loss is at least 0.5".
    """

    name: str
    score_N: np.ndarray
    keep_N: np.ndarray
    cut: float | np.ndarray | None = None
    criterion: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page beside the table. id: of letters, digits and hyphens, the fragment that leads to it.

    html: ready and safe; every name in it is escaped by who made it. The page fills in and wires up:

        <img data-row="17">      the image of store row 17: thumbnail, or from the side folder or the server
        <button data-row="17">   opens the details of row 17, if the page has that row
        <a href="#table?class=cat&suggested=dog&kept=no&sort=p_label">   the table so filtered (docs/report-page.md)

    Scripts and handlers in it do not run. wide: spans both columns of a wide window. Classes that the stylesheet knows:
    `strip` (a row of thumbnails), `grid` (a gallery), `numbers` (a definition list of big numbers), `scroll` (around
    wide tables), `note`; a `table` is styled as it is, cells of numbers by the class `n`; SVG takes its colours from
    the CSS variables --text --muted --line --accent --keep --drop, or from the classes `ink` `muted` `line` `accent`
    `keep` `drop`, which set `color`: fill and stroke with currentColor.
    """

    id: str
    title: str
    html: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A person's decision that the store holds already. verdict: keep, drop, relabel (to `label`) or skip."""

    key: str
    verdict: str
    digest: str | None = None
    given: str = ""
    label: str | None = None
    by: str = ""
    at: str = ""


@dataclass(frozen=True, kw_only=True)
class PageData:
    """Everything that one page shows.

    store: the split's dataset fingerprint. selection: its name, None without one. key: distinct strings. label_N: int,
    0…C-1. suggested_N: int, -1 for none. p_label_N, p_max_N: float, NaN for none. failed_N: bool, images that could
    not be read; reason: why, "" for the others. truth_N: int, -1 unknown, -2 known to be wrong. digest_N: (N, 8)
    uint8, the first bytes of the content digest, all zero for none. gain_N: float, what a look at the row is expected
    to bring; review goes by it from high to low. group_N: int, conflict group, -1 for none. row_N: int, store rows,
    None where the page holds all of them in order. rows_in_split: where the page holds a sample, of how many.
    thumbnails: JPEG files by store row. image_folder: path relative to the page, of JPEG files named <store row>.jpg.
    verdicts: what the store holds. before, after: sections around the table, in order. made: one line on what made it.
    """

    title: str
    subtitle: str = ""
    made: str = ""
    store: str
    split: str
    selection: str | None = None
    classes: Sequence[str]
    key: Sequence[str]
    label_N: np.ndarray
    keep_N: np.ndarray | None = None
    suggested_N: np.ndarray | None = None
    p_label_N: np.ndarray | None = None
    p_max_N: np.ndarray | None = None
    rules: Sequence[Rule] = ()
    failed_N: np.ndarray | None = None
    reason: Sequence[str] | None = None
    truth_N: np.ndarray | None = None
    digest_N: np.ndarray | None = None
    gain_N: np.ndarray | None = None
    group_N: np.ndarray | None = None
    row_N: np.ndarray | None = None
    rows_in_split: int | None = None
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)
    image_folder: str | None = None
    verdicts: Sequence[Verdict] = ()
    before: Sequence[Section] = ()
    after: Sequence[Section] = ()

    def __post_init__(self) -> None:
        count = len(self.key)
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_N")}
        columns |= {f"{rule.name}.{name}": getattr(rule, name) for rule in self.rules for name in ("score_N", "keep_N")}
        columns["reason"] = self.reason
        for name, column in columns.items():
            assert column is None or len(column) == count, f"{count} keys, {len(column)} values of {name}"

    def __len__(self) -> int:
        return len(self.key)
