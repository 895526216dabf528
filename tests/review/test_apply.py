"""`review apply`: files of verdicts into the store by key and content, through every change of the store."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cleanctl import api
from cleanctl.cli import app
from cleanctl.config import EmbedConfig, ImportConfig, ReviewApplyConfig, ReviewListConfig, ReviewRemoveConfig
from cleanctl.errors import InputError, UsageError
from cleanctl.review.files import read_verdicts, write_verdicts
from cleanctl.store import Store
from cleanctl.store.decisions import Decisions, Verdict
from cleanctl.store.standing import DROP, KEEP, RELABEL, digest_text, standing

AT = "2026-11-21T10:00:00.123Z"


def embed(root, model, **more):
    config = EmbedConfig(
        source=root / "images", model=f"local-dir:{model}", prompts="photo", loader="torch", workers=0, device="cpu",
        **more,
    )  # fmt: skip
    api.embed(config, store=root / "s.zarr")


@pytest.fixture
def root(embedded, tmp_path):
    shutil.copytree(embedded / "s.zarr", tmp_path / "s.zarr", symlinks=True)
    shutil.copytree(embedded / "images", tmp_path / "images")
    return tmp_path


def rows(root):
    """[(key, digest, class name)] of the training split."""
    store = Store.open(root / "s.zarr")
    split = store.split("train")
    names = [store.classes[k] for k in split.label_N()]
    return list(zip(split.keys(), map(digest_text, split.fingerprints().digest_N16), names))


def write(root, verdicts, *, by="ann", name="ann.json", **head):
    values = {"format": "cleanctl.review", "version": 1, "store": "", "split": "train", "selection": None}
    values |= {"by": by, "saved": AT, "verdicts": verdicts, **head}
    (root / name).write_text(json.dumps(values))
    return root / name


def entry(row, verdict, *, at=AT, **more):
    key, digest, given = row
    return {"key": key, "digest": digest, "given": given, "verdict": verdict, "at": at, **more}


def other(name):
    return {"cat": "dog", "dog": "owl", "owl": "cat"}[name]


def apply(root, *files, **more):
    return api.apply_review(ReviewApplyConfig(files=files, **more), store=root / "s.zarr")


def held(root):
    """{key: (code, class name or None)} of what holds now, and the rest of the record."""
    store = Store.open(root / "s.zarr")
    split = store.split("train")
    found = standing(split, store.classes)
    keys = split.keys()
    return {
        keys[row]: (int(code), store.classes[label] if label >= 0 else None)
        for row, code, label in zip(found.row_V, found.code_V, found.label_V)
    }, found


def test_verdicts_of_a_file_hold_for_their_rows(root):
    here = rows(root)
    name = here[2][2]
    file = write(
        root,
        [
            entry(here[0], "keep"),
            entry(here[1], "drop"),
            entry(here[2], "relabel", label=other(name)),
            entry(here[3], "skip"),
        ],
    )
    done = apply(root, file)
    assert (done.read, done.added, done.keep, done.drop, done.relabel, done.skip) == (4, 4, 1, 1, 1, 1)
    found, record = held(root)
    expected = {here[0][0]: (KEEP, here[0][2]), here[1][0]: (DROP, None), here[2][0]: (RELABEL, other(name))}
    assert found == expected
    assert [one.key for one in record.skipped] == [here[3][0]]
    first = Decisions(root / "s.zarr", "train").read()[0]
    assert (first.by, first.at, first.source[:10]) == ("ann", AT, "ann.json (")
    again = apply(root, file)
    assert (again.added, again.known) == (0, 4)


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_verdicts_go_round_exactly(tmp_path, count):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((count, 4)).astype(np.float32))
    np.save(tmp_path / "y.npy", np.arange(count) % 3)
    (tmp_path / "k.txt").write_text("\n".join(f"photos/ä {n:06d}.jpg" for n in range(count)))
    (tmp_path / "c.txt").write_text("cat\ndog\nowl")
    named = {"image_embeddings": "x.npy", "labels": "y.npy", "keys": "k.txt", "classes": "c.txt"}
    api.import_arrays(
        ImportConfig(**{option: tmp_path / name for option, name in named.items()}), store=tmp_path / "s.zarr"
    )
    classes, words = ("cat", "dog", "owl"), ("keep", "drop", "relabel", "skip")
    order = rng.permutation(count).tolist()
    told = [
        Verdict(
            key=f"photos/ä {n:06d}.jpg", digest="", given=classes[n % 3], verdict=words[n % 4],
            label=classes[(n + 1) % 3] if n % 4 == 2 else None, by=("ann", "bob", "")[n % 3],
            at=f"2026-11-21T10:{n % 60:02d}:{n % 59:02d}.{n % 1000:03d}Z", source="",
        )
        for n in order
    ]  # fmt: skip
    write_verdicts(tmp_path / "v.json", told, split="train", store="")
    done = apply(tmp_path, tmp_path / "v.json")
    assert (done.added, done.keep) == (count, count // 4)
    api.list_review(ReviewListConfig(), store=tmp_path / "s.zarr", out=tmp_path / "back.json")

    def plain(verdicts):
        return {(one.identity, one.given) for one in verdicts}

    back = read_verdicts(tmp_path / "back.json").verdicts
    assert len(back) == count
    assert plain(back) == plain(told) == plain(Decisions(tmp_path / "s.zarr", "train").read())


# ---- through every change of the store


def test_verdicts_follow_their_images_when_rows_come_and_go(root, tiny_model):
    here = rows(root)
    apply(root, write(root, [entry(here[5], "keep"), entry(here[9], "drop"), entry(here[20], "keep")]))
    (root / "images" / here[0][0]).unlink()  # all rows move
    kept = (root / "images" / here[9][0]).read_bytes()
    (root / "images" / here[9][0]).unlink()
    embed(root, tiny_model)
    found, record = held(root)
    assert {key: code for key, (code, _) in found.items()} == {here[5][0]: KEEP, here[20][0]: KEEP}
    assert [one.key for one in record.gone] == [here[9][0]]
    assert "1 because the image is not in the split any more" in record.idle()
    (root / "images" / here[9][0]).write_bytes(kept)
    embed(root, tiny_model)
    assert held(root)[0][here[9][0]] == (DROP, None)


def test_a_verdict_on_another_content_or_label_does_not_hold_and_says_so(root, tiny_model):
    here = rows(root)
    apply(root, write(root, [entry(here[0], "keep"), entry(here[1], "keep")]))
    before = Image.open(root / "images" / here[0][0])
    before.transpose(Image.Transpose.ROTATE_90).save(root / "images" / here[0][0])
    lines = ["path,label", *(f"{key},{other(name) if key == here[1][0] else name}" for key, _, name in here)]
    (root / "labels.csv").write_text("\n".join(lines))
    embed(root, tiny_model, labels=root / "labels.csv", splits=("train",))
    found, record = held(root)
    assert found == {}
    assert [one.key for one in record.changed] == [here[0][0]]
    assert [one.key for one in record.relabelled] == [here[1][0]]
    listed = api.list_review(ReviewListConfig(), store=root / "s.zarr")
    assert {one.key: one.holds for one in listed.shown} == {
        here[0][0]: "the image has another content now",
        here[1][0]: "the label is another one now",
    }


def test_recreating_the_store_keeps_what_people_decided(root, tiny_model):
    here = rows(root)
    apply(root, write(root, [entry(here[0], "keep")]))
    (root / "classes.txt").write_text("owl\ndog\ncat")
    embed(root, tiny_model, classes=root / "classes.txt", replace=True)
    assert Store.open(root / "s.zarr").classes == ("owl", "dog", "cat")
    assert held(root)[0] == {here[0][0]: (KEEP, here[0][2])}


# ---- what a file may say


def test_tables_say_the_same(root):
    here = rows(root)
    file = root / "v.csv"
    file.write_text(f"key,verdict,label\n{here[0][0]},right,\n{here[1][0]},wrong,\n{here[2][0]},relabel,1\n")
    if here[2][2] == "dog":
        pytest.fail("the row should not be labelled dog")
    assert apply(root, file).added == 3
    assert {key: code for key, (code, _) in held(root)[0].items()} == {
        here[0][0]: KEEP,
        here[1][0]: DROP,
        here[2][0]: RELABEL,
    }
    assert apply(root, file).known == 3
    file.write_text(f"key,verdict\n{here[0][0]},keep\n{here[0][0]},drop\n")
    with pytest.raises(InputError, match="two verdicts"):
        apply(root, file)


WRONG = [
    ({"version": 2}, "version 2"),
    ({"format": "other"}, "format"),
    ({"split": 7}, "split is 7"),
    ({"saved": "yesterday"}, "yesterday"),
]


@pytest.mark.parametrize(("head", "says"), WRONG)
def test_a_file_that_is_none_is_refused(root, head, says):
    one = {key: value for key, value in entry(rows(root)[0], "keep").items() if key != "at"}
    with pytest.raises(InputError, match=says):
        apply(root, write(root, [one], **head))
    assert Decisions(root / "s.zarr", "train").read() == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"verdict": "maybe"}, "verdict is 'maybe'"),
        ({"verdict": "relabel"}, "no label is given"),
        ({"verdict": "relabel", "label": "dgo"}, "did you mean 'dog'"),
        ({"digest": "XYZ"}, "digest"),
        ({"at": "noon"}, "noon"),
        ({"key": ""}, "key"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused(root, changes, says):
    with pytest.raises(InputError, match=says):
        apply(root, write(root, [entry(rows(root)[0], "keep") | changes]))


def test_a_correction_to_the_label_that_an_image_has_is_refused(root):
    row = rows(root)[0]
    with pytest.raises(InputError, match="relabel to 'cat', which is the label it has"):
        apply(root, write(root, [entry(row, "relabel", label=row[2])]))


def test_a_file_of_another_dataset_is_refused_and_strangers_in_a_file_are_told(root):
    stranger = ("elsewhere/1.jpg", "0" * 16, "cat")
    with pytest.raises(InputError, match=r"1: no such image in the split; e\.g\. 'elsewhere"):
        apply(root, write(root, [entry(stranger, "keep")]))
    done = apply(root, write(root, [entry(stranger, "keep"), entry(rows(root)[0], "keep")]))
    assert (done.added, done.gone) == (1, 1)
    assert [one.key for one in done.left_out] == ["elsewhere/1.jpg"]


# ---- contradictions


def test_contradicting_files_are_shown_and_nothing_is_stored(root):
    row = rows(root)[0]
    ann = write(root, [entry(row, "keep"), entry(rows(root)[1], "keep")])
    bob = write(root, [entry(row, "drop", at="2026-11-22T10:00:00Z")], by="bob", name="bob.json")
    with pytest.raises(InputError, match=rf"{row[0]}: keep \(ann\) against drop \(bob\)"):
        apply(root, ann, bob)
    assert Decisions(root / "s.zarr", "train").read() == []
    seen = apply(root, ann, bob, dry_run=True)
    assert [[side.by for side in one.sides] for one in seen.contradictions] == [["ann", "bob"]]
    apply(root, ann)
    with pytest.raises(InputError, match="--prefer stored"):
        apply(root, bob)


@pytest.mark.parametrize(("prefer", "code"), [("latest", DROP), ("stored", KEEP), ("bob.json", DROP)])
def test_a_contradiction_is_settled_by_what_is_preferred(root, prefer, code):
    row = rows(root)[0]
    apply(root, write(root, [entry(row, "keep")]))
    bob = write(root, [entry(row, "drop", at="2026-11-22T10:00:00Z")], by="bob", name="bob.json")
    done = apply(root, bob, prefer=prefer)
    assert len(done.contradictions) == 1
    found, record = held(root)
    assert found[row[0]][0] == code
    assert record.contradictions == ()
    assert apply(root, bob).known == 1  # settled: the same file opens nothing
    with pytest.raises(UsageError, match="none of the files"):
        apply(root, bob, prefer="x.json")


def test_a_person_who_changed_their_mind_is_counted(root):
    row = rows(root)[0]
    apply(root, write(root, [entry(row, "keep")]))
    done = apply(root, write(root, [entry(row, "drop", at="2026-11-22T10:00:00Z")], name="later.json"))
    assert (done.replaced, done.contradictions) == (1, ())
    assert held(root)[0][row[0]] == (DROP, None)


# ---- the command line


def test_the_verbs_of_review_work_from_the_command_line(root):
    row, second = rows(root)[:2]
    file = write(root, [entry(row, "keep"), entry(second, "drop")])
    store = ["--store", str(root / "s.zarr")]

    def run(*words):
        return CliRunner().invoke(app, ["review", *words, *store])

    done = run("apply", str(file))
    assert done.exit_code == 0, done.output
    assert "Added 2 of 2 verdicts" in done.stdout
    assert "hold (keep 1, drop 1, relabel 0)" in run("list").stdout
    shown = json.loads(run("list", "--by", "ann", "--verdict", "drop", "--json").stdout)["shown"]
    assert [(one["key"], one["verdict"], one["by"]) for one in shown] == [(second[0], "drop", "ann")]
    assert "Took back the verdicts on 1 images" in run("remove", row[0]).stdout
    assert list(held(root)[0]) == [second[0]]
    assert len(json.loads(run("list", "--history", "--json").stdout)["shown"]) == 3
    bob = write(root, [entry(second, "keep")], by="bob", name="bob.json")
    refused = run("apply", str(bob))
    assert refused.exit_code == 3
    assert "contradict" in refused.output
    assert run("apply").exit_code == 2
    assert api.remove_review(ReviewRemoveConfig(keys=("nothing",)), store=root / "s.zarr").unknown == ("nothing",)
