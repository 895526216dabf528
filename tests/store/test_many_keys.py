"""A hundred thousand names and more: what changed is found, and no process holds a string for each of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from rows import DIM, new_store

from cleanctl.embed.fingerprints import known_fingerprints
from cleanctl.files.keys import Keys
from cleanctl.records import Fingerprints, SplitManifest
from cleanctl.store import Store, schema

ROWS = 100_000


@pytest.fixture(autouse=True)
def large_blocks(_small_blocks, monkeypatch):
    monkeypatch.setattr(schema, "BLOCK_ROWS", 65_536)
    monkeypatch.setattr(schema, "CHUNK_ROWS", 4_096)


def manifest_of(keys: list[str]) -> SplitManifest:
    return SplitManifest(split="train", keys=keys, label_N=np.zeros(len(keys), np.int32))


def fingerprints_of(keys: list[str]) -> Fingerprints:
    number_N = np.array([int(key[-9:]) for key in keys]) + 1
    digest_N16 = np.zeros((len(keys), 16), np.uint8)
    digest_N16[:, :8] = number_N.view(np.uint8).reshape(-1, 8)
    return Fingerprints(digest_N16=digest_N16, size_N=number_N, mtime_ns_N=number_N)


def embedding_of(row_B: np.ndarray) -> np.ndarray:
    angle_B = row_B.astype(np.float64)
    image_BD = np.zeros((len(row_B), DIM), np.float16)
    image_BD[:, 0], image_BD[:, 1] = np.cos(angle_B), np.sin(angle_B)
    return image_BD


def test_three_names_of_a_hundred_thousand_changed_and_only_these_are_embedded_again(tmp_path):
    store = new_store(tmp_path / "s.zarr")
    before = [f"shard{row // 10_000:02d}/{row:09d}" for row in range(ROWS)]
    with store.write_split(manifest_of(before), dim=DIM, fingerprints=fingerprints_of(before)) as writer:
        writer.put(np.arange(ROWS), embedding_of(np.arange(ROWS)))
        writer.finish()

    gone, renamed = {17, 65_536, 99_999}, {17: "a/000000017", 65_536: "shard06/a000065536", 99_999: "z/000099999"}
    after = sorted(renamed.get(row, key) for row, key in enumerate(before))
    store, manifest = Store.open(store.path), manifest_of(after)
    known = known_fingerprints(store, manifest, slice(0, ROWS))
    assert known is not None
    new_N = np.array([key in renamed.values() for key in after])
    assert (known.size_N[~new_N] == fingerprints_of(after).size_N[~new_N]).all()
    assert (known.size_N[new_N] == -1).all()
    with store.write_split(manifest, dim=DIM, fingerprints=fingerprints_of(after)) as writer:
        pending_N = writer.pending_rows()
        assert [after[row] for row in pending_N] == sorted(renamed.values())
        writer.put(pending_N, embedding_of(pending_N))
        writer.finish()

    split = store.split("train")
    assert split.keys() == after
    old_row_N = np.array([int(key[-9:]) for key in after])[~new_N]
    assert not gone & set(old_row_N.tolist())
    image_ND = split.embeddings(slice(0, ROWS))
    assert np.array_equal(image_ND[~new_N], embedding_of(old_row_N))


CHILD = """
    import re, sys
    from pathlib import Path
    import numpy as np
    import cleanctl.embed.fingerprints as prints
    from cleanctl.files.keys import Keys
    from cleanctl.records import SplitManifest
    from cleanctl.store import Store

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    store, rows = Store.open(Path({path!r})), int(sys.argv[1])
    store.split("train").keys(slice(0, 100))
    before = peak()
    keys = Keys.of(f"train-{{row // 10_000:05d}}/{{row:012d}}" for row in range(rows))
    manifest = SplitManifest(split="train", keys=keys, label_N=np.zeros(rows, np.int32))
    now = prints.known_fingerprints(store, manifest, slice(0, rows))
    with store.write_split(manifest, dim=8, fingerprints=now) as writer:
        assert not len(writer.pending_rows())
        writer.finish()
    assert store.split("train").keys() == keys
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_row_takes_no_more_than_its_key_and_its_fingerprint_in_a_resumed_run(tmp_path):
    rows = 300_000
    store = new_store(tmp_path / "s.zarr")
    keys = Keys.of(f"train-{row // 10_000:05d}/{row:012d}" for row in range(rows))
    with store.write_split(
        SplitManifest(split="train", keys=keys, label_N=np.zeros(rows, np.int32)),
        dim=DIM,
        fingerprints=fingerprints_of([key[-9:] for key in keys]),
    ) as writer:
        writer.put(np.arange(rows), embedding_of(np.arange(rows)))
        writer.finish()
    child = textwrap.dedent(CHILD.format(path=str(store.path)))
    run = subprocess.run([sys.executable, "-c", child, str(rows)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # 24 + 8 bytes of a key, twice; 32 of a fingerprint, three times; a block's strings: 43 MiB. Lists of str took 98.
    assert float(run.stdout) < 65
