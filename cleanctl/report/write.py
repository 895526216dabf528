"""`write_report`: a store, and the runs beside it → one HTML file, and the selection's table as Parquet beside it.

On disk: OUT, with `--images folder` also `<OUT's stem>-images/<row>.jpg`. Each is whole or as it was before. Only what
a report wrote is overwritten. Nothing in the store is changed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl import __version__
from cleanctl.config import ReportConfig
from cleanctl.conflicts.read import StoredConflicts, read_conflicts
from cleanctl.errors import InputError
from cleanctl.files.atomic import replacing, reporting_disk_errors, write_file
from cleanctl.paths import beton_path
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Storage
from cleanctl.report.assemble import MOST_ROWS, Around, Images, page_data, rows_of_page, rows_with_images
from cleanctl.report.changes import Changes, changes_of
from cleanctl.report.confusion import ConfusionView, confusion_of
from cleanctl.report.evidence import Evidence, evidence_of
from cleanctl.report.gain import gain_of
from cleanctl.report.galleries import Gallery, galleries_of
from cleanctl.report.page.record import PageData, Section
from cleanctl.report.page.render import render
from cleanctl.report.quality import quality_of
from cleanctl.report.runs import Runs, read_runs
from cleanctl.report.sections import conflicts, confused, looks, outcome, overview, thresholds
from cleanctl.report.sections.images import Shelf
from cleanctl.report.snapshot import Snapshot, take_snapshot
from cleanctl.report.table_file import require_our_table, table_beside, write_table_file
from cleanctl.report.thumbnails import LARGE_SIDE, Thumbnails, make_thumbnails
from cleanctl.results import ReportResult
from cleanctl.store import Split, Store

MARK = b'<meta name="generator" content="cleanctl report">'  # in the head of every page that a report wrote
HEAD_BYTES = 4096
INLINE_IMAGES, INLINE_BYTES = 1_800, 5_000_000  # as they are; base64 makes a third more of it
# A page of up to so many rows stays within so many bytes, with what a row's columns and the rest usually take.
SIZES = ((100_000, 10_000_000), (10**12, 20_000_000))
ROW_BYTES, REST_BYTES = 50, 700_000
FOLDER_IMAGES = 20_000
FOLDER_MARK = ".cleanctl-report"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Everything that sections are made from."""

    snapshot: Snapshot
    evidence: tuple[Evidence, ...]
    gain_N: np.ndarray
    galleries: list[Gallery]
    confusion: ConfusionView
    changes: Changes | None
    runs: Runs
    conflicts: StoredConflicts | None

    def shown_rows(self) -> list[int]:
        """Rows whose images sections show, the most important sections first."""
        rows: list[int] = [row for one in self.galleries for row in one.rows]
        rows += [row for pair in self.confusion.pairs for row in pair.rows]
        if self.changes is not None:
            rows += [row for *_, examples in self.changes.examples for row in examples]
        if self.conflicts is not None:
            rows += conflicts.rows_of(self.conflicts)
        return list(dict.fromkeys(rows))


def write_report(
    store: Store,
    config: ReportConfig,
    *,
    out: Path,
    files: Storage | None,
    progress: Progress = SILENT,
) -> ReportResult:
    """files: where the images are, None where they are not. Raises StoreError for a selection or run that is named and
    not there, InputError where OUT is a file that no report wrote."""
    table = table_beside(out)
    require_ours(out)
    require_our_table(table)
    split = store.split(config.split)
    found = gather(store, split, config)
    images = _images(store, found, config, out, files, progress)
    rows = rows_of_page(found.snapshot, found.gain_N, [*found.shown_rows(), *images.thumbnails.jpeg])
    notes = list(_notes(found, images, len(rows)))
    before, after = _sections(found, images, notes)
    around = Around(
        title=f"{Path(found.snapshot.path).stem}: {found.snapshot.selection.name}",
        subtitle=_subtitle(found.snapshot),
        made=f"Written by cleanctl {__version__} on {time.strftime('%Y-%m-%d %H:%M:%S')} from {found.snapshot.path}.",
        before=before,
        after=after,
    )
    page = page_data(
        found.snapshot,
        found.evidence,
        around,
        rows=rows,
        gain_N=found.gain_N,
        images=images,
        group_N=None if found.conflicts is None else found.conflicts.group_N,
    )
    write_table_file(split, found.snapshot, table)
    write_page(page, out)
    return ReportResult(
        out=str(out),
        bytes=out.stat().st_size,
        split=found.snapshot.split,
        selection=found.snapshot.selection.name,
        against=config.against,
        samples=len(found.snapshot),
        shown=len(rows),
        images=len(images.thumbnails.jpeg),
        images_missing=images.thumbnails.missing,
        image_folder=images.folder,
        runs=tuple(run.name for run in found.runs.runs),
        sections=tuple(section.id for section in (*before, *after)),
        notes=tuple(notes),
        table=str(table),
    )


def gather(store: Store, split: Split, config: ReportConfig) -> Found:
    """Reads the store, once, and works out what the sections show."""
    snapshot = take_snapshot(store, split, config.selection)
    evidence = evidence_of(snapshot)
    changes = None
    if config.against is not None:
        changes = changes_of(split, snapshot, config.against)
    return Found(
        snapshot=snapshot,
        evidence=evidence,
        gain_N=gain_of(snapshot, evidence),
        galleries=galleries_of(snapshot, evidence),
        confusion=confusion_of(snapshot),
        changes=changes,
        runs=read_runs(store.path, config.split, config.run),
        conflicts=_conflicts(store, split),
    )


