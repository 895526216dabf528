"""From what a user has lying about to a dataset: layouts, label tables, classes, splits, and clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanctl.config import EmbedConfig
from cleanctl.datasets.source import open_source
from cleanctl.errors import InputError, UsageError
from cleanctl.files.listing import find_images


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def config(root: Path, **options) -> EmbedConfig:
    return EmbedConfig(source=root, **options)


def table(file: Path, header: str, *rows: str) -> Path:
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


def contents(dataset) -> dict[str, dict[str, int]]:
    return {m.split: dict(zip(m.keys, m.label_N.tolist())) for m in dataset.splits}


# --- scanning --------------------------------------------------------------------------------------------------------


def test_images_are_found_sorted_by_extension_of_any_case_and_hidden_ones_left(tmp_path):
    touch(tmp_path, "b/2.JPG", "b/10.jpeg", "a/x.WebP", "a/._x.jpg", ".cache/y.png", "a/notes.txt", "a/z.jpg.part")
    assert find_images(tmp_path).keys == ["a/x.WebP", "b/10.jpeg", "b/2.JPG"]


def test_links_give_each_image_once_and_no_loop(tmp_path):
    touch(tmp_path / "root", "cat/1.jpg", "cat/deep/2.jpg")
    touch(tmp_path / "elsewhere", "3.jpg")
    (tmp_path / "root/cat/deep/up").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "root/aaa").symlink_to(tmp_path / "root/cat", target_is_directory=True)
    (tmp_path / "root/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "root/dog2").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "root/cat/link.jpg").symlink_to(tmp_path / "elsewhere/3.jpg")
    keys = find_images(tmp_path / "root").keys
    assert [key for key in keys if not key.startswith("dog")] == ["cat/1.jpg", "cat/deep/2.jpg", "cat/link.jpg"]
    assert len([key for key in keys if key.startswith("dog")]) == 1


def test_a_dangling_link_is_kept_to_fail_with_a_reason(tmp_path):
    touch(tmp_path, "cat/1.jpg")
    (tmp_path / "cat/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert "cat/gone.jpg" in find_images(tmp_path).keys


def test_a_name_that_is_no_text_is_left_out_and_counted(tmp_path):
    touch(tmp_path, "cat/1.jpg", "cat/größe 🐈.jpg")
    with open(os.fsencode(tmp_path) + b"/cat/\xff.jpg", "wb"):
        pass
    dataset = open_source(config(tmp_path))
    assert len(dataset.splits[0]) == 2
    assert any("UTF-8" in note for note in dataset.notes)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_are_one_split_named_train(tmp_path):
    touch(tmp_path, "dog/2.jpg", "cat/1.jpg", "cat/deep/er/3.png")
    dataset = open_source(config(tmp_path))
    assert dataset.classes == ("cat", "dog")
    assert contents(dataset) == {"train": {"cat/1.jpg": 0, "cat/deep/er/3.png": 0, "dog/2.jpg": 1}}
    assert dataset.splits[0].label_N.dtype == np.int32


@pytest.mark.parametrize("folder", ["val", "Valid", "validation"])
def test_split_folders_are_recognised_by_any_of_their_names(tmp_path, folder):
    touch(tmp_path, "train/b/1.jpg", "train/a/2.jpg", "testing/a/3.jpg", f"{folder}/b/4.jpg", "extra/a/5.jpg")
    dataset = open_source(config(tmp_path))
    assert contents(dataset) == {
        "test": {"testing/a/3.jpg": 0},
        "train": {"train/a/2.jpg": 0, "train/b/1.jpg": 1},
        "val": {f"{folder}/b/4.jpg": 1},
    }
    assert dataset.left_out == 1


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/1.jpg", "plane/2.jpg", "boat/3.jpg")
    assert open_source(config(tmp_path)).classes == ("boat", "plane", "train")


def test_a_test_folder_whose_class_is_unknown_is_left_out_and_noted(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/images/3.jpg")
    dataset = open_source(config(tmp_path))
    assert contents(dataset)["test"] == {"test/a/2.jpg": 0}
    assert dataset.left_out == 1
    assert any("test/images/3.jpg" in note for note in dataset.notes)


def test_a_class_file_gives_the_label_order(tmp_path):
    touch(tmp_path / "src", "b/1.jpg", "a/2.jpg")
    (tmp_path / "classes.txt").write_text("b\na\nunused\n\n")
    dataset = open_source(config(tmp_path / "src", classes=tmp_path / "classes.txt"))
    assert dataset.classes == ("b", "a", "unused")
    assert contents(dataset)["train"] == {"a/2.jpg": 1, "b/1.jpg": 0}


def test_splits_can_be_chosen_and_an_unknown_one_is_refused_with_the_known(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "validation/a/2.jpg", "test/a/3.jpg")
    assert list(contents(open_source(config(tmp_path, splits=("validation", "test"))))) == ["test", "val"]
    assert open_source(config(tmp_path, splits=("test",))).left_out == 2
    with pytest.raises(UsageError, match=r"'dev'.*test, train, val"):
        open_source(config(tmp_path, splits=("dev",)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "No images"),
        (["notes.txt"], "No images"),
        (["1.jpg", "2.jpg"], "no class folders"),
        (["train/1.jpg", "test/2.jpg"], "hold images directly"),
    ],
)
def test_a_folder_without_images_or_labels_is_refused(tmp_path, files, words):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=words) as caught:
        open_source(config(tmp_path))
    assert caught.value.do


def test_a_source_that_is_not_there_or_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_source(config(tmp_path / "no"))
    with pytest.raises(InputError, match="is a file"):
        open_source(config(touch(tmp_path, "x.jpg") / "x.jpg"))


def test_a_folder_that_no_class_names_is_refused(tmp_path):
    touch(tmp_path / "src", "cat/1.jpg", "dgo/2.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match="'dgo'"):
        open_source(config(tmp_path / "src", classes=tmp_path / "classes.txt"))


@pytest.mark.parametrize("text", ["", "cat\n\ndog\n", "cat\ncat\n"])
def test_a_class_file_with_gaps_or_repetitions_is_refused(tmp_path, text):
    touch(tmp_path / "src", "cat/1.jpg")
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match="class file"):
        open_source(config(tmp_path / "src", classes=tmp_path / "classes.txt"))


# --- label tables ----------------------------------------------------------------------------------------------------


@pytest.fixture
def animals(tmp_path) -> Path:
    return touch(tmp_path / "src", "train/cat/1.jpg", "train/cat/2.jpg", "train/dog/3.jpg", "test/dog/4.jpg", "x/9.jpg")


def test_the_tables_rows_are_the_dataset_and_other_images_are_counted(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "train/dog/3.jpg,cat", "./train/cat/1.jpg,dog")
    dataset = open_source(config(animals, labels=file))
    assert dataset.classes == ("cat", "dog")
    assert contents(dataset)["train"] == {"train/cat/1.jpg": 1, "train/dog/3.jpg": 0}
    assert dataset.left_out == 2


def test_a_test_folder_beside_the_table_is_embedded_by_its_folders_names(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "train/dog/3.jpg,cat", "train/cat/1.jpg,dog")
    dataset = open_source(config(animals, labels=file))
    assert contents(dataset)["test"] == {"test/dog/4.jpg": 1}
    assert any("'test'" in note for note in dataset.notes)
    assert list(contents(open_source(config(animals, labels=file, splits=("train",))))) == ["train"]


def test_a_split_column_says_all_there_is_to_say(animals, tmp_path):
    file = table(
        *(tmp_path / "l.csv", "path,label,split", "train/dog/3.jpg,dog,train", "train/cat/1.jpg,cat,validation")
    )
    assert list(contents(open_source(config(animals, labels=file)))) == ["train", "val"]


def test_numbers_need_names_and_class_folders_give_them(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,y", "train/cat/1.jpg,0", "train/cat/2.jpg,0", "train/dog/3.jpg,1")
    dataset = open_source(config(animals, labels=file, label_column="y"))
    assert dataset.classes == ("cat", "dog")
    assert any("label 0 is 'cat'" in note for note in dataset.notes)
    (tmp_path / "c.txt").write_text("puma\nwolf\n")
    named = open_source(config(animals, labels=file, label_column="y", classes=tmp_path / "c.txt"))
    assert named.classes == ("puma", "wolf")
    assert contents(named)["train"]["train/dog/3.jpg"] == 1


def test_numbers_that_do_not_follow_the_sorted_folders_are_refused(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "train/cat/1.jpg,1", "train/cat/2.jpg,1", "train/dog/3.jpg,0")
    with pytest.raises(InputError, match=r"0 of 2 folders agree.*--classes"):
        open_source(config(animals, labels=file))


def test_numbers_with_nothing_that_names_them_are_refused(tmp_path):
    touch(tmp_path / "src", "1.jpg", "2.jpg")
    file = table(tmp_path / "l.csv", "path,label", "1.jpg,0", "2.jpg,1")
    with pytest.raises(InputError, match="--classes"):
        open_source(config(tmp_path / "src", labels=file))


def test_parquet_floats_categories_and_a_truth_column_are_read(animals, tmp_path):
    columns = {
        "path": ["train/cat/1.jpg", "train/dog/3.jpg"],
        "label": pa.array(["dog", "dog"]).dictionary_encode(),
        "clean": ["cat", "dog"],
    }
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    manifest = open_source(config(animals, labels=tmp_path / "l.parquet", truth_column="clean")).splits[-1]
    assert (manifest.label_N.tolist(), manifest.truth_N.tolist()) == ([1, 1], [0, 1])
    pq.write_table(pa.table(columns | {"label": [1.0, 1.0], "clean": [0, 1]}), tmp_path / "l.parquet")
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    options = {"labels": tmp_path / "l.parquet", "truth_column": "clean", "classes": tmp_path / "c.txt"}
    manifest = open_source(config(animals, **options)).splits[-1]
    assert (manifest.label_N.tolist(), manifest.truth_N.tolist()) == ([1, 1], [0, 1])


def test_absolute_paths_into_the_source_and_windows_slashes_are_understood(animals, tmp_path):
    rows = (f"{animals.resolve()}/train/cat/1.jpg,cat", "train\\dog\\3.jpg,dog")
    file = table(tmp_path / "l.csv", "path,label", *rows)
    assert list(contents(open_source(config(animals, labels=file)))["train"]) == ["train/cat/1.jpg", "train/dog/3.jpg"]


def test_a_listed_file_that_is_missing_stays_a_row_and_is_noted(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "train/cat/1.jpg,cat", "train/dog/no.jpg,dog")
    dataset = open_source(config(animals, labels=file))
    assert "train/dog/no.jpg" in contents(dataset)["train"]
    assert any("1 of 2 rows" in note and "train/dog/no.jpg" in note for note in dataset.notes)


def test_a_table_whose_paths_match_nothing_shows_one_of_each_side(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "images/1.jpg,cat", "images/2.jpg,dog")
    with pytest.raises(InputError, match=r"0 of 2 paths.*'images/1\.jpg'.*'test/dog/4\.jpg'"):
        open_source(config(animals, labels=file))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["train/cat/1.jpg,cat", "train/cat/1.jpg,dog"], r"'train/cat/1\.jpg' twice, in rows 1 and 2"),
        (["train/cat/1.jpg,cat", "train/dog/3.jpg,"], "empty values, the first in row 2"),
        (["../outside.jpg,cat"], "Row 1 .* outside the source"),
        (["/etc/passwd.jpg,cat"], "Row 1 .* outside the source"),
        ([], "no rows"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(animals, tmp_path, rows, words):
    file = table(tmp_path / "l.csv", "path,label", *rows)
    with pytest.raises(InputError, match=words):
        open_source(config(animals, labels=file))


def test_an_unknown_class_in_the_table_is_named_with_its_row(animals, tmp_path):
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    file = table(tmp_path / "l.csv", "path,label", "train/cat/1.jpg,cat", "train/dog/3.jpg,dgo")
    with pytest.raises(InputError, match=r"Row 2 .*'dgo'.*cat, dog"):
        open_source(config(animals, labels=file, classes=tmp_path / "c.txt"))
    file = table(tmp_path / "l.csv", "path,label", "train/cat/1.jpg,0", "train/dog/3.jpg,2")
    with pytest.raises(InputError, match=r"Row 2 .* class 2 .*2 classes"):
        open_source(config(animals, labels=file, classes=tmp_path / "c.txt"))


def test_a_missing_column_is_refused_with_those_there_are(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,given", "train/cat/1.jpg,cat")
    with pytest.raises(UsageError, match=r"'label'.*path, given.*--label-column"):
        open_source(config(animals, labels=file))
    file = table(tmp_path / "l.csv", "file,label", "train/cat/1.jpg,cat")
    with pytest.raises(InputError, match="'path'"):
        open_source(config(animals, labels=file))


def test_a_file_that_is_no_table_is_refused(animals, tmp_path):
    (tmp_path / "l.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_source(config(animals, labels=tmp_path / "l.parquet"))
    with pytest.raises(InputError, match="does not exist"):
        open_source(config(animals, labels=tmp_path / "no.csv"))


def test_noise_is_applied_and_the_given_labels_become_the_truth(tmp_path):
    touch(tmp_path, *(f"{name}/{row}.jpg" for name in ("a", "b") for row in range(20)))
    manifest = open_source(config(tmp_path, noise="pair:0.5", seed=1)).splits[0]
    assert (manifest.label_N != manifest.truth_N).sum() == 20
    assert manifest.truth_N.tolist() == [0] * 20 + [1] * 20


def test_an_unknown_layout_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"imagnet.*animal10n.*clothing1m.*mini-webvision"):
        open_source(config(tmp_path, dataset="imagnet"))


def test_a_class_may_be_called_na_or_null(animals, tmp_path):
    file = table(tmp_path / "l.csv", "path,label", "train/cat/1.jpg,NA", "train/dog/3.jpg,null")
    assert open_source(config(animals, labels=file)).classes == ("NA", "null")
