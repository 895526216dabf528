"""Rows that depend on their key alone, and a loop that settles them: what the tests fill stores with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cleanctl.records import Fingerprints, SplitManifest
from cleanctl.store import Store

DIM = 8


def manifest_of(keys, split="train"):
    labels = np.array([sum(key.encode()) % 3 for key in keys], dtype=np.int32)
    return SplitManifest(split=split, keys=list(keys), label_N=labels)


def fingerprints_of(keys, changed=()):
    digest = np.zeros((len(keys), 16), dtype=np.uint8)
    for row, key in enumerate(keys):
        digest[row] = np.frombuffer((key + ("!" if key in changed else "")).encode().ljust(16)[:16], dtype=np.uint8)
    size = np.arange(len(keys), dtype=np.int64) * 0 + 10
    return Fingerprints(digest_N16=digest, size_N=size, mtime_ns_N=size + 1)


def embedding_of(keys):
    """A row that depends on the key alone, so that two stores can be compared."""
    rows = np.stack([np.random.default_rng(sum(key.encode()) * 31 + len(key)).normal(size=DIM) for key in keys])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def names(count):
    return [f"img/{i:05d}.jpg" for i in range(count)]


def new_store(path) -> Store:
    return Store.create(path, classes=["a", "b", "c"], encoder={"model": "tiny"})


def fill(store, keys, *, changed=(), fail=(), batch=10, limit=None, manifest=None):
    """Embeds what is pending; returns the keys that were encoded."""
    encoded = []
    with store.write_split(
        manifest or manifest_of(keys), dim=DIM, fingerprints=fingerprints_of(keys, changed)
    ) as writer:
        pending = writer.pending_rows()[:limit]
        for start in range(0, len(pending), batch):
            rows = pending[start : start + batch]
            bad = np.array([keys[row] in fail for row in rows], dtype=bool)
            if bad.any():
                writer.fail(rows[bad], ["truncated"] * int(bad.sum()))
            if (~bad).any():
                writer.put(rows[~bad], embedding_of([keys[row] for row in rows[~bad]]))
            encoded += [keys[row] for row in rows]
        if limit is None:
            writer.finish()
    return encoded


def everything(path: Path) -> dict[str, bytes]:
    """Every file of a store by relative path, locks aside."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