def _conflicts(store: Store, split: Split) -> StoredConflicts | None:
    """None where nobody looked for any, or none was found."""
    found = read_conflicts(store, split)
    return found if found is not None and found.groups else None


def write_page(page: PageData, out: Path) -> None:
    """The HTML file, whole or not at all. InputError where another file is in its place."""
    require_ours(out)
    with reporting_disk_errors(out), replacing(out) as partial, partial.open("wb") as file:
        for piece in render(page):
            file.write(piece)


def require_ours(out: Path) -> None:
    """InputError unless there is nothing at `out`, or a page that a report wrote."""
    if out.is_dir():
        raise InputError(f"{out} is a folder.", do="Name the HTML file to write with --out FILE.")
    if not out.exists():
        return
    with out.open("rb") as file:
        if MARK in file.read(HEAD_BYTES):
            return
    raise InputError(
        f"{out} exists, and no report wrote it.", so="It would be overwritten.", do="Choose another file with --out."
    )


# ---- images


def _images(
    store: Store, found: Found, config: ReportConfig, out: Path, files: Storage | None, progress: Progress
) -> Images:
    snapshot, beton = found.snapshot, beton_path(store.path, config.split)
    inline = config.images == "inline"
    most = INLINE_IMAGES if inline else FOLDER_IMAGES
    rows = rows_with_images(found.gain_N, snapshot.ok_N, found.shown_rows(), most)
    if files is None and not beton.is_file():
        return Images(thumbnails=Thumbnails(jpeg={}, missing=len(rows), side=0))
    if inline:
        made = make_thumbnails(
            snapshot, rows, files=files, beton=beton, most_bytes=_image_bytes(len(snapshot)), progress=progress
        )
        return Images(thumbnails=made)
    folder = out.with_name(f"{out.stem}-images")
    _clear_folder(folder)
    made = make_thumbnails(snapshot, rows, files=files, beton=beton, side=LARGE_SIDE, progress=progress)
    for row, jpeg in made.jpeg.items():
        with reporting_disk_errors(folder):
            (folder / f"{row}.jpg").write_bytes(jpeg)
    return Images(thumbnails=made, folder=folder.name)


def _image_bytes(rows: int) -> int:
    """How many bytes of images a page may hold beside the columns of its rows."""
    allowed = next(size for most, size in SIZES if rows <= most)
    left = allowed - REST_BYTES - ROW_BYTES * min(rows, MOST_ROWS)
    return min(INLINE_BYTES, left * 3 // 4)


def _clear_folder(folder: Path) -> None:
    """Makes the folder, or empties the one that an earlier report made."""
    if folder.exists():
        if not (folder / FOLDER_MARK).is_file():
            raise InputError(
                f"{folder} exists, and no report made it.", so="Its files would be lost.", do="Choose another --out."
            )
        shutil.rmtree(folder)
    write_file(folder / FOLDER_MARK, b"")


# ---- words and sections


def _subtitle(snapshot: Snapshot) -> str:
    where = snapshot.source.get("root") or "imported arrays"
    return f"Selection {snapshot.selection.name} of split {snapshot.split}: {where}"


def _notes(found: Found, images: Images, rows: int) -> Iterator[str]:
    """What a reader has to know of the page."""
    snapshot, made = found.snapshot, images.thumbnails
    if snapshot.selection.stale:
        yield "This selection is stale: images or labels changed after it was made. Run cleanctl select again."
    pending = int((snapshot.status_N == 0).sum())
    if pending:
        yield f"{pending:,} samples are not embedded yet; they count as dropped."
    if rows < len(snapshot):
        yield (
            f"The table holds {rows:,} of {len(snapshot):,} samples: all that the galleries show, those worth most to "
            "review, and others drawn at random. All counts and charts are of all samples."
        )
    if not made.jpeg:
        yield "There are no images in this page: they are not where they were embedded from, or arrays were imported."
    elif made.missing:
        yield f"{made.missing:,} images could not be read any more; they are shown by their keys."


def _sections(found: Found, images: Images, notes: Iterable[str]) -> tuple[list[Section], list[Section]]:
    """Before and after the table."""
    snapshot, evidence = found.snapshot, found.evidence
    shelf = Shelf(snapshot=snapshot, evidence=evidence, with_images=frozenset(images.thumbnails.jpeg))
    truth = quality_of(snapshot, evidence)
    before = [
        overview.overview(snapshot, truth, notes),
        overview.rules(snapshot, evidence),
        overview.classes(snapshot),
        confused.confusion(found.confusion, shelf),
        looks.changes(found.changes, shelf) if found.changes is not None else None,
        confused.pairs(found.confusion, shelf),
        *(looks.gallery(one, shelf) for one in found.galleries),
        conflicts.conflicts(found.conflicts, shelf) if found.conflicts is not None else None,
    ]
    after = [
        thresholds.mixtures(snapshot, evidence),
        thresholds.scores(snapshot, evidence),
        outcome.quality(truth, snapshot) if truth is not None else None,
        outcome.runs(found.runs),
        outcome.failures(snapshot),
        overview.made(snapshot),
    ]
    return [one for one in before if one], [one for one in after if one]
