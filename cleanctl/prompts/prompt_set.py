"""The sentences that stand for each class (docs/method.md A.2).

In: the name of a set or a file, and the class names. Out: a `PromptSet`: P prompts and the class of each. A shipped set
is one file in sets/; `load.py` has the format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cleanctl.errors import InputError
from cleanctl.prompts.load import SETS, PromptFile, class_key, fill, load_prompts


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """P prompts in class order. class_P: int32 (P,), 0…C-1, every class present. digest: SHA-256 over both."""

    name: str
    prompts: tuple[str, ...]
    class_P: np.ndarray
    digest: str
    notes: tuple[str, ...] = ()


def resolve_prompts(name: str, classes: Sequence[str]) -> PromptSet:
    """`--prompts NAME|FILE` for these classes.

    `features` takes the shipped feature phrases if a shipped file knows every class, else `ensemble`, and a note says
    which. Raises InputError for an unknown name, a malformed file, or classes the file does not cover.
    """
    if name == "features":
        return _features(classes)
    shipped = {path.stem: path for path in sorted(SETS.glob("*.toml"))}
    path = shipped.get(name, Path(name).expanduser())
    if not path.is_file():
        raise InputError(
            f"--prompts is {name!r}: neither a file nor one of features, {', '.join(shipped)}.", do="Check the path."
        )
    return _build(name if name in shipped else path.name, path, load_prompts(path), classes)


def _features(classes: Sequence[str]) -> PromptSet:
    wanted = {class_key(name) for name in classes}
    for path in sorted(SETS.glob("*.toml")):
        file = load_prompts(path)
        if wanted <= {class_key(name) for name in file.phrases}:
            return _build(f"features:{path.stem}", path, file, classes)
    plain = resolve_prompts("ensemble", classes)
    note = (
        f"No feature phrases are shipped for these classes: {len(plain.prompts) // len(classes)} plain sentences a "
        "class are used; describe your classes in a file and give it with --prompts FILE."
    )
    return replace(plain, notes=(note, *plain.notes))


def _build(name: str, path: Path, file: PromptFile, classes: Sequence[str]) -> PromptSet:
    notes = _cover(path, file, classes)
    lists = [_prompts_of(file, label) for label in classes]
    smallest, largest = min(map(len, lists)), max(map(len, lists))
    if smallest == 0:
        empty = [label for label, prompts in zip(classes, lists) if not prompts]
        raise InputError(f"{path} has no prompts for {_list(empty)}.", do="Give each class at least one.")
    if smallest != largest and file.equal:
        # Sums over prompts favour a class that has more of them: 8 against 5 is 0.033 of cosine (docs/method.md F.1).
        lists = [prompts[:smallest] for prompts in lists]
        notes.append(f"Classes have {smallest} to {largest} prompts: the first {smallest} of each are used.")
    notes += _wordless(classes)
    prompts = tuple(prompt for part in lists for prompt in part)
    class_P = np.repeat(np.arange(len(classes), dtype=np.int32), [len(part) for part in lists])
    text = json.dumps([[classes[k], prompt] for k, prompt in zip(class_P.tolist(), prompts)])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return PromptSet(name=name, prompts=prompts, class_P=class_P, digest=digest, notes=tuple(notes))


def _prompts_of(file: PromptFile, label: str) -> list[str]:
    """The lower-cased class name in each sentence, its underscores kept unless the file says otherwise."""
    name = label.lower().replace("_", " ") if file.names == "spaces" else label.lower()
    filled = [fill(template, name=name, phrase="", suffix=file.suffix) for template in file.templates]
    for phrase in _of_class(file.phrases, label):
        filled.append(fill(file.template, name=name, phrase=phrase, suffix=file.suffix))
    return [*filled, *_of_class(file.prompts, label)]


def _of_class(table: Mapping[str, tuple[str, ...]], label: str) -> tuple[str, ...]:
    return {class_key(name): value for name, value in table.items()}.get(class_key(label), ())


def _cover(path: Path, file: PromptFile, classes: Sequence[str]) -> list[str]:
    """Every class must be described; descriptions of other classes are noted."""
    described = {class_key(name): name for table in (file.phrases, file.prompts) for name in table}
    wanted = {class_key(label) for label in classes}
    unknown = [name for key, name in described.items() if key not in wanted]
    missing = [label for label in classes if class_key(label) not in described]
    if missing and not file.templates:
        others = f" It describes {_list(unknown)}, which the dataset does not have." if unknown else ""
        raise InputError(
            f"{path} has no prompts for {len(missing)} of {len(classes)} classes: {_list(missing)}.{others}",
            so="Every class needs prompts.",
            do="Add them, or use --prompts ensemble.",
        )
    if not unknown or path.parent == SETS:  # shipped sets are made for more than one dataset
        return []
    return [f"{path} also describes {_list(unknown)}, which the dataset does not have."]


def _wordless(classes: Sequence[str]) -> list[str]:
    """Names that a text encoder cannot know."""
    bare = [name for name in classes if re.fullmatch(r"(n\d{8}|\d+)", name)]
    if not bare:
        return []
    return [f"Class names like {_list(bare[:3])} say nothing to a text encoder: name the classes with --classes FILE."]


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
