"""Label sets that others published, and the releases' caches: read, written, and refused where they do not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cleanctl.config import EmbedConfig, Noise
from cleanctl.datasets.noise import corrupt, label_hash
from cleanctl.datasets.source import open_source
from cleanctl.errors import InputError, UsageError
from cleanctl.files.fingerprints import digest_of

SETS = ("aggre", "worse", "random1", "random2", "random3")


def open_(source, **options):
    return open_source(EmbedConfig(source=source, **options))


def noisy(label_N: np.ndarray, seed: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(label_N)) < 0.4, rng.integers(0, classes, len(label_N)), label_N)


def write_human10(path: Path, clean_N: np.ndarray, **more) -> dict[str, np.ndarray]:
    """CIFAR-10_human.pt as its authors saved it: int64 arrays in a zip file of torch."""
    fields = {"clean_label": clean_N.astype(np.int64)}
    for seed, name in enumerate(SETS):
        field = f"random_label{name[-1]}" if name.startswith("random") else f"{name}_label"
        fields[field] = noisy(fields["clean_label"], seed, 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**fields, **more}, path)
    return fields


def write_seal(path: Path, clean_N: np.ndarray, noisy_N: np.ndarray) -> None:
    """As SEAL's authors wrote it: CRLF-free, a header, two columns of numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{clean},{wrong}\n" for clean, wrong in zip(clean_N.tolist(), noisy_N.tolist()))
    path.write_text("label,label_noisy\n" + rows)


