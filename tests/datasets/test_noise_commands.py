"""`embed --noise` writes its labels beside the store, one file a recipe; published seeds at their real size."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cleanctl.cli import app
from cleanctl.datasets.noise import label_hash
from cleanctl.store import Store

SHARED = Path(__file__).parents[3] / "shared/data"
CIFAR_TABLE = SHARED / "cifar10/labels_train.csv"
CIFAR100_LABELS = SHARED / "cifar100/CIFAR-100_human.pt"
COLUMNS = {"human:aggre": "cifar10n_aggre", "human:random1": "cifar10n_random1", "human:worse": "cifar10n_worse"}


@pytest.fixture
def embed(tiny_model, tmp_path):
    """(source, words of the command line) → what was told; the store is s.zarr."""

    def run(source, *words: str) -> str:
        model = ["--model", f"local-dir:{tiny_model}", "--prompts", "photo", "--device", "cpu"]
        loading = ["--loader", "torch", "--workers", "0", "--split", "train", "--store", str(tmp_path / "s.zarr")]
        done = CliRunner().invoke(app, ["embed", str(source), *model, *loading, *words])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.replace("│", " ").split())

    return run


def test_the_label_set_lies_beside_the_store_and_follows_the_recipe(embed, build, tmp_path):
    build("cifar10", tmp_path / "data")
    file = tmp_path / "s.train.noise.json"
    told = embed(tmp_path / "data", "--noise", "symmetric:0.5", "--seed", "3")
    first = file.read_bytes()
    found = json.loads(first)
    store = Store.open(tmp_path / "s.zarr")
    split = store.split("train")
    assert found["labels"] == split.label_N().tolist()
    wrong = np.mean(split.label_N() != split.truth_N())
    assert found | {"labels": None} == {
        "format": "cleanctl label set 1", "split": "train", "noise": "symmetric:0.5", "seed": 3, "read_from": None,
        "order": "published", "rows": 40, "changed": round(40 * wrong), "wrong": wrong,
        "hash": label_hash(split.label_N()), "classes": list(store.classes), "labels": None,
    }  # fmt: skip
    assert store.source["label_hash"] == found["hash"]
    assert "s.train.noise.json" in told
    assert found["hash"] in told

    written = file.stat().st_mtime_ns
    assert "written to s.train.noise.json" not in embed(tmp_path / "data", "--noise", "symmetric:0.5", "--seed", "3")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (first, written)

    embed(tmp_path / "data", "--noise", "pair:0.5", "--seed", "3")
    assert json.loads(file.read_bytes())["noise"] == "pair:0.5"
    kept = tmp_path / "kept.json"
    kept.write_bytes(first)
    embed(tmp_path / "data", "--noise", f"json:{kept}")
    again = json.loads(file.read_bytes())
    assert (again["labels"], again["hash"], again["noise"]) == (found["labels"], found["hash"], "json:kept.json")
    assert again["read_from"]["file"] == "kept.json"

    embed(tmp_path / "data")
    assert not file.exists(), "the labels are the dataset's own again"
    assert Store.open(tmp_path / "s.zarr").source["label_hash"] is None


def test_shards_write_one_label_set(embed, build, tmp_path):
    build("cifar10", tmp_path / "data")
    for number in range(2):
        embed(tmp_path / "data", "--noise", "symmetric:0.5", "--shard", f"{number}/2")
    found = json.loads((tmp_path / "s.train.noise.json").read_bytes())
    assert found["labels"] == Store.open(tmp_path / "s.zarr").split("train").label_N().tolist()


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    if not CIFAR_TABLE.is_file():
        pytest.skip("needs CIFAR-10's labels beside the checkout")
    with open(CIFAR_TABLE) as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def real_size(table, layout, tmp_path_factory) -> Path:
    """CIFAR-10 pickles with the published 50,000 labels, CIFAR-10N and SEAL's files; pixels are random."""
    folder = tmp_path_factory.mktemp("real")
    column = {name: np.array([int(row[name]) for row in table]) for name in table[0] if name != "path"}
    layout("cifar").build_cifar10(folder, train=column["clean"])
    fields = {"aggre_label": "cifar10n_aggre", "random_label1": "cifar10n_random1", "worse_label": "cifar10n_worse"}
    human = {"clean_label": column["clean"], **{field: column[name] for field, name in fields.items()}}
    torch.save(human, folder / "CIFAR-10_human.pt")
    for rate in ("0.1", "0.4"):
        rows = "".join(f"{clean},{wrong}\n" for clean, wrong in zip(column["clean"], column[f"idn_{rate}"]))
        (folder / f"dependent{rate}.csv").write_text("label,label_noisy\n" + rows)
    return folder


def label_set(embed, folder: Path, tmp_path: Path, *words: str) -> dict:
    """A thousandth of the rows is embedded; the labels are all of them."""
    embed(folder, "--shard", "0/1000", *words)
    return json.loads((tmp_path / "s.train.noise.json").read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "wrong", "digest"),
    [
        ("symmetric:0.2", 0.18084, "2665a799e7a7ca28"),
        ("symmetric:0.5", 0.45024, "eb084b288eff675d"),
        ("symmetric:0.8", 0.71848, "3a50930139d4ece1"),
        ("symmetric:0.9", 0.80956, "c8113ad72a127821"),
        ("asymmetric:0.4", 0.2008, "3252de085bf1991e"),
    ],
)
def test_the_published_labels_of_cifar10_come_from_the_command_line(embed, real_size, tmp_path, noise, wrong, digest):
    found = label_set(embed, real_size, tmp_path, "--noise", noise, "--seed", "3047")
    assert (found["hash"], found["rows"]) == (digest, 50_000)
    assert found["wrong"] == pytest.approx(wrong, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "column", "wrong"),
    [
        ("human:aggre", "cifar10n_aggre", 0.0901),
        ("human:random1", "cifar10n_random1", 0.17234),
        ("human:worse", "cifar10n_worse", 0.40208),
        ("seal:0.1", "idn_0.1", 0.1),
        ("seal:0.4", "idn_0.4", 0.4),
    ],
)
def test_published_label_sets_come_from_the_command_line(embed, real_size, table, tmp_path, noise, column, wrong):
    found = label_set(embed, real_size, tmp_path, "--noise", noise)
    assert found["labels"] == [int(row[column]) for row in table]
    assert found["wrong"] == pytest.approx(wrong, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "seed", "digest_of_zeros", "digest"),
    [
        ("symmetric:0.5", 3047, "03061ec7cce76718", "fcf156420eb54852"),
        ("symmetric-deft:0.2", 0, "86a1aaf13e35c879", "f5dd127b46f073bb"),
        ("symmetric-deft:0.8", 0, "f33c09c5e98fa045", "0ebb9cc2d9660af9"),
    ],
)
def test_cifar100_pickles_of_real_size_get_the_published_draws(
    embed, layout, tmp_path, noise, seed, digest_of_zeros, digest
):
    """On the published labels where they lie beside the checkout, else on zeros, which get the same draws."""
    if CIFAR100_LABELS.is_file():
        label_N = torch.load(CIFAR100_LABELS, weights_only=False)["clean_label"]
    else:
        label_N, digest = np.zeros(50_000, np.int64), digest_of_zeros
    layout("cifar").build_cifar100(tmp_path / "data", train=label_N)
    found = label_set(embed, tmp_path / "data", tmp_path, "--noise", noise, "--seed", str(seed))
    assert found["hash"] == digest
