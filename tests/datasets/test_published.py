"""Every published layout: what is distributed is opened as it is, in its own order, and what is missing is named."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_copy import Copy, copies, write_image
from scipy.io import savemat
from typer.testing import CliRunner

from cleanctl.cli import app
from cleanctl.config import EmbedConfig
from cleanctl.datasets.published.tiny_imagenet import distinct
from cleanctl.datasets.source import open_files, open_source
from cleanctl.errors import InputError, UsageError
from cleanctl.prompts.load import SETS
from cleanctl.prompts.prompt_set import resolve_prompts
from cleanctl.records import KNOWN_WRONG, Dataset
from cleanctl.registry import DATASETS

COPIES = copies()


@pytest.fixture(scope="module", params=COPIES, ids=lambda copy: f"{copy.title}-{copy.build.__name__}")
def copy(request) -> Copy:
    return request.param


@pytest.fixture(scope="module")
def folder(copy, tmp_path_factory) -> Path:
    """One a copy; read only."""
    folder = tmp_path_factory.mktemp("copy")
    copy.build(folder)
    return folder


def opened(copy: Copy, folder: Path, *, named: bool = True) -> Dataset:
    name = copy.dataset if named else None
    return open_source(EmbedConfig(source=folder, dataset=name, variant=copy.variant))


@pytest.fixture(scope="module")
def dataset(copy, folder) -> Dataset:
    return opened(copy, folder)


def test_it_is_recognised_from_its_folder(copy, folder, dataset):
    if copy.rivals:
        with pytest.raises(UsageError) as told:
            opened(copy, folder, named=False)
        for name in (copy.dataset, *copy.rivals):
            assert name in str(told.value)
        return
    found = opened(copy, folder, named=False)
    assert (found.layout, found.classes) == (copy.dataset, dataset.classes)
    assert found.notes == (f"{str(folder)!r} is recognised as the dataset {copy.dataset}.", *dataset.notes)
    assert [split.keys for split in found.splits] == [split.keys for split in dataset.splits]


def test_splits_keys_and_labels_are_those_of_the_lists(copy, dataset):
    assert dataset.layout == copy.dataset
    assert {split.split: len(split) for split in dataset.splits} == {
        name: len(rows) for name, rows in copy.rows.items()
    }
    for split in dataset.splits:
        assert split.keys == sorted(split.keys)
        labels = dict(zip(split.keys, split.label_N.tolist()))
        assert labels == {row[0]: row[1] for row in copy.rows[split.split]}
        assert split.label_N.dtype == np.int32


def test_the_truth_is_what_can_be_known(copy, dataset):
    for split in dataset.splits:
        truth = {row[0]: row[2] for row in copy.rows[split.split] if len(row) == 3}
        if not truth:
            assert split.truth_N is None
        else:
            assert dict(zip(split.keys, split.truth_N.tolist())) == truth


def test_rows_know_their_place_in_the_published_order(copy, dataset):
    for split in dataset.splits:
        if split.split not in copy.ordered:
            assert split.published_N is None
            continue
        by_place = np.argsort(split.published_N, kind="stable")
        assert [split.keys[row] for row in by_place.tolist()] == [row[0] for row in copy.rows[split.split]]


def test_classes_are_named_in_label_order(copy, dataset):
    assert len(dataset.classes) == len(set(dataset.classes)) == copy.num_classes
    assert {number: dataset.classes[number] for number in copy.names} == copy.names


def test_every_image_can_be_read(dataset):
    for split in dataset.splits:
        for content in dataset.files.read(split.keys):
            assert content.reason == ""
            Image.open(io.BytesIO(content.data)).load()


def test_a_store_of_it_finds_the_same_bytes_again(dataset):
    files = open_files({"root": dataset.files.location, "layout": dataset.layout})
    for split in dataset.splits:
        first = [content.data for content in dataset.files.read(split.keys)]
        assert [content.data for content in files.read(split.keys)] == first


def test_a_missing_annotation_file_is_named(copy, folder, tmp_path):
    for name in copy.annotations:
        part = tmp_path / name.replace("/", "-")
        shutil.copytree(folder, part)
        (part / name).unlink()
        words = ["embed", str(part), "--store", str(tmp_path / "s.zarr"), "--dataset", copy.dataset]
        done = CliRunner().invoke(app, words + (["--variant", copy.variant] if copy.variant else []))
        told = " ".join(done.output.replace("│", " ").split())
        assert done.exit_code == 3, told
        assert Path(name).name in told.replace(" ", ""), told


def test_every_published_dataset_has_a_copy():
    places = {name for name, place in DATASETS.built_in.items() if ".published." in place}
    assert places == {copy.dataset for copy in COPIES}


def test_names_of_the_command_line_are_checked_against_the_layout(copy, folder, tmp_path):
    (tmp_path / "few.txt").write_text("cat\n")
    with pytest.raises((InputError, UsageError), match=r"--classes (names 1|.*does not apply)|the classes are 0 to 0"):
        open_source(
            EmbedConfig(source=folder, dataset=copy.dataset, variant=copy.variant, classes=tmp_path / "few.txt")
        )


def test_a_variant_that_is_not_there_is_refused(copy, folder):
    with pytest.raises(UsageError, match="--variant"):  # or that the layout has none
        opened(replace(copy, variant="9.9"), folder)


# ---- quirks of one layout each


def copy_of(dataset: str, variant: str | None = None) -> Copy:
    return next(copy for copy in COPIES if (copy.dataset, copy.variant) == (dataset, variant))


def built(dataset: str, folder: Path, variant: str | None = None, *, holding: str = "") -> Path:
    """The first copy of a dataset in `folder`, or the first that needs the file `holding`, if one does."""
    of_it = [copy for copy in COPIES if (copy.dataset, copy.variant) == (dataset, variant)]
    next((copy for copy in of_it if holding in copy.annotations), of_it[0]).build(folder)
    return folder


@pytest.mark.parametrize(
    ("dataset", "variant", "file", "line", "words"),
    [
        ("clothing1m", None, "noisy_label_kv.txt", "images/0/a.jpg", "Line 1 of .*a path and the number of a class"),
        ("clothing1m", None, "clean_val_key_list.txt", "images/9/99/z.jpg", "no label, e.g. 'images/9/99/z.jpg'"),
        ("mini-webvision", None, "info/train_filelist_google.txt", "google/q0001/x.jpg -3", "Line 1"),
        ("mini-webvision", None, "info/val_filelist.txt", "", "is empty"),
        ("cub-200-2011", None, "images.txt", "1", "Line 1 of .*a new id"),
        ("cub-200-2011", None, "images.txt", "77 a/b.jpg", "not in image_class_labels.txt, e.g. 'a/b.jpg'"),
        ("cub-200-2011", None, "image_class_labels.txt", "1 one", "'one' .*no number"),
        ("cub-200-2011", None, "classes.txt", "2 002.B", "numbered from 1"),
        ("stanford-cars", None, "devkit/cars_meta.mat", "MATLAB 5.0 MAT-file", "'class_names' was expected"),
        ("tiny-imagenet", None, "wnids.txt", "cat", "Line 1 .*a synset such as"),
        ("tiny-imagenet", None, "wnids.txt", "n00000001", "none of the 1 synsets"),
        ("tiny-imagenet", None, "words.txt", "n02124075\tcat", "no words for 3 of 4 synsets"),
        ("tiny-imagenet", None, "val/val_annotations.txt", "val_0.JPEG n02124075", "Line 1 .*a tab"),
        ("red-mini-imagenet", "0.4", "split/red_noise_nl_0.4", "0a.jpg 100", "unknown class 100"),
        ("red-mini-imagenet", "0.4", "split/clean_validation", "a.jpg 1\na.jpg 1", "listed twice"),
        ("red-mini-imagenet", "0.4", "mini-imagenet-annotations.json", '{"data": [[]]}', "image/id"),
        ("red-mini-imagenet", "0.4", "mini-imagenet-annotations.json", '{"data": [[{"image/id": 3}]]}', "KeyError"),
    ],
)
def test_an_odd_annotation_is_told_with_what_was_expected(tmp_path, dataset, variant, file, line, words):
    built(dataset, tmp_path, variant, holding=file)
    (tmp_path / file).write_text(line)
    with pytest.raises(InputError, match=words):
        open_source(EmbedConfig(source=tmp_path, dataset=dataset, variant=variant))


@pytest.mark.parametrize(
    ("dataset", "variant", "folder"),
    [
        ("animal10n", None, "testing"),
        ("clothing1m", None, "images"),
        ("cub-200-2011", None, "images"),
        ("mini-webvision", None, "google"),
        ("mini-webvision", None, "val_images_256"),
        ("webvision", None, "flickr"),
        ("red-mini-imagenet", "0.4", "all_images"),
        ("red-mini-imagenet", "0.4", "all_validation"),
    ],
)
def test_a_folder_of_images_that_is_not_there_is_named(tmp_path, dataset, variant, folder):
    built(dataset, tmp_path, variant)
    shutil.rmtree(tmp_path / folder)
    with pytest.raises(InputError, match=f"'{folder}/?' of the layout {dataset} is not in"):
        open_source(EmbedConfig(source=tmp_path, dataset=dataset, variant=variant))


def test_windows_line_ends_and_spaces_at_the_end_are_no_part_of_a_label(tmp_path):
    file = built("mini-webvision", tmp_path) / "info/train_filelist_google.txt"
    file.write_bytes(b"google/q0001/a b.jpg 0 \r\ngoogle/q0002/\xc3\xa9.jpg 1\r\n\r\n")
    train = open_source(EmbedConfig(source=tmp_path, dataset="mini-webvision")).splits[1]
    assert dict(zip(train.keys, train.label_N.tolist())) == {"google/q0001/a b.jpg": 0, "google/q0002/é.jpg": 1}


def test_a_level_of_noise_must_be_named_where_there_are_two(tmp_path):
    built("red-mini-imagenet", tmp_path, "0.4")
    with pytest.raises(UsageError, match=r"--variant: 0\.2; 0\.4"):
        open_source(EmbedConfig(source=tmp_path))
    (tmp_path / "split/red_noise_nl_0.2").unlink()
    assert len(open_source(EmbedConfig(source=tmp_path)).splits[0]) == len(
        copy_of("red-mini-imagenet", "0.4").rows["train"]
    )


def test_the_balanced_subset_of_clothing1m_is_drawn_once_by_its_seed(tmp_path):
    built("clothing1m", tmp_path)

    def train(seed: int, size: int = 28) -> Dataset:
        return open_source(EmbedConfig(source=tmp_path, variant=f"balanced:{size}", seed=seed))

    first, again, other = train(3), train(3), train(4)
    subset = {split.split: split for split in first.splits}["train"]
    assert np.bincount(subset.label_N).tolist() == [2] * 14
    assert [split.keys for split in first.splits] == [split.keys for split in again.splits]
    assert first.notes == again.notes
    assert [note for note in first.notes if "hash" in note] != [note for note in other.notes if "hash" in note]
    assert {split.split: len(split) for split in other.splits} == {"train": 28, "val": 14, "test": 14, "clean_train": 3}
    # By hand: shuffled keys, each taken while its class has less than 20/14, that is at most two, until there are 20.
    small = {split.split: split for split in train(3, size=20).splits}["train"]
    assert (len(small), np.bincount(small.label_N, minlength=14).max()) == (20, 2)
    for variant in ("balanced", "balanced:0", "unbalanced:3"):
        with pytest.raises(UsageError, match="balanced:32000"):
            open_source(EmbedConfig(source=tmp_path, variant=variant))


def test_class_folders_of_other_data_are_no_published_dataset(tmp_path):
    for name in ("training/cat/1.jpg", "testing/cat/2.jpg", "google/q0001/3.jpg", "images/0/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert open_source(EmbedConfig(source=tmp_path)).layout == "split folders"


def test_a_label_table_beside_a_published_dataset_is_followed(tmp_path):
    built("animal10n", tmp_path)
    (tmp_path / "mine.csv").write_text("path,label\ntraining/0_7.jpg,tabby\n")
    dataset = open_source(EmbedConfig(source=tmp_path, labels=tmp_path / "mine.csv"))
    assert (dataset.layout, dataset.classes) == ("label table", ("tabby",))


def test_ilsvrc_by_synset_gives_the_first_classes_and_none_may_be_missing(tmp_path):
    built("mini-webvision", tmp_path)
    from cleanctl.datasets.published.synsets import ilsvrc_synsets

    (tmp_path / "imagenet_val").mkdir()
    for number, synset in enumerate(ilsvrc_synsets()[:60]):
        (tmp_path / "imagenet/val/0").rename(tmp_path / "x") if number == 0 else None
        shutil.copytree(tmp_path / "x", tmp_path / "imagenet_val" / synset)
    split = open_source(EmbedConfig(source=tmp_path, splits=("ilsvrc",))).splits[0]
    assert (len(split), split.label_N.tolist()) == (50, list(range(50)))
    assert split.keys[1].startswith("imagenet_val/n01443537/")
    shutil.rmtree(tmp_path / "imagenet_val/n01443537")
    with pytest.raises(InputError, match=r"1 of the 50 class folders .*'imagenet_val/n01443537'"):
        open_source(EmbedConfig(source=tmp_path))


@pytest.mark.parametrize("copy", [copy for copy in COPIES if copy.dataset != "webvision"], ids=lambda copy: copy.title)
def test_a_shipped_prompt_set_knows_the_classes_where_one_is_made_for_them(copy, tmp_path):
    copy.build(tmp_path)
    chosen = resolve_prompts("features", opened(copy, tmp_path).classes)
    shipped = {path.stem for path in SETS.glob("*.toml")}
    assert chosen.name == (f"features:{copy.dataset}" if copy.dataset in shipped else "ensemble")


def test_a_copy_that_holds_less_than_is_shipped_is_told(tmp_path):
    notes = open_source(EmbedConfig(source=built("clothing1m", tmp_path))).notes
    assert "Split 'train' has 42 images; clothing1m is shipped with 1,000,000." in notes
    assert "Split 'test' has 14 images; clothing1m is shipped with 10,526." in notes
    drawn = open_source(EmbedConfig(source=tmp_path, variant="balanced:28")).notes
    assert not any("1,000,000" in note for note in drawn)
    assert any("10,526" in note for note in drawn)


def test_synsets_that_begin_alike_are_told_apart():
    synsets = ["n02012849", "n03126707", "n03710637", "n03710721"]
    words = [("crane",), ("crane",), ("maillot",), ("maillot", "tank suit")]
    assert distinct(synsets, words) == ("crane (n02012849)", "crane (n03126707)", "maillot (n03710637)", "tank suit")
    assert distinct(["a", "b"], [("tabby", "tabby cat"), ("Egyptian cat",)]) == ("tabby", "Egyptian cat")


def test_annotations_of_the_cars_test_images_without_labels_are_refused(tmp_path):
    built("stanford-cars", tmp_path, holding="devkit/cars_meta.mat")
    kinds = [(name, object) for name in ("bbox_x1", "fname")]
    rows = np.array([[(1.0, "00001.jpg")]], dtype=kinds)
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": rows})
    with pytest.raises(InputError, match="no class and fname"):
        open_source(EmbedConfig(source=tmp_path))


def test_folders_of_cars_are_not_taken_for_those_of_animals(tmp_path):
    for split, name in (("train", "Audi TT 2011"), ("train", "a dog"), ("test", "Audi TT 2011")):
        write_image(tmp_path / split / name / "1.jpg", 0)
    assert open_source(EmbedConfig(source=tmp_path)).layout == "split folders"


def test_folders_that_hold_two_datasets_are_told_with_both(tmp_path):
    built("cub-200-2011", tmp_path)
    built("clothing1m", tmp_path)
    with pytest.raises(UsageError, match=r"clothing1m, cub-200-2011.*--dataset"):
        open_source(EmbedConfig(source=tmp_path))


def test_noise_on_labels_known_to_be_wrong_leaves_nobody_knowing(tmp_path):
    built("red-mini-imagenet", tmp_path, "0.4")
    config = EmbedConfig(source=tmp_path, variant="0.4", noise="symmetric:0.9", seed=1)
    plain, noisy = open_source(replace(config, noise=None, seed=0)).splits[0], open_source(config).splits[0]
    changed = noisy.label_N != plain.label_N
    wrong = plain.truth_N == KNOWN_WRONG
    assert (changed & wrong).any()
    assert set(noisy.truth_N[changed & wrong].tolist()) == {-1}
    assert noisy.truth_N.dtype == np.int32
    assert np.array_equal(noisy.truth_N[~(changed & wrong)], plain.truth_N[~(changed & wrong)])