@pytest.fixture
def cifar(build, tmp_path) -> Path:
    build("cifar10", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def clean(cifar) -> np.ndarray:
    return open_(cifar).splits[1].label_N


@pytest.mark.parametrize("place", ["CIFAR-10_human.pt", "cifar-10/CIFAR-10_human.pt", "a/b/c/CIFAR-10_human.pt"])
@pytest.mark.parametrize("name", SETS)
def test_each_human_label_set_is_found_below_the_source(cifar, clean, name, place):
    fields = write_human10(cifar / place, clean)
    dataset = open_(cifar, noise=f"human:{name}")
    train = dataset.splits[1]
    wanted = fields[f"random_label{name[-1]}" if name.startswith("random") else f"{name}_label"]
    assert train.label_N.tolist() == wanted.tolist()
    assert train.truth_N.tolist() == clean.tolist()
    made = dataset.label_set
    assert (made.noise, made.seed, made.order, made.file) == (f"human:{name}", None, "published", "CIFAR-10_human.pt")
    assert (made.digest, made.wrong) == (label_hash(wanted), np.mean(wanted != clean))
    assert f"label hash {made.digest}" in dataset.notes[-1]
    assert str(cifar / place) in dataset.notes[-1]


def test_a_human_label_set_beside_the_source_or_named_is_found_too(cifar, clean, tmp_path):
    fields = write_human10(tmp_path / "CIFAR-10_human.pt", clean)
    assert open_(cifar, noise="human:worse").splits[1].label_N.tolist() == fields["worse_label"].tolist()
    (tmp_path / "CIFAR-10_human.pt").rename(tmp_path / "mine.pt")
    found = open_(cifar, noise="human:worse", noise_file=tmp_path / "mine.pt")
    assert found.splits[1].label_N.tolist() == fields["worse_label"].tolist()
    with pytest.raises(InputError, match=r"no file 'CIFAR-10_human\.pt' below .*UCSC-REAL.*--noise-file"):
        open_(cifar, noise="human:worse")


def test_cifar100n_has_one_label_set(build, tmp_path):
    build("cifar100", tmp_path)
    clean_N = open_(tmp_path).splits[1].label_N.astype(np.int64)
    wrong_N = noisy(clean_N, 3, 100)
    coarse = {"noisy_coarse_label": [0] * 40, "clean_coarse_label": [0] * 40}
    torch.save({"clean_label": clean_N, "noisy_label": wrong_N, **coarse}, tmp_path / "CIFAR-100_human.pt")
    assert open_(tmp_path, noise="human:noisy").splits[1].label_N.tolist() == wrong_N.tolist()
    with pytest.raises(UsageError, match=r"human:worse is a label set of CIFAR-10, .*those of CIFAR-100"):
        open_(tmp_path, noise="human:worse")


def test_human_labels_need_their_dataset(cifar, build, tmp_path):
    with pytest.raises(UsageError, match="human:noisy is a label set of CIFAR-100"):
        open_(cifar, noise="human:noisy")
    build("mnist", tmp_path / "mnist")
    with pytest.raises(UsageError, match="those of another dataset"):
        open_(tmp_path / "mnist", noise="human:worse")


def test_names_of_the_users_own_change_no_label_set(cifar, clean, tmp_path):
    fields = write_human10(cifar / "CIFAR-10_human.pt", clean)
    (tmp_path / "names.txt").write_text("\n".join(f"thing {number}" for number in range(10)))
    renamed = {"classes": tmp_path / "names.txt"}
    assert open_(cifar, noise="human:aggre", **renamed).splits[1].label_N.tolist() == fields["aggre_label"].tolist()
    one, other = (open_(cifar, noise="asymmetric:0.9", seed=1, **options) for options in ({}, renamed))
    assert one.splits[1].label_N.tolist() == other.splits[1].label_N.tolist()
    assert other.classes[9] == "thing 9"


def test_a_label_set_whose_clean_labels_are_others_is_refused(cifar, clean):
    other = clean.copy()
    other[7] = (other[7] + 1) % 10
    write_human10(cifar / "CIFAR-10_human.pt", other)
    with pytest.raises(InputError, match=rf"Row 7 of .* clean label is {other[7]}; the dataset says {clean[7]}"):
        open_(cifar, noise="human:worse")
    write_seal(cifar / "dependent0.2.csv", other, clean)
    with pytest.raises(InputError, match=r"Row 7 of .*dependent0\.2\.csv"):
        open_(cifar, noise="seal:0.2")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"worse_label": np.zeros(39, np.int64)}, "has 39 rows; the split has 40"),
        ({"worse_label": np.full(40, 10)}, "Row 0 of .* has the label 10"),
        ({"worse_label": [[1]]}, "holds no array 'worse_label'"),
        ({"worse_label": np.ones(40)}, "holds no array 'worse_label'"),
        ({"clean_label": np.zeros(3, np.int64)}, "3 clean labels for 40 rows"),
        ({"clean_label": None}, "holds no array 'clean_label'"),
    ],
)
def test_an_odd_human_label_set_is_told(cifar, clean, more, words):
    write_human10(cifar / "CIFAR-10_human.pt", clean, **more)
    with pytest.raises(InputError, match=words):
        open_(cifar, noise="human:worse")


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_a_human_label_set_is_read_without_running_it(cifar, clean, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_human10(cifar / "CIFAR-10_human.pt", clean, extra=Attack())
    with pytest.raises(InputError, match=r"CIFAR-10_human\.pt' is not read: it asks for posix\.system"):
        open_(cifar, noise="human:worse")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("folder", ["", "INDnoise", "datasets/INDnoise"])
def test_the_csv_files_of_seal_are_found_by_their_rate(cifar, clean, folder):
    place, wrong_N = f"{folder}/dependent0.3.csv".lstrip("/"), noisy(clean, 5, 10)
    write_seal(cifar / place, clean, wrong_N)
    write_seal(cifar / "dependent0.1.csv", clean, clean)
    dataset = open_(cifar, noise="seal:0.3")
    assert dataset.splits[1].label_N.tolist() == wrong_N.tolist()
    assert dataset.label_set.wrong == np.mean(wrong_N != clean)
    named = open_(cifar, noise=f"csv:{cifar / place}")
    assert named.splits[1].label_N.tolist() == wrong_N.tolist()
    with pytest.raises(InputError, match=r"dependent0\.2\.csv.*chenpf1025/IDN"):
        open_(cifar, noise="seal:0.2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,noisy\n0,0\n", "no column 'label_noisy'; it has: label, noisy"),
        ("label,label_noisy\n0,0\n", "has 1 rows; the split has 40"),
        ("label,label_noisy\n" + "0,x\n" * 40, "'label_noisy' .* holds no numbers"),
        ("label,label_noisy\n" + "0,-1\n" * 40, "Row 0 of .* has the label -1"),
        ("label,label_noisy\n" + "0,\n" * 40, "empty values"),
        ("", "cannot be read"),
    ],
)
def test_an_odd_csv_is_told(cifar, tmp_path, text, words):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        open_(cifar, noise=f"csv:{tmp_path / 'x.csv'}")


