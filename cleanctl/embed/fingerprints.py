"""Which file content each row stands for, asked of the disk with as little reading as possible.

Sizes and times come from the file system; a file is read for its digest only where an earlier run knew it with the
same size and another time (it may be the same content, touched or copied). New files get theirs while they are
embedded. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.files.fingerprints import MISSING, fingerprint_files, no_fingerprints, put_fingerprints, same_file
from cleanctl.files.keys import BLOCK_KEYS, Keys
from cleanctl.progress import Progress
from cleanctl.records import Fingerprints, SplitManifest, Storage
from cleanctl.store import Split, Store
from cleanctl.store.standing import dataset_fingerprint


def current_fingerprints(
    files: Storage, keys: Sequence[str], known: Fingerprints | None, progress: Progress
) -> Fingerprints:
    """Fingerprints of files as they are now; digests where they are known or decide something, else zeros."""
    now = files.stat(keys)
    if known is None:
        return now
    same_N = same_file(now, known)
    now.digest_N16[same_N] = known.digest_N16[same_N]
    touched = np.flatnonzero(~same_N & (now.size_N == known.size_N) & (now.size_N >= 0))
    if len(touched):
        read = fingerprint_files(files, [keys[row] for row in touched.tolist()], progress=progress)
        now.digest_N16[touched] = read.digest_N16
    return now


def fingerprints_by_block(
    files: Storage, store: Store, manifest: SplitManifest, rows: slice, progress: Progress
) -> Fingerprints:
    """`current_fingerprints` of some rows of the manifest, of which a block at a time is compared with the store."""
    keys, known = Keys.of(manifest.keys)[rows], known_by_block(store, manifest, rows)
    now = no_fingerprints(len(keys))
    for start in range(0, len(keys), BLOCK_KEYS):
        part = slice(start, min(start + BLOCK_KEYS, len(keys)))
        put_fingerprints(now, part, current_fingerprints(files, keys[part], known(part), progress))
    return now


def known_fingerprints(store: Store, manifest: SplitManifest, rows: slice) -> Fingerprints | None:
    """What the store knows of the files of some rows, in the manifest's order; None if it has no readable split."""
    return known_by_block(store, manifest, rows)(slice(0, rows.stop - rows.start))


def known_by_block(store: Store, manifest: SplitManifest, rows: slice) -> Callable[[slice], Fingerprints | None]:
    """`known_fingerprints` of a part of `rows`, numbered from their first. Of a store with other keys all that it knows
    is in memory, of one with the same keys what is asked for."""
    if manifest.split not in store.split_names():
        return lambda part: None
    wanted = Keys.of(manifest.keys)[rows]
    try:
        split = store.split(manifest.split)
        if dataset_fingerprint(split) == Keys.of(manifest.keys).fingerprint():
            return partial(_read, split, rows.start)
        there, fingerprints = split.keys(), _unless_empty(split.fingerprints())
    except StoreError:
        return lambda part: None  # damaged: the writer finds out which blocks, and embeds them again
    old_N = there.rows_of(wanted)

    def known(part: slice) -> Fingerprints:
        old_B = old_N[part]
        known_B, found = no_fingerprints(len(old_B)), np.flatnonzero(old_B >= 0)
        put_fingerprints(known_B, found, fingerprints.at(old_B[found]))
        return known_B

    return known


def _read(split: Split, first: int, part: slice) -> Fingerprints | None:
    try:
        return _unless_empty(split.fingerprints(slice(first + part.start, first + part.stop)))
    except StoreError:
        return None


def _unless_empty(fingerprints: Fingerprints) -> Fingerprints:
    """Rows that no process has committed yet hold zeros, which must not pass for an empty file's."""
    fingerprints.size_N[fingerprints.mtime_ns_N == 0] = MISSING
    return fingerprints


def filled_in(read: Fingerprints, before: Fingerprints) -> Fingerprints:
    """`read` while the files were embedded, with size and time of `before` where a file was not readable."""
    lost_B = read.size_N == MISSING
    return Fingerprints(
        digest_N16=read.digest_N16,
        size_N=np.where(lost_B, before.size_N, read.size_N),
        mtime_ns_N=np.where(lost_B, before.mtime_ns_N, read.mtime_ns_N),
    )
