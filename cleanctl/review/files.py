"""Files of verdicts: what the review page saves (JSON), and tables (CSV, TSV, Parquet) of `key` and `verdict`.

A JSON file is
    {"format": "cleanctl.review", "version": 1, "store": FINGERPRINT, "split": "train", "selection": NAME | null,
     "by": NAME, "saved": TIME, "verdicts": [{"key", "digest", "given", "verdict", "label", "at"}, …]}
with verdict keep, drop, relabel (then `label` is the right class's name) or skip. A table has a row a verdict; `label`
is read where the verdict is relabel; `given`, `digest`, `by` and `at` may be left out. Nothing is believed unchecked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cleanctl import user_files
from cleanctl.datasets.columns import PARQUET, Columns, read_columns
from cleanctl.errors import InputError
from cleanctl.files.atomic import write_file
from cleanctl.store.decisions import Decision, Verdict, now, seconds_of

FORMAT, VERSION = "cleanctl.review", 1
TABLES = (".csv", ".tsv", *PARQUET)
WORDS: dict[str, Decision] = {
    **{"keep": "keep", "right": "keep", "true": "keep", "1": "keep", "yes": "keep"},
    **{"drop": "drop", "wrong": "drop", "false": "drop", "0": "drop", "no": "drop"},
    **{"relabel": "relabel", "skip": "skip"},
}
LONGEST = 4096  # characters of a key
MOST_BYTES = 2**30  # of a file
Name = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A verdict of a JSON file. by: where several people's verdicts are in one file."""

    key: Annotated[str, Field(min_length=1, max_length=LONGEST)]
    verdict: Literal["keep", "drop", "relabel", "skip"]
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] | None = None
    given: Annotated[str, Field(max_length=LONGEST)] | None = None
    label: Annotated[str, Field(max_length=LONGEST)] | None = None
    at: Name | None = None
    by: Name | None = None


@dataclass(frozen=True, kw_only=True)
class VerdictFile:
    """store: `standing.dataset_fingerprint` of the split. saved: ISO 8601 time."""

    format: Literal["cleanctl.review"]
    version: Literal[1]
    split: Name
    verdicts: list[Entry]
    store: Name | None = None
    selection: Name | None = None
    by: Name | None = None
    saved: Name | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a file says. split, store: None where it does not say. Verdicts lack what it does not say: digest and given
    are "" then, and `apply` fills them in from the store."""

    file: Path
    source: str
    split: str | None
    store: str | None
    verdicts: list[Verdict]


def read_verdicts(file: Path) -> Told:
    """Raises InputError that names the file and what is wrong in it."""
    if file.suffix.lower() in TABLES:
        return _from_table(file)
    data = _bytes_of(file)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InputError(
            f"{file} is neither JSON nor a table: {exc}.",
            do="Give the file that the review page saved, or a .csv or .parquet with the columns key and verdict.",
        ) from exc
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(
            f"{file} is not a file of verdicts: its format is not {FORMAT!r}.",
            do="Give the file that the review page saved.",
        )
    if values.get("version") != VERSION:
        raise InputError(
            f"{file} has version {values.get('version')!r}; this cleanctl reads version {VERSION}.",
            do="Save it again from a report of this version.",
        )
    return told(user_files.checked(f"The file {file}", values, VerdictFile), file, source_of(file, data))


def told(found: VerdictFile, file: Path, source: str) -> Told:
    """The verdicts of a checked file."""
    verdicts = []
    for number, one in enumerate(found.verdicts, start=1):
        where = f"Verdict {number} of {file}"
        at = one.at or found.saved or now()
        require_sense(where, one.verdict, one.given or "", one.label, at)
        verdicts.append(
            Verdict(
                key=one.key,
                digest=one.digest or "",
                given=one.given or "",
                verdict=one.verdict,
                label=one.label if one.verdict == "relabel" else None,
                by=(one.by if one.by is not None else found.by) or "",
                at=at,
                source=source,
            )
        )
    return Told(file=file, source=source, split=found.split, store=found.store or None, verdicts=verdicts)


def require_sense(where: str, verdict: Decision, given: str, label: str | None, at: str) -> None:
    """InputError, beginning with `where`, for a verdict that contradicts itself or whose time is none."""
    if verdict == "relabel" and not label:
        raise InputError(f"{where} is relabel, and no label is given.", do="Name the right class as label.")
    if verdict == "relabel" and label == given:
        raise InputError(f"{where} is relabel to {label!r}, which is the label it has.", do="Say keep, or another one.")
    try:
        seconds_of(at)
    except ValueError as exc:
        raise InputError(f"{where} was given at {at!r:.60}.", do="Give a time such as 2026-11-21T21:00:00Z.") from exc


def source_of(file: Path, data: bytes) -> str:
    """What verdicts say of where they are from: the file's name and the beginning of its SHA-256."""
    return f"{file.name} ({hashlib.sha256(data).hexdigest()[:12]})"


