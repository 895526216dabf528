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

from cleanctl.errors import InputError, UsageError
from cleanctl.meant import meant
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
    shown, path = find_set(name, classes)
    made = _build(shown, path, load_prompts(path), classes)
    if name != "features" or shown != "ensemble":
        return made
    note = (
        f"No feature phrases are shipped for these classes: {len(made.prompts) // len(classes)} plain sentences a "
        "class are used; describe your classes in a file and give it with --prompts FILE."
    )
    return replace(made, notes=(note, *made.notes))


def find_set(name: str, classes: Sequence[str] | None, *, option: str = "--prompts") -> tuple[str, Path]:
    """A set's own name and its file; `features` becomes the shipped set that knows every class, else `ensemble`.

    Raises InputError for an unknown name, UsageError where `features` is to be chosen and no classes are known.
    """
    shipped = shipped_sets()
    if name == "features":
        if classes is None:
            raise UsageError(
                f"{option} is 'features', which is chosen for a dataset's classes.",
                do=f"Name them with --classes FILE, or give one of: {', '.join(shipped)}.",
            )
        wanted = {class_key(label) for label in classes}
        for stem, path in shipped.items():
            if wanted <= {class_key(label) for label in load_prompts(path).phrases}:
                return f"features:{stem}", path
        return "ensemble", shipped["ensemble"]
    path = shipped.get(name, Path(name).expanduser())
    if not path.is_file():
        raise InputError(
            f"{option} is {name!r}: neither a file nor one of features, {', '.join(shipped)}{meant(name, shipped)}",
            do="Check the path.",
        )
    return name if name in shipped else path.name, path


def shipped_sets() -> dict[str, Path]:
    """The package's own sets: name → file."""
    return {path.stem: path for path in sorted(SETS.glob("*.toml"))}


def described_classes(file: PromptFile) -> tuple[str, ...]:
    """The classes that a file describes, in its order; none where it holds templates alone."""
    first: dict[str, str] = {}
    for name in (*file.phrases, *file.prompts):
        first.setdefault(class_key(name), name)
    return tuple(first.values())


def sentences_of(path: Path, file: PromptFile, classes: Sequence[str]) -> list[list[str]]:
    """Every sentence of each class, before any is cut; InputError where a class has none."""
    _cover(path, file, classes)
    return [_prompts_of(file, label) for label in classes]


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
