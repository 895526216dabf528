"""What a language model is asked for, and what it answered: pure text in, checked feature phrases out.

Asked of a service, a class at a time: a JSON list of phrases. Asked by hand, all classes at once: a JSON object,
class → list. An answer may stand in a ``` fence; anything else that was not asked for is refused with a reason, which
the next request to a service repeats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cleanctl.errors import InputError
from cleanctl.meant import meant
from cleanctl.prompts.load import class_key

MOST_LETTERS = 120  # of a phrase: about 25 tokens of the 77 that CLIP reads
MOST_OTHERS = 200  # class names listed beside the one that is asked for
TEMPLATE = "a photo of a {name} {phrase}{suffix}"
_FENCE = re.compile(r"\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
RULES = (
    'Each phrase begins with "which", follows on "a photo of a {name}" and names one thing that a camera can see: '
    "shape, parts, colour, texture, size, posture, or where it is usually seen. "
    "No sound, smell, name, history or use that does not show. All phrases differ. "
    "A phrase has at most 12 words, no line break and no full stop at its end."
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of each class. look_alikes: class → the classes that it is to be told apart from."""

    features: int
    classes: tuple[str, ...]
    about: str = ""
    look_alikes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def look_alikes_of(groups: Sequence[str], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`Jacket|Windbreaker` or `Jacket,Windbreaker`, once or more → each class's look-alikes.

    Raises InputError for a name that is no class, or a group of one.
    """
    known = {class_key(name): name for name in classes}
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        names = [part.strip() for part in group.split("|" if "|" in group else ",")]
        if unknown := [name for name in names if class_key(name) not in known]:
            raise InputError(
                f"--look-alikes {group!r} holds {unknown[0]!r}, which is no class of --classes"
                f"{meant(unknown[0], classes)}",
                do="Write class names with | between them.",
            )
        members = list(dict.fromkeys(known[class_key(name)] for name in names))
        if len(members) < 2:
            raise InputError(f"--look-alikes {group!r} holds one class.", do="Name the classes that look like it too.")
        for name in members:
            found.setdefault(name, {}).update(dict.fromkeys(other for other in members if other != name))
    return {name: tuple(others) for name, others in found.items()}


# ---- what is asked


def messages(wish: Wish, label: str) -> list[dict[str, str]]:
    """The chat that asks for one class: the rules, then the class."""
    rules = f"You describe classes of images for an image classifier. {RULES}"
    parts = [*_about(wish), f"Describe the class {label!r}."]
    others = [name for name in wish.classes if name != label]
    if others and len(others) <= MOST_OTHERS:
        parts.append(f"The other classes are: {', '.join(others)}.")
    parts += _difference(wish, label)
    parts.append(f"Answer with {wish.features} phrases: one JSON list of {wish.features} texts and nothing else.")
    return [{"role": "system", "content": rules}, {"role": "user", "content": "\n".join(parts)}]


def request_by_hand(wish: Wish, missing: Sequence[str]) -> str:
    """One text to paste into a chat, for all classes that are missing."""
    parts = ["Describe classes of images for an image classifier.", *_about(wish), RULES]
    parts += ["The classes are:", *(f"- {label}" for label in missing)]
    parts += [line for label in missing for line in _difference(wish, label, named=True)]
    example = json.dumps({missing[0]: ["which …", "which …"]}, ensure_ascii=False)
    parts.append(
        "Answer with nothing but one JSON object that holds every class by its name as written above, "
        f"each with a list of {wish.features} phrases: {example}"
    )
    return "\n".join(parts)


def _about(wish: Wish) -> list[str]:
    return [f"The dataset: {wish.about}"] if wish.about else []


def _difference(wish: Wish, label: str, *, named: bool = False) -> list[str]:
    others = wish.look_alikes.get(label, ())
    if not others:
        return []
    whose = f"{label!r} looks" if named else "It looks"
    return [f"{whose} like {', '.join(map(repr, others))}: name what is seen on it and not on them."]


# ---- what was answered


def phrases_of(text: str, *, features: int) -> tuple[str, ...]:
    """The phrases of an answer for one class. Raises ValueError with what is wrong with it, in a sentence."""
    return _phrases(_json_of(text), features)


def answers_by_hand(
    text: str, *, features: int, classes: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """(class → phrases, name → what is wrong with its answer) of an answer for many classes.

    Raises ValueError where the whole is no JSON object.
    """
    values = _json_of(text)
    if not isinstance(values, dict):
        raise ValueError(f"It is {_kind(values)}, not a JSON object of classes.")
    known = {class_key(name): name for name in classes}
    good: dict[str, tuple[str, ...]] = {}
    bad: dict[str, str] = {}
    for name, value in values.items():
        label = known.get(class_key(name))
        try:
            if label is None:
                raise ValueError("No class has this name.")
            if label in good:
                raise ValueError("The class is answered twice.")
            good[label] = _phrases(value, features)
        except ValueError as exc:
            bad[name] = str(exc)
    return good, bad


def _json_of(text: str) -> Any:
    fenced = _FENCE.fullmatch(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as exc:
        shown = " ".join(text.split())[:80]
        raise ValueError(f"It is not JSON alone: {shown!r}.") from exc


def _phrases(value: Any, features: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"It is {_kind(value)}, not a list of texts.")
    if len(value) != features:
        raise ValueError(f"It has {len(value)} phrases, not {features}.")
    phrases = tuple(" ".join(one.split()).rstrip(" .") if "\n" not in one else one for one in value)
    for phrase in phrases:
        if not re.fullmatch(r"which \S.*", phrase):
            raise ValueError(f"{phrase[:80]!r} does not begin with 'which', or has a line break.")
        if len(phrase) > MOST_LETTERS:
            raise ValueError(f"{phrase[:40] + '…'!r} has {len(phrase)} letters, more than {MOST_LETTERS}.")
        if not phrase.isprintable() or "{" in phrase or "}" in phrase:
            raise ValueError(f"{phrase[:80]!r} holds braces or control characters.")
    if len({phrase.lower() for phrase in phrases}) < features:
        raise ValueError("It has a phrase twice.")
    return phrases


def _kind(value: Any) -> str:
    return {dict: "a JSON object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
