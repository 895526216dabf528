"""Where each rule cuts: the loss rules' mixtures class by class, and the scores of the other rules."""

from __future__ import annotations

import numpy as np

from cleanctl.report import svg
from cleanctl.report.evidence import Evidence
from cleanctl.report.mixtures import ClassMixture, mixtures_of
from cleanctl.report.page.record import Section
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.text import count, decimal, paragraph, percent, shown

SHOWN_CLASSES = 48
BINS = 60
WIDTH, HEIGHT = 260.0, 150.0


def mixtures(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> Section | None:
    """Of each loss rule, a picture for each class: ln P(label), the two components and where keeping changes."""
    parts = [_mixtures_of(snapshot, one) for one in evidence if one.mechanism == "loss"]
    if not any(parts):
        return None
    html = paragraph(
        "Each label's ln P, scaled within its class, as the rule sees it: solid bars are kept by this rule, pale ones "
        "are dropped. Two components are fitted to each class; the solid line is the clean one, the dotted line the "
        "other, the dashed upright marks where keeping changes. Heights are square roots of counts, so that tails show."
    )
    return Section(id="mixtures", title="Mixtures", html=html + "".join(parts), wide=True)


def _mixtures_of(snapshot: Snapshot, rule: Evidence) -> str:
    chosen = mixtures_of(snapshot, rule, most=SHOWN_CLASSES)
    with_rows = np.count_nonzero(np.bincount(snapshot.label_N[snapshot.ok_N]))
    html = f"<h3>{shown(rule.name)}</h3>\n"
    if len(chosen) < with_rows:
        html += paragraph(f"Shown are the {len(chosen)} of {with_rows} classes that drop most.", note=True)
    pictures = "".join(_picture(one, snapshot.classes[one.place]) for one in chosen)
    return html + f'<div class="charts">{pictures}</div>\n'


def _picture(one: ClassMixture, name: str) -> str:
    bars = float((one.kept_B + one.dropped_B).max(initial=1))
    frame = svg.Frame(width=WIDTH, height=HEIGHT, top=34, bottom=24, y=(0.0, np.sqrt(bars) * 1.05))
    body = svg.label(frame.left, 13, name if len(name) <= 26 else f"{name[:25]}…", kind="ink", weight="bold")
    body += svg.label(
        frame.width - frame.right, 13, f"{count(one.kept)} of {count(one.count)} kept", anchor="end", kind="muted"
    )
    kept_B, all_B = np.sqrt(one.kept_B), np.sqrt(one.kept_B + one.dropped_B)
    body += svg.stacked_histogram(frame, one.edge_B, kept_B, all_B - kept_B, cuts=one.cuts[:4])
    curves = one.curves()
    if curves is None:
        body += svg.label(frame.left, 28, "all scores are equal: no mixture")
    else:
        x_P, rows_2P = curves
        for rows_P, dash in zip(rows_2P, ("", "2 2"), strict=True):
            body += (
                f'<path class="ink" d="{frame.path(x_P, np.sqrt(rows_P))}" fill="none" stroke="currentColor" '
                f'stroke-width="1.3"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'
            )
    floor = frame.height - frame.bottom
    body += svg.label(frame.left, floor + 14, f"ln P {decimal(one.low, 2)}")
    body += svg.label(frame.width - frame.right, floor + 14, decimal(one.high, 2), anchor="end")
    return svg.picture(frame, f"{name}: {one.kept} of {one.count} kept", body)


def scores(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> Section | None:
    """A histogram of each rule that is not cut class by class."""
    parts = [_scores_of(snapshot, one) for one in evidence if one.mechanism != "loss"]
    if not parts:
        return None
    html = paragraph(
        "What each of these rules measures, over all classes; solid bars are kept by it, pale ones are not."
    )
    return Section(id="scores", title="Scores", html=html + f'<div class="charts">{"".join(parts)}</div>\n', wide=True)


def _scores_of(snapshot: Snapshot, rule: Evidence) -> str:
    number_M = rule.number_N[snapshot.ok_N].astype(np.float64)
    keep_M = rule.keep_N[snapshot.ok_N]
    finite = np.isfinite(number_M)
    if not finite.any():
        return ""
    low, high = float(number_M[finite].min()), float(number_M[finite].max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif high == low:
        high = low + 1
    edge_B = np.linspace(low, high, BINS + 1)
    kept_B = np.histogram(number_M[finite & keep_M], edge_B)[0]
    dropped_B = np.histogram(number_M[finite & ~keep_M], edge_B)[0]
    threshold = rule.threshold if rule.threshold is not None else rule.cut if isinstance(rule.cut, float) else None
    side = "dropped" if rule.complement else "kept"
    picture = svg.score_histogram(
        f"{rule.name}: {int(keep_M.sum())} of {len(keep_M)} kept",
        edge_B,
        kept_B,
        dropped_B,
        cuts=() if threshold is None else (threshold,),
        cut_said="" if threshold is None else f"{side} from {decimal(threshold, 3).rstrip('0').rstrip('.')}",
    )
    share = percent(float(keep_M.mean()) if len(keep_M) else None)
    return (
        f"<figure>{picture}<figcaption><b>{shown(rule.name)}</b> keeps {share}: labels whose {shown(rule.criterion)}."
        "</figcaption></figure>\n"
    )
