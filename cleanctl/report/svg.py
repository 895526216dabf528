"""Charts as SVG text, without a library: histograms, lines, bars, matrices.

Colours are the page's: the classes `ink`, `muted`, `line`, `accent`, `keep` and `drop` set `color`, and shapes are
filled with currentColor, so a chart follows the page into the dark. Nothing is told by colour alone: what is kept is
solid and what is dropped is pale with an outline, lines differ in their dashes and carry their names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cleanctl.report.text import count, percent, shown

DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4", "12 4", "4 2 1 2 1 2", "6 6")
FONT = 11  # pixels; charts are drawn at the size they are shown

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A plot's place in its picture, and the ranges of its axes. Pixels from the top left."""

    width: float
    height: float
    left: float = 8
    right: float = 8
    top: float = 16
    bottom: float = 30
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def at_x(self, value: Number) -> Number:
        low, high = self.x
        return self.left + (self.width - self.left - self.right) * (value - low) / ((high - low) or 1.0)

    def at_y(self, value: Number) -> Number:
        low, high = self.y
        return (
            self.height - self.bottom - (self.height - self.top - self.bottom) * (value - low) / ((high - low) or 1.0)
        )

    def path(self, x_P: np.ndarray, y_P: np.ndarray) -> str:
        """A line through finite points, cut at the frame's top and floor."""
        finite = np.isfinite(y_P)
        left, top = self.at_x(0.0), self.at_y(0.0)
        at_x_P = left + (self.at_x(1.0) - left) * x_P[finite]
        at_y_P = top + (self.at_y(1.0) - top) * np.clip(y_P[finite], *self.y)
        points = [f"{x:.1f} {y:.1f}" for x, y in zip(at_x_P.tolist(), at_y_P.tolist(), strict=True)]
        return "M" + "L".join(points) if points else ""


def picture(frame: Frame, title: str, body: str) -> str:
    """An <svg> that scales down on a narrow page and tells a screen reader what it shows."""
    return (
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" width="{frame.width:g}" height="{frame.height:g}" '
        f'style="max-width:100%;height:auto" role="img" aria-label="{shown(title)}" font-size="{FONT}">{body}</svg>\n'
    )


def label(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "muted", weight: str = "") -> str:
    """Words at a place; they are escaped here."""
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor"{bold}>'
        f"{shown(words)}</text>"
    )


