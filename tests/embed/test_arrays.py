"""Promises about import: rows keep their labels, unit length, no pickle, misfits told before anything is written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cleanctl.embed.arrays as arrays_module
from cleanctl.api import import_arrays
from cleanctl.config import ImportConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.store import Store

N, D, C = 37, 8, 3


@pytest.fixture
def given(tmp_path):
    """The arguments of a good import; tests change one thing."""
    rng = np.random.default_rng(0)
    image_ND = rng.normal(size=(N, D)).astype(np.float32) * 5
    label_N = rng.integers(0, C, N)
    np.save(tmp_path / "x.npy", image_ND)
    np.save(tmp_path / "t.npy", rng.normal(size=(6, D)).astype(np.float16))
    np.save(tmp_path / "c.npy", np.array([0, 0, 1, 1, 2, 2]))
    np.save(tmp_path / "y.npy", label_N)
    (tmp_path / "classes.txt").write_text("cat\ndog\nship\n")
    return {
        "image_embeddings": tmp_path / "x.npy",
        "text_embeddings": tmp_path / "t.npy",
        "text_classes": tmp_path / "c.npy",
        "labels": tmp_path / "y.npy",
        "classes": tmp_path / "classes.txt",
    }


def run(tmp_path, given, name="s.zarr", **changes):
    return import_arrays(ImportConfig(**{**given, **changes}), store=tmp_path / name)


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_rows_labels_and_text_arrive_normalised(tmp_path, given, monkeypatch):
    monkeypatch.setattr(arrays_module, "BLOCK_ROWS", 10)  # several blocks, the last one short
    summary = run(tmp_path, given)
    store = Store.open(tmp_path / "s.zarr")
    split = store.split("train")
    stored = split.embeddings(slice(None)).astype(np.float32)
    assert np.abs(stored - unit(np.load(given["image_embeddings"]))).max() < 1e-3
    assert split.label_N().tolist() == np.load(given["labels"]).tolist()
    assert split.keys()[:2] == ["row-00000000", "row-00000001"]
    assert split.complete
    assert store.classes == ("cat", "dog", "ship")
    assert np.allclose(np.linalg.norm(store.text().embedding_PD, axis=1), 1, atol=1e-5)
    assert store.text().class_P.tolist() == [0, 0, 1, 1, 2, 2]
    assert summary.to_json()["splits"][0]["ok"] == N
    assert run(tmp_path, given).splits[0].embedded == 0


def test_keys_in_any_order_keep_their_rows(tmp_path, given):
    keys = [f"img/{(i * 7) % N:03d}.jpg" for i in range(N)]
    (tmp_path / "keys.txt").write_text("\n".join(keys) + "\n")
    run(tmp_path, given, keys=tmp_path / "keys.txt")
    split = Store.open(tmp_path / "s.zarr").split("train")
    assert split.keys() == sorted(keys)
    x, y = unit(np.load(given["image_embeddings"])), np.load(given["labels"])
    stored = split.embeddings(slice(None)).astype(np.float32)
    for row, key in enumerate(split.keys()):
        assert np.abs(stored[row] - x[keys.index(key)]).max() < 1e-3
        assert split.label_N()[row] == y[keys.index(key)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_names_is_matched_by_key(tmp_path, given, kind):
    names = np.array(["cat", "dog", "ship"])[np.load(given["labels"])]
    keys = [f"k{i:02d}" for i in range(N)]
    table = pa.table({"path": keys[::-1], "label": names[::-1].tolist()})
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        path.write_text("path,label\n" + "\n".join(f"{k},{n}" for k, n in zip(*table.to_pydict().values())))
    else:
        pq.write_table(table, path)
    run(tmp_path, given, labels=path, keys=tmp_path / "keys.txt", classes=None)
    split = Store.open(tmp_path / "s.zarr").split("train")
    assert split.label_N().tolist() == np.load(given["labels"]).tolist()
    (tmp_path / "keys.txt").write_text("\n".join(f"z{i}" for i in range(N)))
    with pytest.raises(InputError, match=r"no row for 37 of 37 keys, e\.g\. 'z0'; its own are like 'k36'"):
        run(tmp_path, given, name="b.zarr", labels=path, keys=tmp_path / "keys.txt")


def test_truth_may_be_unknown_for_some_rows(tmp_path, given):
    truth_N = np.load(given["labels"])
    truth_N[3] = -1
    np.save(tmp_path / "truth.npy", truth_N)
    run(tmp_path, given, truth=tmp_path / "truth.npy")
    assert Store.open(tmp_path / "s.zarr").split("train").truth_N().tolist() == truth_N.tolist()


def test_without_text_zero_shot_is_announced_to_be_missing(tmp_path, given):
    run(tmp_path, given, text_embeddings=None, text_classes=None)
    with pytest.raises(StoreError, match="no text embeddings"):
        Store.open(tmp_path / "s.zarr").text()


def test_a_second_split_joins_the_store_and_another_model_does_not(tmp_path, given):
    run(tmp_path, given)
    run(tmp_path, given, split="test")
    assert Store.open(tmp_path / "s.zarr").split_names() == ("test", "train")
    np.save(tmp_path / "wide.npy", np.ones((N, D + 1), np.float32))
    wide = {"image_embeddings": tmp_path / "wide.npy", "text_embeddings": None, "text_classes": None}
    with pytest.raises(StoreError, match=r"size 8.*size 9"):
        run(tmp_path, given, **wide)
    run(tmp_path, given, **wide, replace=True)
    assert Store.open(tmp_path / "s.zarr").split("train").dim == D + 1


@pytest.mark.parametrize(
    ("name", "values", "error", "complaint"),
    [
        ("image_embeddings", np.ones((N,), np.float32), InputError, "floating-point"),
        ("image_embeddings", np.ones((N, D), np.int64), InputError, "floating-point"),
        ("image_embeddings", np.ones((N + 1, D), np.float32), InputError, "37 rows .* and 38"),
        ("text_embeddings", np.ones((6, D + 1), np.float32), InputError, "size 9, image embeddings 8"),
        ("text_embeddings", np.full((6, D), np.nan, np.float32), InputError, "not finite"),
        ("text_classes", np.array([0, 0, 1, 1, 2, 3]), InputError, "Row 6 of .*unknown class 3 .*3 classes, 0…2"),
        ("text_classes", np.array([0, 0, 1, 1, 1, 1]), InputError, "1 of 3 classes have no text.*'ship'"),
        ("text_classes", np.array([0, 1, 2]), InputError, "6 integers are needed"),
        ("labels", np.full(N, 3), InputError, "Row 1 of .*unknown class 3 .*37 such rows.*3 classes"),
        ("labels", np.full(N, -1), InputError, "Row 1 of .*unknown class -1"),
        ("labels", np.full(N, 0.5), InputError, "holds fractions"),
        ("labels", np.zeros((N, 1), np.int64), InputError, "a row of whole numbers"),
        ("labels", np.array(["cat"] * N, dtype=object), InputError, "not a plain .npy"),
    ],
)
def test_arrays_that_do_not_fit_are_told_and_nothing_is_written(tmp_path, given, name, values, error, complaint):
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(error, match=complaint):
        run(tmp_path, given, **{name: tmp_path / "bad.npy"})
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("which", ["image_embeddings", "text_embeddings"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e-25, 1e-40])
def test_rows_without_a_direction_are_named(tmp_path, given, which, value):
    values = np.load(given[which]).astype(np.float32)
    values[[2, 5]] = value
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(InputError, match=r"2, 5"):
        run(tmp_path, given, **{which: tmp_path / "bad.npy"})
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("scale", [1e-11, 1e30, 1e300])
def test_rows_of_any_length_keep_their_direction(tmp_path, given, scale):
    image_ND = np.random.default_rng(1).normal(size=(N, D))
    dtype = np.float32 if scale < 1e38 else np.float64
    np.save(tmp_path / "scaled.npy", (image_ND * scale).astype(dtype))
    run(tmp_path, given, image_embeddings=tmp_path / "scaled.npy")
    stored = Store.open(tmp_path / "s.zarr").split("train").embeddings(slice(None))
    assert np.abs(stored - unit(image_ND)).max() < 1e-3


def test_half_precision_that_would_overflow_a_square_is_fine(tmp_path, given):
    np.save(tmp_path / "big.npy", np.full((N, D), 60000, np.float16))
    run(tmp_path, given, image_embeddings=tmp_path / "big.npy")
    stored = Store.open(tmp_path / "s.zarr").split("train").embeddings(slice(None))
    assert np.abs(stored.astype(np.float32) - D**-0.5).max() < 1e-3


def test_misuse_is_told(tmp_path, given):
    with pytest.raises(InputError, match="no file"):
        run(tmp_path, given, image_embeddings=tmp_path / "nowhere.npy")
    with pytest.raises(UsageError, match="6 rows for 3 classes"):
        run(tmp_path, given, text_classes=None)
    with pytest.raises(UsageError, match="without --text-embeddings"):
        run(tmp_path, given, text_embeddings=None)
    (tmp_path / "keys.txt").write_text("\n".join(["a"] * N))
    with pytest.raises(InputError, match="'a' twice"):
        run(tmp_path, given, keys=tmp_path / "keys.txt")
