"""`cleanctl prompts check`: what would go wrong with a prompt set, before anything is embedded.

Counts and repeats come from the text alone. Length and likeness need a model: its tokenizer and context length tell
which sentences it would cut, its text embeddings which classes it can hardly tell apart.

Legend: P prompts, C classes, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model
from cleanctl.config import PromptsCheckConfig
from cleanctl.datasets.columns import read_classes
from cleanctl.errors import InputError
from cleanctl.progress import SILENT, Progress
from cleanctl.prompts.load import PromptFile, load_prompts
from cleanctl.prompts.prompt_set import find_set, sentences_of
from cleanctl.prompts.show import classes_of
from cleanctl.results.prompts import AlikePair, Finding, PromptCheck
from cleanctl.runtime import choose_device, choose_precision

CLOSEST = 5  # pairs of classes that are told whatever the threshold


def check_prompts(config: PromptsCheckConfig, *, progress: Progress = SILENT) -> PromptCheck:
    """Every finding about the set; unlike `embed`, this goes on after a mistake, so that all of them are told.

    Raises InputError for an unknown or malformed set, classes that it does not cover, or an unusable model.
    """
    given = None if config.classes is None else read_classes(config.classes)
    name, path = find_set(config.prompts, given, option="SET")
    file = load_prompts(path, repeats=True)
    classes = classes_of(config.prompts, file, given)
    lists = sentences_of(path, file, classes)
    if not any(lists):
        raise InputError(f"{path} has no sentence for any of the {len(classes)} classes.", do="Add some.")
    findings = [*unequal_counts(file, classes, lists), *repeats(classes, lists), *shared_sentences(classes, lists)]
    closest: tuple[AlikePair, ...] = ()
    context, left_out = None, []
    if config.model is None:
        left_out.append("Lengths and look-alike classes are not checked: they need a model, --model NAME.")
    else:
        context, more, closest = _ask_model(config, classes, lists, progress)
        findings += more
    return PromptCheck(
        name=name,
        file=str(path),
        classes=len(classes),
        prompts=sum(map(len, lists)),
        model=config.model,
        context_length=context,
        alike=config.alike,
        closest=closest,
        findings=tuple(findings),
        left_out=tuple(left_out),
    )


# ---- from the text


def unequal_counts(file: PromptFile, classes: Sequence[str], lists: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """A class without sentences is an error; so are unequal counts, unless the file allows them."""
    counts = [len(sentences) for sentences in lists]
    for label, count in zip(classes, counts):
        if not count:
            yield Finding(kind="unequal", error=True, classes=(label,), says=f"{label} has no sentence.")
    smallest, largest = min(counts), max(counts)
    if smallest == largest:
        return
    fewest = tuple(label for label, count in zip(classes, counts) if count == smallest)
    if file.equal:
        follows = f"embed would use the first {smallest} of each class."
    else:
        follows = "a class with more sentences weighs more, unless select --prompt-pooling mean is used."
    says = f"Classes have {smallest} to {largest} sentences, {_some(fewest)} {smallest}: {follows}"
    yield Finding(kind="unequal", error=file.equal, classes=fewest, says=says)


def repeats(classes: Sequence[str], lists: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """A sentence that a class has twice: an error, or a warning where the two differ in case or punctuation."""
    for label, sentences in zip(classes, lists):
        seen: dict[str, str] = {}
        for sentence in sentences:
            first = seen.setdefault(_bare(sentence), sentence)
            if first is not sentence:
                same = first == sentence
                how = "twice" if same else f"and nearly the same {first!r}"
                says = f"{label} has {sentence!r} {how}: it counts double."
                yield Finding(kind="repeated", error=same, classes=(label,), says=says)


def shared_sentences(classes: Sequence[str], lists: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """A whole sentence of two classes says nothing about which of them an image shows."""
    owners: dict[str, dict[str, str]] = {}
    for label, sentences in zip(classes, lists):
        for sentence in sentences:
            owners.setdefault(_bare(sentence), {})[label] = sentence
    for labels in owners.values():
        if len(labels) > 1:
            says = f"{next(iter(labels.values()))!r} stands for {_some(tuple(labels))} alike."
            yield Finding(kind="shared", error=True, classes=tuple(labels), says=says)


def _bare(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.lower()))


# ---- from a model


def _ask_model(
    config: PromptsCheckConfig, classes: Sequence[str], lists: Sequence[Sequence[str]], progress: Progress
) -> tuple[int, list[Finding], tuple[AlikePair, ...]]:
    """(context length, findings, the closest pairs) by the model of `config`."""
    assert config.model is not None
    source = resolve_model(config.model, config.pretrained, download=config.download)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device.value)
    progress.note(f"Text encoder of {source.name}: {device.value} ({device.reason}), {precision.value}.")
    for told in source.notes:
        progress.note(told)
    encoder = load_encoder(source, device=device.value, precision=precision.value, progress=progress)
    text = encoder.encode_text([sentence for sentences in lists for sentence in sentences])
    class_P = np.repeat(np.arange(len(classes)), [len(sentences) for sentences in lists])
    context = int(source.config["text_cfg"].get("context_length", 77))
    findings = list(_too_long(classes, lists, class_P[text.cut_P], np.flatnonzero(text.cut_P), context))
    pairs = alike_pairs(text.embedding_PD, class_P, len(classes), threshold=config.alike)
    found = [AlikePair(first=classes[i], second=classes[j], cosine=cosine) for cosine, i, j in pairs]
    for pair in found:
        if pair.cosine >= config.alike:
            says = f"{pair.first} and {pair.second} embed almost alike: cosine {pair.cosine:.3f}."
            findings.append(Finding(kind="alike", error=False, classes=(pair.first, pair.second), says=says))
    return context, findings, tuple(found[:CLOSEST])


def _too_long(
    classes: Sequence[str], lists: Sequence[Sequence[str]], class_K: np.ndarray, place_K: np.ndarray, context: int
) -> Iterator[Finding]:
    flat = [sentence for sentences in lists for sentence in sentences]
    for k, place in zip(class_K.tolist(), place_K.tolist()):
        says = f"{classes[k]}: {flat[place]!r} is longer than {context} tokens; the model would not read its end."
        yield Finding(kind="long", error=True, classes=(classes[k],), says=says)


def alike_pairs(
    embedding_PD: np.ndarray, class_P: np.ndarray, num_classes: int, *, threshold: float
) -> list[tuple[float, int, int]]:
    """(cosine, class, class) of all pairs from `threshold` on and of the CLOSEST pairs, most alike first.

    The cosine is that of the classes' means over their unit-length embeddings; classes without prompts are in no pair.
    """
    mean_CD = np.zeros((num_classes, embedding_PD.shape[1]), np.float32)
    np.add.at(mean_CD, class_P, embedding_PD)
    here = np.flatnonzero(np.bincount(class_P, minlength=num_classes))
    unit_CD = mean_CD[here] / np.maximum(np.linalg.norm(mean_CD[here], axis=1, keepdims=True), 1e-12)
    kept: list[tuple[float, int, int]] = []
    for i in range(len(here) - 1):
        cosine_K = unit_CD[i + 1 :] @ unit_CD[i]
        order = np.argsort(-cosine_K, kind="stable")
        most = max(CLOSEST, int(np.count_nonzero(cosine_K >= threshold)))
        kept += [(min(float(cosine_K[k]), 1.0), int(here[i]), int(here[i + 1 + k])) for k in order[:most].tolist()]
    kept.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return kept[: max(CLOSEST, sum(cosine >= threshold for cosine, _, _ in kept))]


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
