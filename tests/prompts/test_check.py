"""`cleanctl prompts check` and `show`: each kind of mistake is found, and what cannot be checked is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cleanctl.cli import app
from cleanctl.prompts.check import CLOSEST, alike_pairs
from cleanctl.prompts.dump import to_json, to_toml
from cleanctl.prompts.load import PromptFile, load_prompts

GOOD = '[phrases]\ncat = ["which purrs", "which hunts"]\ndog = ["which barks", "which digs"]\n'


def run(*words, code=0):
    result = CliRunner().invoke(app, ["prompts", *map(str, words)])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result.stdout


def check(tmp_path, text, *more, code=0):
    path = tmp_path / "p.toml"
    path.write_text(text)
    return json.loads(run("check", path, "--json", *more, code=code))


def kinds(record):
    return [(one["kind"], one["error"], one["classes"]) for one in record["findings"]]


def test_a_good_set_has_no_findings_and_says_what_was_left_out(tmp_path):
    record = check(tmp_path, GOOD)
    assert record["findings"] == []
    assert (record["classes"], record["prompts"], record["model"]) == (2, 4, None)
    assert record["left_out"] == ["Lengths and look-alike classes are not checked: they need a model, --model NAME."]
    assert record["closest"] == []


def test_the_shipped_sets_have_no_findings():
    for one in json.loads(run("show", "--json"))["sets"]:
        if one["classes"]:
            assert json.loads(run("check", one["name"], "--json"))["findings"] == [], one["name"]


def test_unequal_counts_are_an_error_unless_the_file_means_them(tmp_path):
    text = '[phrases]\ncat = ["which purrs", "which hunts"]\ndog = ["which barks"]\n'
    assert kinds(check(tmp_path, text, code=3)) == [("unequal", True, ["dog"])]
    assert kinds(check(tmp_path, "equal = false\n" + text)) == [("unequal", False, ["dog"])]


def test_a_class_without_sentences_is_an_error(tmp_path):
    record = check(tmp_path, '[phrases]\ncat = ["which purrs"]\ndog = []\n', code=3)
    assert ("unequal", True, ["dog"]) in kinds(record)


def test_repeats_are_errors_and_near_repeats_warnings(tmp_path):
    text = '[phrases]\ncat = ["which purrs", "which purrs"]\ndog = ["which barks", "Which barks!"]\n'
    assert kinds(check(tmp_path, text, code=3)) == [("repeated", True, ["cat"]), ("repeated", False, ["dog"])]


def test_a_sentence_of_two_classes_is_an_error(tmp_path):
    text = '[prompts]\ncat = ["a pet asleep.", "a tabby."]\ndog = ["a hound.", "A pet asleep"]\n'
    assert kinds(check(tmp_path, text, code=3)) == [("shared", True, ["cat", "dog"])]


def test_length_and_likeness_are_the_models_own(tmp_path, tiny_model):
    """The tiny model reads 16 tokens; two classes whose names alone differ embed nearly alike in it."""
    long = "which is " + "very " * 20 + "large"
    text = f'[phrases]\ncat = ["which purrs", "{long}"]\ndog = ["which barks", "which digs"]\n'
    model = ("--model", f"local-dir:{tiny_model}", "--device", "cpu")
    record = check(tmp_path, text, *model, "--alike", "-1", code=3)
    assert record["context_length"] == 16
    assert kinds(record) == [("long", True, ["cat"]), ("alike", False, ["cat", "dog"])]
    assert record["closest"][0]["cosine"] < 1
    strict = check(tmp_path, GOOD, *model, "--alike", "1")
    assert strict["findings"] == []
    assert len(strict["closest"]) == 1


def test_pairs_are_those_of_the_class_means_most_alike_first():
    rng = np.random.default_rng(0)
    vector_PD = rng.standard_normal((36, 6)).astype(np.float32)
    vector_PD /= np.linalg.norm(vector_PD, axis=1, keepdims=True)
    class_P = np.arange(36) % 12
    class_P[class_P == 7] = 8  # class 7 has no prompts
    mean = np.stack([vector_PD[class_P == k].sum(axis=0) for k in range(12)])
    with np.errstate(invalid="ignore"):
        unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    expected = sorted(((float(unit[i] @ unit[j]), i, j) for i in range(12) for j in range(i + 1, 12)
                       if 7 not in (i, j)), reverse=True)  # fmt: skip
    found = alike_pairs(vector_PD, class_P, 12, threshold=0.0)
    above = [pair for pair in expected if pair[0] >= 0]
    assert [pair[1:] for pair in found] == [pair[1:] for pair in above]
    assert [pair[0] for pair in found] == pytest.approx([pair[0] for pair in above], abs=1e-5)
    assert [pair[1:] for pair in alike_pairs(vector_PD, class_P, 12, threshold=1.0)] == [
        pair[1:] for pair in expected[:CLOSEST]
    ]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["check", "nowhere.toml"], 3, "SET is 'nowhere.toml': neither a file nor one of"),
        (["check", "photo"], 2, "Name your classes: --classes FILE"),
        (["show", "features"], 2, "--classes FILE"),
        (["check"], 2, "SET is missing."),
        (["check", "cifar10", "--pretrained", "openai"], 2, "--pretrained was given without --model."),
        (["show", "cifar10", "--class", "unicorn"], 2, "--class is 'unicorn', which is not among the 10 classes."),
    ],
)
def test_mistakes_are_told(words, code, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    result = CliRunner().invoke(app, ["prompts", *words])
    assert result.exit_code == code
    assert told in " ".join(result.stderr.split())


def test_show_lists_the_shipped_sets_and_their_sentences(tmp_path):
    sets = {one["name"]: one for one in json.loads(run("show", "--json"))["sets"]}
    assert (sets["cifar100"]["classes"], sets["cifar100"]["prompts"], sets["photo"]["classes"]) == (100, 8, 0)
    assert "cifar100" in run("show")
    (cat,) = json.loads(run("show", "cifar10", "--class", "Cat", "--json"))["classes"]
    assert cat["name"] == "cat"
    assert cat["prompts"][0] == "a photo of a cat which has pointed ears and whiskers."
    assert cat["prompts"][0] in run("show", "cifar10")
    classes = tmp_path / "classes.txt"
    classes.write_text("snow leopard\n")
    shown = run("show", "photo", "--classes", classes)
    assert "\nsnow leopard\n  a photo of a snow leopard.\nphoto: 1 class, 1 sentence.\n" in shown


@pytest.mark.parametrize(("dump", "name"), [(to_toml, "p.toml"), (to_json, "p.json")])
def test_a_prompt_file_is_read_back_as_it_was_written(dump, name, tmp_path):
    file = PromptFile(
        template='{name} "quoted" \\ {phrase}',
        suffix="\t…\x7f",
        names="spaces",
        equal=False,
        templates=("a {name}.",),
        phrases={"kite (bird of prey)": ("which soars",), "a-b_c": ("which is é", "x")},
        prompts={"größe": ("a = [b]",)},
    )
    (tmp_path / name).write_text(dump(file), encoding="utf-8")
    assert load_prompts(tmp_path / name) == file
