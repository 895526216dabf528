"""ILSVRC2012's synsets and their names, from the lists that timm ships. A synset is written `n01440764`."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _imagenet() -> Any:
    from timm.data import ImageNetInfo  # loads torch

    return ImageNetInfo()


def ilsvrc_synsets() -> tuple[str, ...]:
    """The 1,000 synsets in label order, which is sorted order."""
    return tuple(sorted(_imagenet().label_names()))


def words(synset: str) -> tuple[str, ...]:
    """The names of a synset, the usual one first. KeyError for one that ImageNet does not have."""
    return tuple(word.strip() for word in _imagenet().label_name_to_description(synset).split(","))


def first_word(synset: str) -> str:
    return words(synset)[0]
