"""One reader and one rule of what is a number, in `embed --labels` and in `import`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanctl.api import import_arrays
from cleanctl.config import EmbedConfig, ImportConfig
from cleanctl.datasets.columns import read_columns
from cleanctl.datasets.source import open_source
from cleanctl.errors import InputError
from cleanctl.store import Store

LABELS = {  # text of three labels → their classes by name, or None where they are the numbers of --classes
    "numbers": (["2", "0", "1"], None),
    "numbers as pandas writes them beside an empty value": (["2.0", "0.0", "1.0"], None),
    "a leading zero makes names": (["00010", "0", "1"], ["0", "00010", "1"]),
    "a sign makes names": (["+1", "0", "1"], ["+1", "0", "1"]),
    "a fraction makes names": (["0.5", "0", "1"], ["0", "0.5", "1"]),
    "an exponent makes names": (["1e1", "0", "1"], ["0", "1", "1e1"]),
    "more digits than a number has": (["9" * 40, "0", "1"], ["0", "1", "9" * 40]),
    "words": (["NA", "null", "nan"], ["NA", "nan", "null"]),
    "dates": (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-01", "2020-01-02", "2020-01-03"]),
}
KEYS = ["00010", "0.0", "1"]  # keys are text, whatever they look like


def write(path: Path, columns: dict[str, list[str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("\n".join(mark.join(row) for row in [list(columns), *zip(*columns.values())]) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("labels", LABELS)
def test_embed_and_import_read_the_same_keys_and_classes(tmp_path, suffix, labels):
    texts, names = LABELS[labels]
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    classes = None if names else tmp_path / "classes.txt"
    for key in KEYS:
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / key).write_bytes(b"")
    table = write(tmp_path / f"l.{suffix}", {"path": KEYS, "label": texts, "truth": texts[::-1]})

    embedded = open_source(EmbedConfig(source=tmp_path / "src", labels=table, truth_column="truth", classes=classes))
    (manifest,) = embedded.splits
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    import_arrays(
        ImportConfig(image_embeddings=tmp_path / "x.npy", labels=table, truth=table, classes=classes),
        store=tmp_path / "s.zarr",
    )
    store = Store.open(tmp_path / "s.zarr")
    split = store.split("train")
    assert split.keys() == manifest.keys == sorted(KEYS)
    assert store.classes == embedded.classes == tuple(names or ("cat", "dog", "owl"))
    assert split.label_N().tolist() == manifest.label_N.tolist()
    assert split.truth_N().tolist() == manifest.truth_N.tolist()
    said = dict(zip(KEYS, texts))
    wanted = [names.index(said[key]) if names else int(float(said[key])) for key in manifest.keys]
    assert manifest.label_N.tolist() == wanted


@pytest.mark.parametrize("suffix", ["txt", "npy"])
@pytest.mark.parametrize("labels", LABELS)
def test_a_text_and_an_array_follow_the_same_rule(tmp_path, suffix, labels):
    texts, names = LABELS[labels]
    path = tmp_path / f"l.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(texts))
    else:
        np.save(path, np.array(texts))
    columns = read_columns(path, "--labels")
    assert columns.text() == texts
    assert columns.labels().tolist() == (texts if names else [int(float(text)) for text in texts])
    assert (columns.labels().dtype == object) == bool(names)


@pytest.mark.parametrize("values", [[2.0, 0.0], [2, 0], np.array([2, 0], np.uint8)])
def test_stored_numbers_are_numbers(tmp_path, values):
    np.save(tmp_path / "l.npy", values)
    pq.write_table(pa.table({"": values}), tmp_path / "l.parquet")
    for name in ("l.npy", "l.parquet"):
        assert read_columns(tmp_path / name, "--labels").labels().tolist() == [2, 0]


def test_an_unknown_truth_is_empty_or_minus_one(tmp_path):
    for text, wanted in (("1\n\n-1", [1, -1, -1]), ("cat\n\ndog", ["cat", "", "dog"])):
        (tmp_path / "t.txt").write_text(text)
        columns = read_columns(tmp_path / "t.txt", "--truth")
        assert columns.labels(unknown=True).tolist() == wanted
        with pytest.raises(InputError, match="empty values, the first in row 2"):
            columns.labels()


def refused(tmp_path, table: str, words: str) -> None:
    """By both verbs, and import leaves no store."""
    (tmp_path / "l.csv").write_text(table)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(b"")
    np.save(tmp_path / "x.npy", np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match=words):
        open_source(EmbedConfig(source=tmp_path / "src", labels=tmp_path / "l.csv"))
    config = ImportConfig(image_embeddings=tmp_path / "x.npy", labels=tmp_path / "l.csv")
    with pytest.raises(InputError, match=words):
        import_arrays(config, store=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_two_columns_of_one_name_are_refused(tmp_path):
    refused(tmp_path, "path,label,label\na.jpg,cat,dog\nb.jpg,cat,dog\n", "2 columns named 'label'")


def test_a_nul_byte_in_a_path_is_refused(tmp_path):
    refused(tmp_path, "path,label\na.jpg,cat\nb\0.jpg,dog\n", "Row 2 of .* NUL byte")


@pytest.mark.parametrize("split", ["..", "a/b", ".hidden", "x\x1b[31m", "zarr.json"])
def test_a_split_that_would_leave_the_store_is_refused_with_its_row(tmp_path, split):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(b"")
    (tmp_path / "l.csv").write_text(f"path,label,split\na.jpg,cat,train\nb.jpg,dog,{split}\n")
    with pytest.raises(InputError, match=r"Row 2 of .*l\.csv.* the split"):
        open_source(EmbedConfig(source=tmp_path / "src", labels=tmp_path / "l.csv"))
