"""`cleanctl prompts show`: a set as `embed` would use it, and the list of the sets that the package ships."""

from __future__ import annotations

from cleanctl.config import PromptsShowConfig
from cleanctl.datasets.columns import read_classes
from cleanctl.errors import UsageError
from cleanctl.meant import meant
from cleanctl.prompts.load import PromptFile, class_key, load_prompts
from cleanctl.prompts.prompt_set import described_classes, find_set, resolve_prompts, shipped_sets
from cleanctl.results.prompts import ClassPrompts, PromptListing, ShippedSet, ShippedSets


def list_sets() -> ShippedSets:
    """Every set that the package ships, by name."""
    found = []
    for name, path in shipped_sets().items():
        file = load_prompts(path)
        lists = [*file.phrases.values(), *file.prompts.values()] or [file.templates]
        one = ShippedSet(name=name, classes=len(file.phrases), prompts=min(map(len, lists)), first=lists[0][0])
        found.append(one)
    return ShippedSets(sets=tuple(found))


def show_prompts(config: PromptsShowConfig) -> PromptListing:
    """The prompts of each class, those of `config.only` where it names some.

    Raises InputError for an unknown or malformed set or classes that it does not cover, UsageError for a class of
    `config.only` that is not there and for a set of templates without classes.
    """
    given = None if config.classes is None else read_classes(config.classes)
    name, path = find_set(config.prompts, given, option="SET")
    classes = classes_of(config.prompts, load_prompts(path), given)
    wanted = {class_key(label) for label in config.only}
    if unknown := [label for label in config.only if class_key(label) not in set(map(class_key, classes))]:
        raise UsageError(
            f"--class is {unknown[0]!r}, which is not among the {len(classes)} classes{meant(unknown[0], classes)}",
            do=f"They are: {', '.join(classes[:20])}{' …' if len(classes) > 20 else ''}.",
        )
    found = resolve_prompts(config.prompts, classes)
    listed = tuple(
        ClassPrompts(name=label, prompts=tuple(found.prompts[i] for i in (found.class_P == k).nonzero()[0]))
        for k, label in enumerate(classes)
        if not wanted or class_key(label) in wanted
    )
    return PromptListing(name=name, file=str(path), digest=found.digest, classes=listed, notes=found.notes)


def classes_of(shown: str, file: PromptFile, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes given, else those that the file describes; UsageError where it describes none."""
    classes = described_classes(file) if given is None else given
    if not classes:
        raise UsageError(
            f"SET is {shown!r}, whose templates serve any class.",
            do="Name your classes: --classes FILE, a name a line.",
        )
    return classes
