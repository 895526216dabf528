"""The shipped prompt sets: equal counts, nothing said twice, nothing too long for CLIP's text tower."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cleanctl.prompts import prompt_set

CLASSES = {
    "animal10n": 10,
    "cifar10": 10,
    "cifar100": 100,
    "clothing1m": 14,
    "mini-webvision": 50,
    "red-mini-imagenet": 100,
}
PLAIN = {"ensemble", "photo"}  # templates for any class
SETS = sorted(path for path in Path(prompt_set.__file__).parent.glob("sets/*.toml") if path.stem not in PLAIN)


def phrases_of(path: Path) -> dict[str, list[str]]:
    return tomllib.loads(path.read_text("utf-8"))["phrases"]


def test_every_published_dataset_has_a_set():
    assert {path.stem: len(phrases_of(path)) for path in SETS} == CLASSES


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_every_class_has_eight_different_features(path):
    for name, phrases in phrases_of(path).items():
        assert len(phrases) == len({phrase.lower() for phrase in phrases}) == 8, name


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_no_two_classes_are_described_alike(path):
    """Look-alike classes share a feature or two, never half of them."""
    found = [(name, set(phrases)) for name, phrases in phrases_of(path).items()]
    alike = [(one, two) for i, (one, a) in enumerate(found) for two, b in found[:i] if len(a & b) >= 4]
    assert alike == []


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_sentences_fit_clip_and_read_as_english(path):
    import open_clip

    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    prompts = prompt_set.resolve_prompts(str(path), list(phrases_of(path)))
    assert len(prompts.prompts) == 8 * CLASSES[path.stem]
    assert int((tokenizer(list(prompts.prompts)) != 0).sum(dim=1).max()) < 77
    for sentence in prompts.prompts:
        assert re.fullmatch(r"a photo of a [\w' \-]+,? which [a-z]+ .+\.", sentence), sentence


def test_features_are_taken_for_a_dataset_that_a_set_covers():
    chosen = prompt_set.resolve_prompts("features", ["Axolotl", "Eft_newt", "komodo dragon"])
    assert chosen.name == "features:mini-webvision"
    assert (
        chosen.prompts[0]
        == "a photo of a axolotl, which has feathery gills on both sides of the head, a type of animal."
    )