def test_clipcleaners_cache_is_written_as_its_code_writes_it_and_read_again(cifar, clean):
    file = cifar / "0.5_sym_noise.json"
    first = open_(cifar, noise="symmetric:0.5", seed=3047, noise_file=file)
    assert "written to" in first.notes[-1]
    found = json.loads(file.read_bytes())
    assert list(found) == ["noise_labels", "closed_noise"]
    drawn_N = corrupt(clean, Noise.parse("symmetric:0.5"), classes="abcdefghij", seed=3047)
    assert found["noise_labels"] == drawn_N.tolist()
    assert len(found["closed_noise"]) == 20
    assert set(np.flatnonzero(drawn_N != clean).tolist()) <= set(found["closed_noise"])
    before = digest_of(file.read_bytes())
    again = open_(cifar, noise="symmetric:0.5", seed=3047, noise_file=file)
    assert again.splits[1].label_N.tolist() == found["noise_labels"]
    assert "seed 3047 gives the same labels" in again.notes[-1]
    assert digest_of(file.read_bytes()) == before


def test_defts_cache_is_a_list_and_is_taken_before_the_seed(cifar, clean):
    file = cifar / "noise_file/cifar10_sym_0.4"
    file.parent.mkdir()
    wrong_N = noisy(clean, 9, 10)
    file.write_text(json.dumps(wrong_N.tolist()))
    dataset = open_(cifar, noise="symmetric-deft:0.4", noise_file=file)
    assert dataset.splits[1].label_N.tolist() == wrong_N.tolist()
    assert "not those that seed 0 gives" in dataset.notes[-1]
    assert dataset.label_set.file == "cifar10_sym_0.4"
    assert open_(cifar, noise=f"json:{file}").splits[1].label_N.tolist() == wrong_N.tolist()
    file.unlink()
    made = open_(cifar, noise="idn:0.4", seed=1, noise_file=file)
    assert json.loads(file.read_bytes()) == made.splits[1].label_N.tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([0] * 39, "has 39 rows; the split has 40"),
        ([0] * 39 + [10], "Row 39 of .* has the label 10; the classes are 0 to 9"),
        ([0] * 39 + [1.5], r"Label 39 of .* is '1\.5', no class"),
        ([0] * 39 + [True], "is 'True', no class"),
        ({"closed_noise": []}, "holds no list of labels"),
        ({"format": "cleanctl label set 1", "labels": [0] * 40, "hash": "x"}, "do not have the hash"),
        (7, "holds no list of labels"),
    ],
)
def test_an_odd_cache_is_told(cifar, tmp_path, content, words):
    (tmp_path / "c.json").write_text(json.dumps(content))
    for options in (
        {"noise": "symmetric:0.4", "noise_file": tmp_path / "c.json"},
        {"noise": f"json:{tmp_path}/c.json"},
    ):
        with pytest.raises(InputError, match=words):
            open_(cifar, **options)
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        open_(cifar, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_file": "x"}, "--noise-file was given without --noise"),
        ({"noise": "csv:a.csv", "noise_file": "x"}, "Name one file"),
        ({"noise": "human:worse", "seed": 3}, "Nothing is drawn"),
        ({"noise": "symmetric:0.1", "noise_file": "s3://x/y"}, "a file of this machine"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        EmbedConfig(source="x", **options)
