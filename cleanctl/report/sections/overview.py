"""The first thing to read: how much was kept, by which rules, in which classes; and what was run on what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cleanctl.report import svg
from cleanctl.report.evidence import Evidence
from cleanctl.report.page.record import Section
from cleanctl.report.quality import Quality
from cleanctl.report.snapshot import Snapshot
from cleanctl.report.text import count, in_address, numbers, paragraph, percent, shown, table
from cleanctl.store.standing import DROP, KEEP, RELABEL, Standing

TOP_PAIRS = 3
SHOWN_CLASSES = 20
WORDS = ((KEEP, "right"), (DROP, "wrong"), (RELABEL, "wrong and given another label"))


def overview(snapshot: Snapshot, truth: Quality | None, notes: Iterable[str]) -> Section:
    """The numbers that a person repeats. notes: what has to be known of the page, as plain text."""
    ok, kept = int(snapshot.ok_N.sum()), int((snapshot.selection.keep & snapshot.ok_N).sum())
    noise = snapshot.summary.get("noise")
    failed = int(snapshot.failed_N.sum())
    told = [
        (count(len(snapshot)), "samples", f"{count(failed)} could not be read" if failed else ""),
        (count(kept), "kept", percent(kept / ok if ok else None)),
        (count(ok - kept), "dropped", percent(1 - kept / ok if ok else None)),
        (percent(noise), "labels that look wrong", f"about {count(noise * ok)}" if noise is not None else ""),
        (count(len(snapshot.classes)), "classes", ""),
    ]
    if truth is not None:
        told.append((percent(truth.found.precision), "of the kept labels are right, by the truth in the store", ""))
    html = numbers(told)
    html += paragraph(_sentence(snapshot, ok, kept, noise))
    html += _decided(snapshot.standing)
    html += "".join(paragraph(shown(note), note=True) for note in notes)
    return Section(id="overview", title="Overview", html=html, wide=True)


def _sentence(snapshot: Snapshot, ok: int, kept: int, noise: float | None) -> str:
    wrong = f"about {count(noise * ok)} look wrong; " if noise is not None else ""
    said = f"Of {count(ok)} labels {wrong}{count(kept)} are kept by <b>{shown(snapshot.selection.name)}</b>."
    pairs = (snapshot.summary.get("confused") or ())[:TOP_PAIRS]
    if pairs:
        named = ", ".join(f"{shown(one['given'])} that is likely {shown(one['likely'])}" for one in pairs)
        said += f" Most often confused: {named}."
    return said


def _decided(found: Standing) -> str:
    """What people decided of the labels; nothing where nobody did."""
    if not len(found):
        return ""
    parts = [f"{count(found.count(code))} {word}" for code, word in WORDS if found.count(code)]
    idle = found.idle()
    said = f"People decided {count(len(found))} labels: {', '.join(parts)}." + (
        f" Not counted: {idle}." if idle else ""
    )
    if found.contradictions:
        said += f" About {count(len(found.contradictions))} images people contradict each other."
    return paragraph(shown(said))


def rules(snapshot: Snapshot, evidence: tuple[Evidence, ...]) -> Section:
    """How many labels each rule keeps, by what criterion, and how many rules keep a label."""
    ok = int(snapshot.ok_N.sum())
    rows = [
        [
            f"<b>{shown(one.name)}</b><br>labels whose {shown(one.criterion)}",
            count(kept := int(one.keep_N[snapshot.ok_N].sum())),
            percent(kept / ok if ok else None),
            svg.share_bar(kept, ok - kept, width=80),
        ]
        for one in evidence
    ]
    kept = int((snapshot.selection.keep & snapshot.ok_N).sum())
    name, strategy = shown(snapshot.selection.name), shown(snapshot.selection.attributes.get("strategy", ""))
    rows.append(
        [
            f"<b>{name}</b>" + (f": {strategy}" if strategy != name else ", the selection"),
            f"<b>{count(kept)}</b>",
            f"<b>{percent(kept / ok if ok else None)}</b>",
            svg.share_bar(kept, ok - kept, width=80),
        ]
    )
    html = table(["rule, and what it keeps", "kept", "share", ""], rows, numbers=(1, 2))
    if len(evidence) > 1:
        keeping_N = np.sum([one.keep_N for one in evidence], axis=0)
        votes = np.bincount(keeping_N[snapshot.ok_N], minlength=len(evidence) + 1)
        by = ["no rule", *(f"{number} rule{'s'[: number - 1]}" for number in range(1, len(evidence))), "all rules"]
        said = "; ".join(f"by {word}: {count(samples)}" for word, samples in zip(by, votes.tolist(), strict=True))
        html += paragraph(f"Labels kept {said}.")
    return Section(id="rules", title="Rules", html=html)


def classes(snapshot: Snapshot) -> Section:
    """Each class: samples, kept, the estimated share of wrong labels; the noisiest first."""
    found = sorted(snapshot.summary.get("classes") or (), key=lambda one: -(one["noise"] or 0.0))
    most = max((one["count"] for one in found), default=1)
    topped = any(one["topped_up"] for one in found)
    rows = [
        [
            f'<a href="#table?class={in_address(one["name"])}">{shown(one["name"])}</a>',
            count(one["count"]),
            count(one["kept"]),
            percent(one["kept"] / one["count"] if one["count"] else None),
            percent(one["noise"]),
            *([count(one["topped_up"])] if topped else []),
            svg.share_bar(one["kept"], one["count"] - one["kept"], most=most),
        ]
        for one in found
    ]
    head = ["class", "samples", "kept", "share", "look wrong", *(["added by fallback"] if topped else []), ""]
    numbers = tuple(range(1, len(head) - 1))
    html = table(head, rows[:SHOWN_CLASSES], numbers=numbers)
    if rest := rows[SHOWN_CLASSES:]:
        more = table(head, rest, numbers=numbers)
        html += f"<details><summary>{count(len(rest))} more classes</summary>\n{more}</details>\n"
    return Section(id="classes", title="Classes", html=html)


def made(snapshot: Snapshot) -> Section:
    """On what, with which weights, prompts and options: as the store wrote them down."""
    encoder, selection = snapshot.encoder, snapshot.selection
    facts: list[tuple[str, Any]] = [
        ("store", snapshot.path),
        ("split", snapshot.split),
        ("images", snapshot.source.get("root") or "imported arrays"),
        ("layout", snapshot.source.get("layout")),
        ("labels", snapshot.source.get("labels")),
        ("noise added", snapshot.source.get("noise")),
        ("keys (SHA-256)", snapshot.fingerprint),
        ("model", encoder.get("model") or encoder.get("kind")),
        ("weights", encoder.get("pretrained")),
        ("weights (SHA-256)", encoder.get("weights_sha256")),
        ("embedding size", encoder.get("dim")),
        ("precision", encoder.get("precision")),
        ("preprocessing", _flat(encoder.get("pixels"))),
        ("logit scale", encoder.get("logit_scale")),
        ("prompts", _flat(snapshot.prompts)),
        ("packages", _flat(encoder.get("packages"))),
        ("selection", f"{selection.name} = {selection.attributes.get('strategy')}"),
        ("made", selection.attributes.get("made")),
        ("options", _flat(snapshot.summary.get("parameters") or snapshot.config)),
    ]
    facts += [
        (f"score {one['scorer']}", f"{one['score']}: {one['ran'].get('by', '')}")
        for one in snapshot.summary.get("scores") or ()
    ]
    facts += [("differs from the paper", text) for text in snapshot.summary.get("deviations") or ()]
    rows = [[shown(name), shown(value)] for name, value in facts if value not in (None, "", "None")]
    return Section(id="made", title="What was run", html=table(["", ""], rows), wide=True)


def _flat(values: Any) -> str:
    if not isinstance(values, dict):
        return "" if values is None else str(values)
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items() if value not in (None, "", [], {}))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
