"""Images that could not be embedded: which, why, and what their first bytes say they are.

Leaves beside the store, for each split that has failures, `<store>.<split>.failures.parquet` with the columns key,
reason and first_bytes. `FailureLimit` ends a run whose input is rubbish.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from cleanctl.config import FailureBound
from cleanctl.errors import CleanctlError, InputError
from cleanctl.files.atomic import replacing, reporting_disk_errors
from cleanctl.files.sniff import HEAD_BYTES, content_type
from cleanctl.paths import failures_path
from cleanctl.records import Storage
from cleanctl.results import Failure, FailureReport
from cleanctl.store import Store

TRIED_BEFORE_SHARE = 256  # a percentage of fewer images says little
SHOWN = 3
THREADS = 8


def classify_failures(failed: Iterable[tuple[str, str]], files: Storage | None) -> list[Failure]:
    """(key, reason) → failures with the type of their first bytes (`unknown` where the images are out of reach)."""
    pairs = list(failed)
    if files is None:
        return [Failure(key, reason, "unknown") for key, reason in pairs]
    there_F = files.stat([key for key, _ in pairs]).size_N >= 0

    def look(item: tuple[tuple[str, str], bool]) -> Failure:
        (key, reason), there = item
        return Failure(key, reason, content_type(files.head(key, HEAD_BYTES)) if there else "missing")

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(look, zip(pairs, there_F.tolist())))


def write_failures(store: Path, split: str, failures: list[Failure]) -> Path | None:
    """The split's table of failures, whole or not at all; none of them takes an older table away."""
    from cleanctl.files.sealed_table import write_table

    path = failures_path(store, split)
    if not failures:
        path.unlink(missing_ok=True)
        return None
    columns = {
        "key": [failure.key for failure in failures],
        "reason": [failure.reason for failure in failures],
        "first_bytes": [failure.first_bytes for failure in failures],
    }
    with reporting_disk_errors(path), replacing(path) as partial:
        write_table(partial, columns, {})
    return path


def report_failures(store: Store, files: Storage | None) -> FailureReport:
    """Reads the failures of every split, the unfinished ones' journals included, and writes their tables again."""
    found: dict[str, list[Failure]] = {}
    tables: dict[str, Path] = {}
    images = 0
    for name in store.split_names():
        split = store.split(name)
        images += split.num_rows
        failed = split.failures()
        keys = split.keys() if failed else []
        found[name] = classify_failures(((keys[row], reason) for row, reason in failed.items()), files)
        path = write_failures(store.path, name, found[name])
        if path is not None:
            tables[name] = path
    return FailureReport(store=store.path, images=images, failures=found, tables=tables)


class TooManyFailuresError(CleanctlError):
    exit_code = InputError.exit_code  # but none that another loader would mend


class FailureLimit:
    """Counts what a run tries and what fails, and ends it with TooManyFailuresError beyond `--max-failures`.

    A percentage is judged from 256 images on. Images that failed in an earlier run do not count.
    """

    def __init__(self, bound: FailureBound | None) -> None:
        self._bound = bound
        self._lock = Lock()  # packing reads on several threads
        self.tried = 0
        self.failed: list[tuple[str, str]] = []  # (key, reason)

    def take(self, tried: int, failed: Mapping[str, str]) -> None:
        """tried: how many images, those that failed (key → reason) among them."""
        with self._lock:
            self.tried += tried
            self.failed.extend(failed.items())
        if self._bound is None or not self.failed:
            return
        count, bound = len(self.failed), self._bound
        most = bound.count if bound.count is not None else bound.share * max(self.tried, TRIED_BEFORE_SHARE)
        if count > most:
            raise TooManyFailuresError(
                f"{count:,} of the {self.tried:,} images tried so far could not be read (--max-failures {bound}): "
                + ", ".join(self._examples()),
                so="The input looks wrong, so the run ends here; what was embedded is kept.",
                do="See them with: cleanctl embed --show-failures. To go on, raise --max-failures or leave it out.",
            )

    def _examples(self) -> Iterator[str]:
        for key, reason in self.failed[:SHOWN]:
            yield f"{key!r} ({reason})"
        if len(self.failed) > SHOWN:
            yield "…"
