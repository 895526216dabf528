"""Promises about prompts: the method's sentence, equal counts, every class covered, mistakes in a file told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cleanctl.errors import InputError
from cleanctl.prompts.prompt_set import resolve_prompts

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write(tmp_path, text, name="p.toml"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_features_say_the_papers_sentence_eight_times_for_each_class():
    found = resolve_prompts("features", CIFAR10)
    assert found.name == "features:cifar10"
    assert np.bincount(found.class_P).tolist() == [8] * 10
    assert len(set(found.prompts)) == 80
    for prompt, k in zip(found.prompts, found.class_P):
        assert prompt.startswith(f"a photo of a {CIFAR10[k]} which ")
        assert prompt.endswith(".")
    assert not found.notes


def test_features_follow_the_datasets_own_class_order_and_subset():
    found = resolve_prompts("features", ("Ship", "CAT"))
    assert found.prompts[0].startswith("a photo of a ship which")
    assert found.prompts[8].startswith("a photo of a cat which")


def test_classes_without_features_get_plain_sentences_and_a_note():
    found = resolve_prompts("features", ("aquarium_fish", "zebra"))
    assert found.prompts[0] == "a photo of a aquarium fish."
    assert np.bincount(found.class_P).tolist() == [8, 8]
    assert "--prompts FILE" in found.notes[0]


def test_photo_is_one_plain_sentence_a_class():
    assert resolve_prompts("photo", ("Cat", "red_fox")).prompts == ("a photo of a cat.", "a photo of a red fox.")


def test_unequal_classes_are_cut_to_the_smallest_unless_told_otherwise(tmp_path):
    table = '[phrases]\ncat = ["which purrs", "which hunts", "which naps"]\ndog = ["which barks", "which digs"]\n'
    found = resolve_prompts(write(tmp_path, table), ("cat", "dog"))
    assert np.bincount(found.class_P).tolist() == [2, 2]
    assert "2 to 3 prompts" in found.notes[0]
    whole = resolve_prompts(write(tmp_path, "equal = false\n" + table), ("cat", "dog"))
    assert np.bincount(whole.class_P).tolist() == [3, 2]


def test_a_file_may_hold_suffix_template_templates_and_whole_sentences_in_toml_or_json(tmp_path):
    values = {
        "suffix": ", a type of pet.",
        "template": "one {name}, {phrase}{suffix}",
        "templates": ["a {name}.", "the {}."],
        "phrases": {"cat": ["which purrs"], "dog": ["which barks"]},
        "prompts": {"cat": ["a tabby."], "dog": ["a hound."]},
    }
    found = resolve_prompts(write(tmp_path, json.dumps(values), "p.json"), ("cat", "dog"))
    assert found.prompts[:4] == ("a cat.", "the cat.", "one cat, which purrs, a type of pet.", "a tabby.")


def test_underscores_are_kept_as_in_the_paper_or_made_spaces(tmp_path):
    table = '[phrases]\nred_fox = ["which is red"]\n'
    assert resolve_prompts(write(tmp_path, table), ("red_fox",)).prompts[0] == "a photo of a red_fox which is red."
    spaced = resolve_prompts(write(tmp_path, 'names = "spaces"\n' + table), ("Red fox",))
    assert spaced.prompts[0] == "a photo of a red fox which is red."


def test_missing_classes_are_named_and_likely_typos_with_them(tmp_path):
    path = write(tmp_path, '[phrases]\ncat = ["which purrs"]\ndgo = ["which barks"]\n')
    with pytest.raises(InputError, match=r"1 of 2 classes: 'dog'.*describes 'dgo'"):
        resolve_prompts(path, ("cat", "dog"))
    assert "also describes 'dgo'" in resolve_prompts(path, ("cat",)).notes[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not toml at all [", "cannot be read"),
        ("suffix = '.'", "none of templates"),
        ("templates = ['a {name}.']\nsufix = '!'", "key sufix is unknown"),
        ("templates = ['a {nme}.']", "holds '{nme}'"),
        ("templates = ['a {name']", "holds '{'"),
        ("templates = ['a {name}}.']", "holds '}'"),
        ("templates = ['a {name:20000000000}.']", "holds '{name:20000000000}'"),
        ("templates = ['a {name!r}.']", "holds '{name!r}'"),
        ("templates = ['a {name.__class__}{0}.']", "holds '{name.__class__}'"),
        ("template = '{name[0]}'\n[phrases]\ncat = ['which purrs']", r"holds '{name\[0\]}'"),
        (
            "[phrases]\ncat = 'which purrs'",
            "phrases.cat is 'which purrs'; allowed: a table, each value a list",
        ),
        ("[phrases]\ncat = ['which purrs', 3]", "phrases.cat.1 is 3"),
        ("[phrases]\ncat = ['which purrs', ' ']", "phrases.cat holds an empty sentence"),
        ("[phrases]\ncat = ['which purrs', 'which purrs']", "'which purrs' twice"),
        ("[phrases]\ncat = ['which purrs']\nCat = ['which hunts']", "'cat' and 'Cat', which are the same class"),
        ("[phrases]\ncat = []", "no prompts for 'cat'"),
        ("phrases = ['which purrs']", "phrases is"),
        ("names = 'dots'\ntemplates = ['a {name}.']", "names is 'dots'; allowed: one of keep, spaces"),
        ("equal = 'yes'\ntemplates = ['a {name}.']", "equal is 'yes'; allowed: true or false"),
        ("suffix = 2\ntemplates = ['a {name}.']", "suffix is 2; allowed: text"),
        ("templates = " + "[" * 100_000 + "]" * 100_000, "nested too deeply|cannot be read"),
    ],
)
def test_a_malformed_file_is_told(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve_prompts(write(tmp_path, text), ("cat",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"templates": ["a {name} \\ud800"]}', "not valid Unicode"),
        ('{"templates": ' + "[" * 100_000, "nested too deeply|cannot be read"),
        ('{"templates": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply"),
        ("[]", "it is"),
        ("null", "it is None"),
    ],
)
def test_malformed_json_is_told(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve_prompts(write(tmp_path, text, "p.json"), ("cat",))


def test_braces_of_names_and_phrases_are_text(tmp_path):
    path = write(tmp_path, "templates = ['a {}, {name}{suffix}']\nsuffix = '{'\n[phrases]\n'{phrase}' = ['{name}']")
    assert resolve_prompts(path, ("{phrase}",)).prompts == ("a {phrase}, {phrase}{", "a photo of a {phrase} {name}{")


def test_a_shipped_set_is_named_by_its_file():
    assert resolve_prompts("cifar10", CIFAR10).prompts == resolve_prompts("features", CIFAR10).prompts
    with pytest.raises(InputError, match=r"'fetures': neither a file nor one of features, .*ensemble.*photo"):
        resolve_prompts("fetures", ("cat",))


def test_the_digest_changes_with_prompts_and_classes_alone():
    one = resolve_prompts("photo", ("cat", "dog"))
    assert one.digest == resolve_prompts("photo", ("cat", "dog")).digest
    others = [resolve_prompts(*args).digest for args in (("photo", ("dog", "cat")), ("ensemble", ("cat", "dog")))]
    assert len({one.digest, *others}) == 3


def test_names_that_say_nothing_are_noticed():
    assert "--classes" in resolve_prompts("photo", ("n01704323", "n04515003")).notes[0]