def _bytes_of(file: Path) -> bytes:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file} has more than {MOST_BYTES:,} bytes.", do="Give a file of verdicts.")
        return file.read_bytes()
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}.", do="Check the path.") from exc


# ---- tables


def _from_table(file: Path) -> Told:
    """Rows whose verdict is empty are left out. Without a column `at` all are as old as the file."""
    data = _bytes_of(file)
    columns = read_columns(file, "FILE", table=True)
    key_V = columns.text(columns.require("key", "FILE (a column key)"))
    columns.require("verdict", "FILE (a column verdict)")
    said_V, at_V, by_V, given_V, label_V, digest_V = (
        _optional(columns, name, len(key_V)) for name in ("verdict", "at", "by", "given", "label", "digest")
    )
    written = _time_of(file)
    source = source_of(file, data)
    verdicts = []
    for row, key in enumerate(key_V):
        word = said_V[row].strip().lower()
        if not word:
            continue
        if word not in WORDS:
            raise InputError(
                f"{columns.where(row)} has the verdict {said_V[row]!r}.", do="Give keep, drop, relabel or skip."
            )
        verdict, at = WORDS[word], at_V[row] or written
        label = label_V[row] if verdict == "relabel" else None
        require_sense(columns.where(row), verdict, given_V[row], label, at)
        verdicts.append(
            Verdict(
                key=key,
                digest=digest_V[row],
                given=given_V[row],
                verdict=verdict,
                label=label,
                by=by_V[row],
                at=at,
                source=source,
            )
        )
    _refuse_twice(file, verdicts)
    return Told(file=file, source=source, split=None, store=None, verdicts=verdicts)


def _optional(columns: Columns, name: str, count: int) -> list[str]:
    """A column as text, "" where it is empty or not there."""
    if name not in columns.names:
        return [""] * count
    return ["" if value is None else str(value) for value in columns.table.column(name).to_pylist()]


def _time_of(file: Path) -> str:
    time = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse_twice(file: Path, verdicts: Sequence[Verdict]) -> None:
    """InputError for a table that says two things of an image at one time."""
    seen: dict[tuple[str, str, str], Verdict] = {}
    for one in verdicts:
        before = seen.setdefault((one.key, one.by, one.at), one)
        if (before.verdict, before.label) != (one.verdict, one.label):
            raise InputError(f"{file} has two verdicts on {one.key!r}.", do="Give one verdict for each key.")


# ---- writing


def write_verdicts(file: Path, verdicts: Iterable[Verdict], *, split: str, store: str) -> None:
    """The JSON file that `read_verdicts` reads back to the same verdicts; people's names are with each of them."""
    entries: list[dict[str, Any]] = []
    for one in verdicts:
        entry: dict[str, Any] = {"key": one.key, "digest": one.digest or None, "given": one.given}
        entry |= {"verdict": one.verdict} | ({"label": one.label} if one.label is not None else {})
        entries.append(entry | {"at": one.at} | ({"by": one.by} if one.by else {}))
    head = {"format": FORMAT, "version": VERSION, "store": store, "split": split, "selection": None, "by": ""}
    text = json.dumps({**head, "saved": now(), "verdicts": entries}, ensure_ascii=True, indent=None)
    write_file(file, text.encode("ascii"))
