"""`review sample`: which labels a person is to look at so that `audit` can say how good a selection is.

Leaves a result under `samples` of the split: `stratum` (int16, -1 in rows that are not OK), `keep` (bool, what the
selection keeps without people's verdicts), `place` (int32, 1 for the label to look at first, 0 where it is not drawn)
and `chance` (float32, of being drawn); and a page, or a CSV, with the drawn labels. What was drawn depends on the
store's scores and labels and on the seed alone.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import numpy as np

from cleanctl.config import ReviewSampleConfig
from cleanctl.errors import InputError, StoreError
from cleanctl.files.atomic import write_file
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Status, Storage
from cleanctl.results import ReviewSample, SampleStratum
from cleanctl.review.strata import Plan, draw, plan
from cleanctl.store import Split, Store
from cleanctl.store.standing import digest_text, standing
from cleanctl.store.stored import StoredSelection

JOINT = "joint"


def draw_sample(
    store: Store,
    config: ReviewSampleConfig,
    *,
    out: Path,
    files: Storage | None,
    progress: Progress = SILENT,
) -> ReviewSample:
    """files: where the images are, None where they are not. Raises StoreError where there is no selection, where it is
    stale, or where a sample of this name is there already."""
    split = store.split(config.split)
    if config.name in split.samples.attributes(damaged=False) and not config.replace:
        raise StoreError(
            f"Split {split.name!r} has a sample {config.name!r} already.",
            so="Verdicts on it may be under way.",
            do="Take another --name, or draw it again with --replace.",
        )
    _require_room(out, config)
    selection = newest_selection(split, config.selection)
    row_M = np.flatnonzero((split.status_N() == Status.OK) & (selection.suggested >= 0))
    score, score_M = _score(split, selection, row_M)
    made = plan(score_M, selection.unreviewed[row_M], config.size)
    label_M = split.label_N()[row_M]
    drawn_n = row_M[draw(made.stratum_N, made.looks_H, label_M, np.random.default_rng([config.seed, 13]))]
    _store(split, config, selection, made, row_M, drawn_n, score)
    images = _write(store, config, selection.name, drawn_n, out, files, progress)
    decided = np.isin(drawn_n, standing(split, store.classes).row_V)
    return ReviewSample(
        name=config.name,
        split=split.name,
        selection=selection.name,
        score=score,
        size=len(drawn_n),
        labels=len(row_M),
        seed=config.seed,
        known=int(decided.sum()),
        strata=_described(made, score_M),
        out=str(out),
        images=images,
    )


def newest_selection(split: Split, name: str | None) -> StoredSelection:
    """The selection of this name, or the newest; StoreError where there is none, or where it is stale."""
    newest = next(reversed(split.selections.attributes()), None) if name is None else name
    if newest is None:
        raise StoreError(f"Split {split.name!r} has no selection yet.", do="Make one: cleanctl select")
    selection = split.selections.read(newest)
    if selection.stale:
        raise StoreError(
            f"The selection {newest!r} is older than the images or labels.", do="Make it again: cleanctl select"
        )
    return selection


def _score(split: Split, selection: StoredSelection, row_M: np.ndarray) -> tuple[str, np.ndarray]:
    """(its name, P(right) of each row): of joint where it was computed for these labels, else of the selection."""
    fresh = [
        name
        for name, about in split.scores.attributes(damaged=False).items()
        if name.partition("-")[0] == JOINT and not about.get("stale")
    ]
    for name in reversed(fresh):
        if split.scores.usable(name) is not None:
            p_M = split.scores.read(name).p_label[row_M]
            if np.isfinite(p_M).all():
                return JOINT, p_M
    evidence = str((selection.attributes.get("summary") or {}).get("evidence", "p_label"))
    return evidence, np.nan_to_num(selection.p_label[row_M], nan=0.5)


def _store(
    split: Split,
    config: ReviewSampleConfig,
    selection: StoredSelection,
    made: Plan,
    row_M: np.ndarray,
    drawn_n: np.ndarray,
    score: str,
) -> None:
    count = split.num_rows
    stratum_N, place_N = np.full(count, -1, np.int16), np.zeros(count, np.int32)
    chance_N = np.zeros(count, np.float32)
    stratum_N[row_M] = made.stratum_N
    chance_N[row_M] = (made.looks_H / made.size_H)[made.stratum_N]
    place_N[drawn_n] = np.arange(1, len(drawn_n) + 1)
    arrays = {"stratum": stratum_N, "keep": selection.unreviewed, "place": place_N, "chance": chance_N}
    attributes = {
        "selection": selection.name,
        "score": score,
        "config": config.as_json(),
        "labels": split.label_fingerprint(),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    split.samples.write(config.name, arrays, attributes)


def _described(made: Plan, score_M: np.ndarray) -> tuple[SampleStratum, ...]:
    return tuple(
        SampleStratum(
            kept=bool(made.keep_H[h]),
            size=int(made.size_H[h]),
            looks=int(made.looks_H[h]),
            low=float(score_M[made.stratum_N == h].min()),
            high=float(score_M[made.stratum_N == h].max()),
        )
        for h in range(len(made.size_H))
    )


# ---- what a person looks at


def _require_room(out: Path, config: ReviewSampleConfig) -> None:
    """InputError where another file is in the place of the page, or a list that may be filled in already."""
    from cleanctl.report.write import require_ours

    if out.suffix.lower() != ".csv":
        require_ours(out)
    elif out.exists() and not config.replace:
        raise InputError(
            f"{out} exists.", so="It would be overwritten.", do="Choose another file with --out, or give --replace."
        )


def _write(
    store: Store,
    config: ReviewSampleConfig,
    selection: str,
    drawn_n: np.ndarray,
    out: Path,
    files: Storage | None,
    progress: Progress,
) -> int:
    """The page or the list; how many images are in it."""
    split = store.split(config.split)
    if out.suffix.lower() == ".csv":
        write_file(out, _listed(store, split, drawn_n).encode())
        return 0
    return _write_page(store, config, selection, drawn_n, out, files, progress)


def _listed(store: Store, split: Split, drawn_n: np.ndarray) -> str:
    """A table that `review apply` reads once its column verdict is filled in."""
    keys, label_N = split.keys(), split.label_N()
    digest_N16 = split.fingerprints().digest_N16
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "digest", "given", "verdict", "label"])
    for row in drawn_n.tolist():
        table.writerow([keys[row], digest_text(digest_N16[row]), store.classes[label_N[row]], "", ""])
    return text.getvalue()


def _write_page(
    store: Store,
    config: ReviewSampleConfig,
    selection: str,
    drawn_n: np.ndarray,
    out: Path,
    files: Storage | None,
    progress: Progress,
) -> int:
    """The report's page with the drawn rows alone, in the order in which to look; without what rules say of them."""
    from cleanctl.paths import beton_path
    from cleanctl.report.assemble import Around, Images, page_data
    from cleanctl.report.page.record import Section
    from cleanctl.report.snapshot import take_snapshot
    from cleanctl.report.text import paragraph
    from cleanctl.report.thumbnails import LARGE_SIDE, Thumbnails, make_thumbnails
    from cleanctl.report.write import write_page

    snapshot = take_snapshot(store, store.split(config.split), selection)
    beton, thumbnails = beton_path(store.path, config.split), Thumbnails(jpeg={}, missing=len(drawn_n), side=0)
    if files is not None or beton.is_file():
        thumbnails = make_thumbnails(
            snapshot, drawn_n.tolist(), files=files, beton=beton, side=LARGE_SIDE, progress=progress
        )
    gain_N = np.zeros(len(snapshot))
    gain_N[drawn_n] = np.arange(len(drawn_n), 0, -1) / len(drawn_n)
    told = paragraph(
        f"{len(drawn_n):,} labels were drawn so that looking at them tells how good the selection is. Review them in "
        "the order given, without choosing: keep a right label, drop or relabel a wrong one, skip what cannot be told. "
        "Save the verdicts, then: cleanctl review apply FILE, cleanctl audit."
    )
    around = Around(
        title=f"{Path(snapshot.path).stem}: {len(drawn_n):,} labels to check",
        subtitle=f"Sample {config.name} for the selection {selection} of split {snapshot.split}",
        before=[Section(id="sample", title="What to do", html=told, wide=True)],
    )
    images = Images(thumbnails=thumbnails)
    write_page(page_data(snapshot, (), around, rows=np.sort(drawn_n), gain_N=gain_N, images=images), out)
    return len(thumbnails.jpeg)
