"""Every file of a store is damaged in every way: it is told, or nothing differs; and the named command repairs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rows import everything, fill, manifest_of, names, new_store

from cleanctl.errors import StoreError
from cleanctl.records import SplitManifest, TextEmbeddings
from cleanctl.store import Store
from cleanctl.store.files import EMBED_AGAIN, RECREATE, SELECT_AGAIN

KEYS = names(100)  # two blocks
FAILED = {KEYS[3], KEYS[70]}
RULE = "zeroshot.loss"


def score(rng) -> dict[str, np.ndarray]:
    return {key: rng.random(100, dtype=np.float32) for key in ("p_label", "p_max", "p_second", "entropy", "scaled")} | {
        "suggested": np.zeros(100, np.int32),
        "clean": np.zeros(100, np.float32),
    }


def selection(rng) -> dict[str, np.ndarray]:
    return {
        "keep": np.zeros(100, bool),
        "suggested": np.arange(100, dtype=np.int32) % 3,
        "p_label": rng.random(100, dtype=np.float32),
        "p_max": rng.random(100, dtype=np.float32),
        "votes": np.zeros(100, np.int16),
        f"{RULE}.score": rng.random(100, dtype=np.float32),
        f"{RULE}.keep": np.ones(100, bool),
    }


def manifest() -> SplitManifest:
    plain = manifest_of(KEYS)
    return SplitManifest(split="train", keys=KEYS, label_N=plain.label_N, truth_N=np.zeros(100, np.int32))


def embed(path: Path) -> None:
    """What the verb does: repairs, embeds what is pending, writes the text if it is not whole."""
    store = Store.open(path)
    with store.lock():
        store.repair([manifest()], dim=8)
    fill(store, KEYS, fail=FAILED, manifest=manifest())
    if not store.has_text_of("abc"):
        text = TextEmbeddings(
            embedding_PD=np.eye(3, 8, dtype=np.float32), class_P=np.arange(3), prompts=("a", "b", "c")
        )
        store.write_text(text, {"name": "n", "digest": "abc"})


def select(path: Path) -> None:
    split = Store.open(path).split("train")
    rng = np.random.default_rng(0)
    scores = score(rng)
    if split.scores.usable("z") is None:
        split.scores.write("z", scores, {"basis": "b"})
    split.scores.read("z")
    split.selections.write("s", selection(rng), {"labels": split.label_fingerprint()})


def make(path: Path) -> Path:
    new_store(path)
    embed(path)
    select(path)
    return path


def content(path: Path) -> dict[str, object]:
    """Everything that verbs read, by the functions that they read it with."""
    store = Store.open(path)
    split = store.split("train")
    split.require_complete()
    truth_N, found = split.truth_N(), split.fingerprints()
    assert store.split_names() == ("train",)
    results = [("scores", split.scores.read("z")), ("selections", split.selections.read("s"))]
    return {
        "store": (store.classes, store.encoder, store.source),
        "text": (store.text().embedding_PD.tobytes(), store.text().class_P.tolist(), store.text().prompts),
        "split": (split.keys(), split.label_N().tolist(), truth_N is not None and truth_N.tolist()),
        "files": (found.digest_N16.tobytes(), found.size_N.tolist(), found.mtime_ns_N.tolist()),
        "status": (split.status_N().tolist(), split.failures()),
        "embedding": [block.tobytes() for _, block in split.blocks()],
        "results": {kind: {k: v.tobytes() for k, v in one.arrays.items()} for kind, one in results},
        "listed": (list(split.results("scores")), list(split.results("selections")), split.stale_selections()),
    }


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


@pytest.fixture
def whole(tmp_path):
    path = make(tmp_path / "whole.zarr")
    return path, content(path)


def files_of(path: Path) -> list[Path]:
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


WAYS = {"delete": None, "cut": cut, "empty": empty, "flip": flip}
DAMAGES = [pytest.param(damage, id=name) for name, damage in WAYS.items()]
SOME = [
    "train/label/c/0",
    "train/key/zarr.json",
    "train/embedding/c/1/0",
    "train/zarr.json",
    "train/scores/z/p_label/c/1",
    "train/selections/s/keep/c/0",
    "text/class/c/0",
]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damaged_file_is_told_and_the_named_command_repairs_it(tmp_path, whole, damage):
    source, expected = whole
    told = [damaged_and_repaired(source, expected, file, damage, tmp_path / "s.zarr") for file in files_of(source)]
    assert sum(told) >= 0.8 * len(told)


@pytest.mark.parametrize("damage", DAMAGES[::3])
def test_a_damaged_file_is_told_and_the_named_command_repairs_it(tmp_path, whole, damage):
    source, expected = whole
    for name in SOME:
        assert damaged_and_repaired(source, expected, Path(name), damage, tmp_path / "s.zarr")


def damaged_and_repaired(source: Path, expected: dict, file: Path, damage, path: Path) -> bool:
    """Whether it is told. Asserts: if not, that nothing differs, now and after later runs; if so, that the command
    which the error names repairs it. An exception that is no StoreError is a failure."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    if damage is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(damage((path / file).read_bytes()))
    error = told(path, expected)
    if error is None or error.do == EMBED_AGAIN:
        embed(path)
    if error is None or error.do == SELECT_AGAIN:
        select(path)
    if error is not None and error.do == RECREATE:
        assert file == Path("zarr.json"), error
        Store.remove(path)
        make(path)
    assert content(path) == expected, (file, str(error))
    return error is not None


def told(path: Path, expected: dict) -> StoreError | None:
    try:
        assert content(path) == expected, path
    except StoreError as error:
        return error
    return None


def test_a_damaged_selection_does_not_make_an_older_one_the_newest(tmp_path):
    path = make(tmp_path / "s.zarr")
    split = Store.open(path).split("train")
    split.selections.write("newer", selection(np.random.default_rng(1)), {})
    (path / "train" / "selections" / "newer" / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"newer/zarr\.json is damaged"):
        split.selections.attributes()
    split.selections.write("newer", selection(np.random.default_rng(1)), {})
    assert list(split.selections.attributes()) == ["s", "newer"]


def test_a_damaged_store_is_the_same_after_its_repair_as_before(tmp_path, whole):
    """Byte by byte, blocks that were not damaged included; a run that repairs embeds the damaged block alone."""
    source, _ = whole
    path = tmp_path / "s.zarr"
    shutil.copytree(source, path)
    for name in ("embedding/zarr.json", "key/c/0", "zarr.json"):
        before = everything(path)
        (path / "train" / name).write_bytes(b"{")
        store = Store.open(path)
        with store.lock():
            store.repair([manifest()], dim=8)
        assert fill(store, KEYS, fail=FAILED, manifest=manifest()) == []
        assert everything(path) == before, name