def rule_line(x1: float, y1: float, x2: float, y2: float, *, kind: str = "line", dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" fill="none" stroke="currentColor"{dashes}/>'


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that span [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(one * scale for one in (1, 2, 2.5, 5, 10) if one * scale >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


# ---- histograms


def stacked_histogram(
    frame: Frame, edge_B: np.ndarray, kept_B: np.ndarray, dropped_B: np.ndarray, *, cuts: Sequence[float] = ()
) -> str:
    """Counts by bin, dropped on kept; a dashed upright line at each cut."""
    kept = _steps(frame, edge_B, np.zeros(len(kept_B)), kept_B)
    dropped = _steps(frame, edge_B, kept_B, kept_B + dropped_B)
    base = frame.at_y(frame.y[0])
    lines = [rule_line(frame.left, base, frame.width - frame.right, base)]
    lines += [rule_line(frame.at_x(cut), frame.top - 4, frame.at_x(cut), base, kind="ink", dash="4 3") for cut in cuts]
    return (
        f'<path class="keep" d="{kept}" fill="currentColor" fill-opacity=".75"/>'
        f'<path class="drop" d="{dropped}" fill="currentColor" fill-opacity=".22" stroke="currentColor" '
        'stroke-width=".8"/>' + "".join(lines)
    )


def _steps(frame: Frame, edge_B: np.ndarray, low_B: np.ndarray, high_B: np.ndarray) -> str:
    """Boxes from low to high where there is anything, neighbours joined into one outline."""
    x_E = [f"{x:.1f}" for x in frame.at_x(edge_B).tolist()]
    bottom_B, top_B = ([f"{y:.1f}" for y in frame.at_y(one_B).tolist()] for one_B in (low_B, high_B))
    path = []
    change = np.diff(high_B > low_B, prepend=False, append=False)
    for first, end in np.flatnonzero(change).reshape(-1, 2).tolist():
        forth, back = [], []
        for place in range(first, end):
            x1, x2 = x_E[place], x_E[place + 1]
            forth += [f"{x1} {top_B[place]}", f"{x2} {top_B[place]}"]
            back += [f"{x1} {bottom_B[place]}", f"{x2} {bottom_B[place]}"]
        path.append("M" + "L".join(forth + back[::-1]) + "Z")
    return "".join(path)


def score_histogram(
    title: str,
    edge_B: np.ndarray,
    kept_B: np.ndarray,
    dropped_B: np.ndarray,
    *,
    cuts: Sequence[float] = (),
    cut_said: str = "",
    size: tuple[float, float] = (430, 170),
) -> str:
    """A histogram with its own axis of numbers, for one rule's score."""
    top = float((kept_B + dropped_B).max(initial=0)) or 1.0
    low, high = float(edge_B[0]), float(edge_B[-1])
    frame = Frame(width=size[0], height=size[1], x=(low, high), y=(0.0, top), top=22, left=12, right=12)
    body = stacked_histogram(frame, edge_B, kept_B, dropped_B, cuts=cuts)
    floor = frame.at_y(0)
    for tick in ticks(low, high, 6):
        body += rule_line(frame.at_x(tick), floor, frame.at_x(tick), floor + 4)
        body += label(frame.at_x(tick), floor + 16, f"{tick:g}", anchor="middle")
    if cuts and cut_said:
        x = frame.at_x(cuts[0])
        late = x > size[0] / 2
        body += label(x + (-5 if late else 5), 14, cut_said, anchor="end" if late else "start", kind="ink")
    return picture(frame, title, body)


# ---- lines


@dataclass(frozen=True, kw_only=True)
class Line:
    """x_P, y_P: float; gaps where y is not finite. kind: a colour class."""

    name: str
    x_P: np.ndarray
    y_P: np.ndarray
    kind: str = "ink"
    dash: str = ""


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    size: tuple[float, float] = (560, 250),
    shares: bool = True,
    x_title: str = "epoch",
    from_zero: bool = False,
) -> str:
    """Lines over a common axis, each with its name at its end. shares: y is a share, shown as per cent."""
    y_all = np.concatenate([line.y_P[np.isfinite(line.y_P)] for line in lines] or [np.zeros(0)])
    x_all = np.concatenate([line.x_P for line in lines] or [np.zeros(0)])
    if not len(y_all):
        return ""
    low, high = (0.0 if from_zero else float(y_all.min())), float(y_all.max())
    pad = 0.05 * ((high - low) or abs(high) or 1.0)
    names = max(len(line.name) for line in lines)
    frame = Frame(
        width=size[0],
        height=size[1],
        left=48,
        right=min(14 + 6.3 * names, size[0] * 0.4),
        top=10,
        bottom=36,
        x=(float(x_all.min()), float(x_all.max())),
        y=(low if from_zero else low - pad, high + pad),
    )
    body = _axes(frame, shares, x_title)
    for line in lines:
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        body += (
            f'<path class="{line.kind}" d="{frame.path(line.x_P, line.y_P)}" fill="none" stroke="currentColor" '
            f'stroke-width="1.8" stroke-linejoin="round"{dash}/>'
        )
        if len(line.x_P) == 1:
            x, y = frame.at_x(float(line.x_P[0])), frame.at_y(float(line.y_P[0]))
            body += f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3" fill="currentColor"/>'
    return picture(frame, title, body + _names(frame, lines))


def _axes(frame: Frame, shares: bool, x_title: str) -> str:
    body, floor = "", frame.height - frame.bottom
    for tick in ticks(*frame.y):
        y = frame.at_y(tick)
        body += rule_line(frame.left, y, frame.width - frame.right, y)
        body += label(frame.left - 6, y + 4, f"{100 * tick:g} %" if shares else f"{tick:,g}", anchor="end")
    whole = [tick for tick in ticks(*frame.x, 6) if tick == int(tick)]
    for tick in whole:
        body += label(frame.at_x(tick), floor + 15, f"{tick:g}", anchor="middle")
    middle = (frame.left + frame.width - frame.right) / 2
    return body + label(middle, frame.height - 5, x_title, anchor="middle")


def _names(frame: Frame, lines: Sequence[Line]) -> str:
    """Each line's name at its end, moved apart where two ends are close."""
    ends = []
    for line in lines:
        finite = np.flatnonzero(np.isfinite(line.y_P))
        if len(finite):
            ends.append((frame.at_y(float(line.y_P[finite[-1]])), line))
    ends.sort(key=lambda one: one[0])
    body, last = "", -math.inf
    floor = frame.height - frame.bottom
    room = FONT + 2.0
    first = min([y for y, _ in ends] + [floor - room * (len(ends) - 1)])
    for y, line in ends:
        y = max(y, last + room, first)
        last = y
        body += label(frame.width - frame.right + 5, y + 4, line.name, kind=line.kind)
    return body


# ---- bars and matrices


def share_bar(kept: float, dropped: float, *, width: float = 120, most: float | None = None) -> str:
    """A small bar in a table's cell: kept solid, dropped pale, as long as their sum is of `most`."""
    total = kept + dropped
    full = width * (total / most if most else 1.0) if total else 0.0
    solid = full * kept / total if total else 0.0
    said = f"{count(kept)} kept, {count(dropped)} dropped"
    return (
        f'<svg class="share-bar" width="{width:g}" height="12" viewBox="0 0 {width:g} 12" '
        f'style="min-width:{width:g}px" role="img" aria-label="{said}">'
        f'<rect class="keep" width="{solid:.1f}" height="12" fill="currentColor" fill-opacity=".75"/>'
        f'<rect class="drop" x="{solid:.1f}" y=".5" width="{max(full - solid - 0.5, 0):.1f}" height="11" '
        'fill="currentColor" fill-opacity=".22" stroke="currentColor" stroke-width=".8"/></svg>'
    )


def matrix(
    title: str, names: Sequence[str], share_CC: np.ndarray, *, row_title: str, column_title: str, cell: float = 26
) -> str:
    """A square of shares in [0, 1] by row; the diagonal is left pale, other cells are darker the larger they are."""
    size = len(names)
    short = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    room = 12 + 6.2 * max((len(name) for name in short), default=1)
    width, height = room + cell * size + 18, room + cell * size + 26
    off = share_CC[~np.eye(size, dtype=bool)]
    most = float(np.nanmax(off, initial=0.0)) or 1.0
    body = label(4, room + cell * size + 16, f"rows: {row_title}; columns: {column_title}")
    for row, name in enumerate(short):
        y = room + cell * row
        body += label(room - 5, y + cell / 2 + 4, name, anchor="end", kind="ink")
        x = room + cell * row + cell / 2
        body += (
            f'<text class="ink" transform="translate({x + 4:.1f} {room - 6:.1f}) rotate(-90)" fill="currentColor">'
            f"{shown(name)}</text>"
        )
        body += "".join(
            _cell(room + cell * column, y, cell, float(share_CC[row, column]), most, row == column)
            for column in range(size)
        )
    return picture(Frame(width=width, height=height), title, body)


def _cell(x: float, y: float, cell: float, share: float, most: float, diagonal: bool) -> str:
    if not math.isfinite(share) or share < 0.0005:
        return f'<rect class="line" x="{x:.1f}" y="{y:.1f}" width="{cell - 1:g}" height="{cell - 1:g}" fill="none" stroke="currentColor" stroke-width=".4"/>'  # noqa: E501
    kind, strength = ("muted", 0.12) if diagonal else ("drop", 0.1 + 0.75 * min(share / most, 1.0))
    words = percent(share, 0).removesuffix(" %") if share >= 0.005 else "·"
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{cell - 1:g}" height="{cell - 1:g}" '
        f'fill="currentColor" fill-opacity="{strength:.2f}"/>'
        + label(x + cell / 2, y + cell / 2 + 4, words, anchor="middle", kind="ink")
    )
