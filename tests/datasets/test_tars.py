"""WebDataset tars: what is read from their headers, which samples, labels and splits they hold, what is refused."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from tars import jpeg, labelled, sample, walk, walk_until_damage, write_tar

from cleanctl.config import EmbedConfig
from cleanctl.datasets import webdataset
from cleanctl.datasets.source import open_files, open_source
from cleanctl.datasets.webdataset import splits_of
from cleanctl.errors import InputError, UsageError
from cleanctl.files.local import LocalStorage
from cleanctl.files.storage import CHANGED


def open_(source, **options):
    return open_source(EmbedConfig(source=source, **options))


def only(dataset):
    assert len(dataset.splits) == 1
    return dataset.splits[0]


def named(manifest, classes) -> dict[str, str]:
    return {key: classes[label] for key, label in zip(manifest.keys, manifest.label_N.tolist())}


def test_wherever_a_tar_is_cut_the_whole_samples_before_are_kept_and_the_cut_is_told(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", labelled(6)).read_bytes()
    found = walk(whole)
    end = max(at + -(-size // 512) * 512 for _, at, size in found)
    rng = np.random.default_rng(0)
    cuts = {0, 100, 512, *(at for _, at, _ in found), *rng.integers(1, end, 60).tolist(), end, end + 200}
    for cut in sorted(cuts):
        data = whole[:cut]
        kept, damage = walk_until_damage(data)
        assert kept == [member for member in found if member[1] + member[2] <= cut]
        assert damage is not None
        assert damage.offset <= cut
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/x.tar").write_bytes(whole[: found[6][1] + 10])  # in the fourth image
    dataset = open_(tmp_path / "cut")
    assert only(dataset).keys == ["x/00000", "x/00001", "x/00002"]
    (note,) = [note for note in dataset.notes if "damaged" in note]
    assert "'x.tar'" in note
    assert f"{found[6][1] - 512:,}" in note


def test_a_damaged_header_ends_its_tar_alone(tmp_path):
    data = bytearray(write_tar(tmp_path / "t/0.tar", labelled(4)).read_bytes())
    write_tar(tmp_path / "t/1.tar", labelled(4))
    at = walk(bytes(data))[4][1] - 512
    data[at + 3] ^= 1
    (tmp_path / "t/0.tar").write_bytes(data)
    dataset = open_(tmp_path / "t")
    assert [key for key in only(dataset).keys if key.startswith("0/")] == ["0/00000", "0/00001"]
    assert len(only(dataset)) == 6
    assert any("'0.tar'" in note and f"{at:,}" in note for note in dataset.notes)


def test_many_damaged_tars_are_counted_and_named(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", labelled(2)).read_bytes()
    (tmp_path / "cut").mkdir()
    for shard in range(40):
        (tmp_path / f"cut/{shard:03d}.tar").write_bytes(whole[: walk(whole)[-1][1]])
    notes = [note for note in open_(tmp_path / "cut").notes if "damaged" in note]
    assert len(notes) == 6
    assert notes[-1].startswith("35 more tars are damaged: 005.tar, 006.tar")


# --- samples and keys


def test_a_name_ends_at_the_first_dot_of_its_last_part(tmp_path):
    made = [
        *sample("./v1.2/a.b/0", jpeg(), kind="JPG", cls="cat"),
        *sample("plain", jpeg(), kind="WebP", cls="dog"),
        ("photo.2019.png", jpeg()),
        ("photo.cls", b"dog"),
        ("two.jpg", jpeg()),
        ("two.mask.png", jpeg()),
        ("two.cls", b"cat"),
        (".hidden.jpg", jpeg()),
        ("nodot", b""),
        ("lonely.cls", b"cat"),
    ]
    write_tar(tmp_path / "s.tar", made)
    dataset = open_(tmp_path)
    assert named(only(dataset), dataset.classes) == {
        "s/photo": "dog",
        "s/plain": "dog",
        "s/two": "cat",
        "s/v1.2/a.b/0": "cat",
    }
    assert any(note.startswith("4 members") for note in dataset.notes), dataset.notes


def test_bytes_read_are_the_images_whatever_the_order_asked_for(tmp_path):
    images = {f"{number:03d}": jpeg(number) for number in range(30)}
    for shard in range(3):
        part = [item for item in images.items() if int(item[0]) % 3 == shard]
        write_tar(tmp_path / f"{shard}.tar", [m for name, data in part[::-1] for m in sample(name, data, cls="cat")])
    files = open_(tmp_path).files
    assert files.keys == sorted(files.keys)
    order = np.random.default_rng(0).permutation(files.keys).tolist()
    for source in (files, pickle.loads(pickle.dumps(files))):
        assert [content.data for content in source.read(order)] == [images[key.split("/")[1]] for key in order]
        assert source.stat(order).size_N.tolist() == [len(images[key.split("/")[1]]) for key in order]
        assert [source.head(key, 7) for key in order] == [images[key.split("/")[1]][:7] for key in order]
    (missing,) = files.read(["0/nothing"])
    assert missing.reason
    assert files.stat(["0/nothing"]).size_N.tolist() == [-1]


def test_a_tar_that_changes_under_a_run_gives_reasons_and_no_wrong_bytes(tmp_path):
    write_tar(tmp_path / "s.tar", labelled(3))
    files = open_(tmp_path).files
    write_tar(tmp_path / "s.tar", labelled(4, start=1))
    assert [content.reason for content in files.read(files.keys)] == [CHANGED] * 3
    (tmp_path / "s.tar").unlink()
    assert all("not found" in content.reason for content in files.read(files.keys))


@pytest.mark.parametrize("second", ["a.jpg", "a.png"])
def test_two_images_under_one_name_are_refused_by_name(tmp_path, second):
    write_tar(tmp_path / "s.tar", [("a.jpg", jpeg()), ("a.cls", b"cat"), (second, jpeg(1))])
    with pytest.raises(InputError, match=r"'s\.tar'.*'a'"):
        open_(tmp_path)


def test_tars_that_would_give_the_same_keys_are_refused_by_name(tmp_path):
    write_tar(tmp_path / "x.tar", sample("y/z", jpeg(), cls="cat"))
    write_tar(tmp_path / "x/y.tar", sample("z", jpeg(), cls="cat"))
    with pytest.raises(InputError, match=r"'x/y/z'.*'x\.tar'.*'x/y\.tar'"):
        open_(tmp_path)
    with pytest.raises(InputError, match=r"'s\.TAR' and 's\.tar'"):
        webdataset.list_tars("x", LocalStorage("x"), ["s.TAR", "s.tar"], webdataset.LabelFields())


def test_one_tar_may_be_the_source(tmp_path):
    path = write_tar(tmp_path / "Some.TAR", labelled(3))
    dataset = open_(path)
    assert only(dataset).keys == ["Some/00000", "Some/00001", "Some/00002"]
    assert dataset.files.location == str(path)


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "s.tar.zst"])
def test_compressed_tars_are_refused_with_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(InputError, match=r"compressed.*Unpack"):
            open_(source)


def test_a_file_that_is_no_tar_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="no tar"):
        open_(tmp_path / "a.zip")


# --- labels


def img2dataset(root, count=30, *, caption="photograph {} of a street", **fields):
    for shard in range(2):
        made = []
        for number in range(count // 2):
            name = f"{shard:05d}{number:04d}"
            text = caption.format(name)
            record = {"caption": text, "url": "http://…", "key": name, "status": "success"}
            record |= {field: values[number % len(values)] for field, values in fields.items()}
            made += sample(name, jpeg(number), txt=text, json=record)
        write_tar(root / f"{shard:05d}.tar", made)
        (root / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (root / f"{shard:05d}_stats.json").write_text("{}")
    return root


def test_the_layout_of_img2dataset_with_labels_in_its_json(tmp_path):
    dataset = open_(img2dataset(tmp_path, label=["dog", "cat"], checked=["cat", "dog"]), truth_column="checked")
    manifest = only(dataset)
    assert (len(manifest), dataset.left_out, dataset.classes) == (30, 0, ("cat", "dog"))
    assert manifest.label_N[:2].tolist() == [1, 0]
    assert manifest.truth_N[:2].tolist() == [0, 1]
    assert manifest.keys[0] == "00000/000000000"


def test_captions_are_refused_as_classes_and_the_fields_are_named(tmp_path):
    img2dataset(tmp_path, species=["cat", "dog"])
    with pytest.raises(InputError, match=r"30 different texts.*captions.*--labels.*'00000/000000000'.*species"):
        open_(tmp_path)
    dataset = open_(tmp_path, label_column="species")
    assert named(only(dataset), dataset.classes)["00001/000010001"] == "dog"
    with pytest.raises(UsageError, match=r"'breed'.*caption, url, key, status, species"):
        open_(tmp_path, label_column="breed")


def test_texts_that_repeat_are_class_names(tmp_path):
    write_tar(tmp_path / "s.tar", [m for n in range(50) for m in sample(f"{n}", jpeg(n), txt=f"class {n % 25}\n")])
    assert len(open_(tmp_path).classes) == 25


def test_a_label_table_names_samples_by_key(tmp_path):
    img2dataset(tmp_path / "tars")
    table = tmp_path / "l.csv"
    table.write_text("path,label\n00001/000010003,dog\n00000/000000002,cat\n00000/000000099,cat\n")
    dataset = open_(tmp_path / "tars", labels=table)
    manifest = only(dataset)
    assert named(manifest, dataset.classes) == {
        "00000/000000002": "cat",
        "00000/000000099": "cat",
        "00001/000010003": "dog",
    }
    assert dataset.left_out == 28
    assert [bool(content.reason) for content in dataset.files.read(manifest.keys)] == [False, True, False]
    assert dataset.layout == "webdataset"


@pytest.mark.parametrize("label", [{"json": {"label": 1}}, {"cls": 1}])
def test_numbers_need_class_names(tmp_path, label):
    write_tar(tmp_path / "s.tar", sample("a", jpeg(), **label) + sample("b", jpeg(), **label))
    with pytest.raises(InputError, match=r"numbers.*--classes"):
        open_(tmp_path)
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    assert only(open_(tmp_path, classes=tmp_path / "c.txt")).label_N.tolist() == [1, 1]
    (tmp_path / "c.txt").write_text("cat\n")
    with pytest.raises(InputError, match="'s/a' has the unknown class 1"):
        open_(tmp_path, classes=tmp_path / "c.txt")


def test_a_cls_of_digits_is_a_number_by_the_rule_of_label_tables(tmp_path):
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    write_tar(tmp_path / "s.tar", sample("a", jpeg(), cls="1") + sample("b", jpeg(), cls="0"))
    assert only(open_(tmp_path, classes=tmp_path / "c.txt")).label_N.tolist() == [1, 0]
    write_tar(tmp_path / "s.tar", sample("a", jpeg(), cls="00010") + sample("b", jpeg(), cls="0"))
    assert open_(tmp_path).classes == ("0", "00010")


def test_samples_without_a_label_are_left_out_and_counted(tmp_path):
    made = [*labelled(2), *sample("none", jpeg()), *sample("empty", jpeg(), cls=""), *sample("bad", jpeg(), json="x")]
    write_tar(tmp_path / "s.tar", made)
    dataset = open_(tmp_path)
    assert (len(only(dataset)), dataset.left_out) == (2, 3)
    assert any(note.startswith("3 images") and ".cls" in note for note in dataset.notes)


def test_labels_that_no_array_holds_are_unknown_classes_and_odd_json_is_none(tmp_path):
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    for huge in ({"cls": "9" * 100}, {"json": {"label": 10**30}}):
        write_tar(tmp_path / "s.tar", sample("a", jpeg(), **huge) + sample("b", jpeg(), **huge))
        with pytest.raises(InputError, match="'s/a' has the unknown class"):
            open_(tmp_path, classes=tmp_path / "c.txt")
    deep = [("b.jpg", jpeg(1)), ("b.json", b"[" * 200_000), ("c.jpg", jpeg(2)), ("c.json", b'{"label": ["cat"]}')]
    write_tar(tmp_path / "s.tar", sample("a", jpeg(), json={"label": "cat"}) + deep)
    dataset = open_(tmp_path)
    assert (only(dataset).keys, dataset.left_out) == (["s/a"], 2)


def test_nothing_that_says_a_label_is_refused(tmp_path):
    write_tar(tmp_path / "s.tar", sample("a", jpeg(), json={"width": 3}))
    with pytest.raises(InputError, match=r"no field 'label' \(they have: width\)"):
        open_(tmp_path)
    write_tar(tmp_path / "s.tar", [("readme.md", b"x")])
    with pytest.raises(InputError, match="hold no images"):
        open_(tmp_path)


# --- splits and neighbours


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["a.tar", "b/c.tar"], ["train", "train"]),
        (["train/0.tar", "Validation/0.tar", "odd.tar"], ["train", "val", None]),
        (["x-train-000000.tar", "x-val-000000.tar"], ["train", "val"]),
        (["x-train-000000.tar", "x-000001.tar"], ["train", "train"]),
        (["train-or-test-0.tar", "x-test-1.tar"], ["train", "train"]),
        (["cc/training_00.tar", "cc/testing_00.tar"], ["train", "test"]),
        (["latest-0.tar", "trainer-1.tar"], ["train", "train"]),
    ],
)
def test_splits_of_tars(names, splits):
    assert [splits_of(names)[name] for name in names] == splits


def test_split_folders_of_tars_and_the_tar_outside_them(tmp_path):
    for name in ("train/0", "val/0", "odd"):
        write_tar(tmp_path / f"{name}.tar", labelled(2))
    dataset = open_(tmp_path)
    assert [(m.split, m.keys) for m in dataset.splits] == [
        ("train", ["train/0/00000", "train/0/00001"]),
        ("val", ["val/0/00000", "val/0/00001"]),
    ]
    assert dataset.left_out == 2
    assert open_(tmp_path, splits=("val",)).left_out == 4


def test_images_beside_tars_and_which_are_taken(tmp_path):
    write_tar(tmp_path / "s.tar", labelled(2))
    (tmp_path / "preview.jpg").write_bytes(jpeg())
    dataset = open_(tmp_path)
    assert (len(only(dataset)), dataset.left_out) == (2, 1)
    assert any("preview.jpg" in note for note in dataset.notes)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(jpeg())
    (tmp_path / "preview.jpg").unlink()
    dataset = open_(tmp_path)
    assert only(dataset).keys == ["cat/1.jpg", "dog/1.jpg"]
    assert any("s.tar" in note and "--dataset webdataset" in note for note in dataset.notes)
    assert len(only(open_(tmp_path, dataset="webdataset"))) == 2
    (tmp_path / "l.csv").write_text("path,label\ns/00001,dog\n")
    assert only(open_(tmp_path, labels=tmp_path / "l.csv")).keys == ["s/00001"]


def test_webdataset_without_tars_is_refused(tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg())
    with pytest.raises(InputError, match=r"holds no \.tar"):
        open_(tmp_path, dataset="webdataset")


# --- the index beside the store


def test_the_index_is_kept_and_only_changed_tars_are_walked_again(tmp_path, monkeypatch):
    walked = []
    index = webdataset.index_tar
    monkeypatch.setattr(
        webdataset, "index_tar", lambda storage, tar, fields: walked.append(tar.name) or index(storage, tar, fields)
    )
    for shard in range(3):
        write_tar(tmp_path / f"in/{shard}.tar", labelled(3 + shard, classes=("cat", "dog", "3")))
    config, cache = EmbedConfig(source=tmp_path / "in"), tmp_path / "s.tars.parquet"
    first = open_source(config, cache=cache)
    again = open_source(config, cache=cache)
    assert walked == ["0.tar", "1.tar", "2.tar"]
    assert [m.keys for m in again.splits] == [m.keys for m in first.splits]
    assert np.array_equal(only(again).label_N, only(first).label_N)
    assert again.classes == first.classes
    assert [c.data for c in again.files.read(only(first).keys)] == [c.data for c in first.files.read(only(first).keys)]
    os.utime(tmp_path / "in/1.tar", ns=(1, 1))
    open_source(config, cache=cache)
    assert walked[3:] == ["1.tar"]
    with pytest.raises(UsageError, match="truth"):  # another question to the label members
        open_source(EmbedConfig(source=tmp_path / "in", truth_column="truth"), cache=cache)
    assert len(walked) == 7
    cache.write_bytes(cache.read_bytes()[:-100])
    assert only(open_source(config, cache=cache)).keys == only(first).keys


def test_a_store_finds_its_tars_again(tmp_path):
    write_tar(tmp_path / "in/s.tar", labelled(3))
    dataset = open_(tmp_path / "in")
    keys = only(dataset).keys
    source = {"root": dataset.files.location, "layout": dataset.layout}
    files = open_files(source)
    assert [content.data for content in files.read(keys)] == [content.data for content in dataset.files.read(keys)]
    assert open_files({"root": str(tmp_path / "gone"), "layout": "webdataset"}) is None
    assert open_files({}) is None
