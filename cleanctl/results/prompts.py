"""What `prompts show`, `check` and `write` return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PromptListing(Result):
    """A set as `embed` would use it: its prompts by class. digest: SHA-256 over all of them, as the store keeps it."""

    name: str
    file: str
    digest: str
    classes: tuple[ClassPrompts, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShippedSet:
    """classes: how many it describes; 0 for one of templates, which serves any class. prompts: of each class."""

    name: str
    classes: int
    prompts: int
    first: str


@dataclass(frozen=True, kw_only=True)
class ShippedSets(Result):
    sets: tuple[ShippedSet, ...]


Kind = Literal["unequal", "repeated", "shared", "long", "alike"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """kind: unequal counts, a sentence twice in a class, a sentence of two classes, one longer than the model's
    context, two classes that embed almost alike. error: `check` fails; else it is a warning."""

    kind: Kind
    error: bool
    classes: tuple[str, ...]
    says: str


@dataclass(frozen=True, kw_only=True)
class AlikePair:
    """cosine: of the two classes' mean prompt embeddings, in [-1, 1]."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True, kw_only=True)
class PromptCheck(Result):
    """alike: the cosine from which a pair is a finding. closest: the most alike pairs, below it or not. left_out: why
    checks did not run. context_length: tokens that the model reads of a sentence; None without a model."""

    name: str
    file: str
    classes: int
    prompts: int
    model: str | None
    context_length: int | None
    alike: float
    closest: tuple[AlikePair, ...]
    findings: tuple[Finding, ...]
    left_out: tuple[str, ...]

    @property
    def errors(self) -> int:
        return sum(finding.error for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class PromptsWritten(Result):
    """written: classes whose features this run added. kept: those that the file had. missing: those it still lacks.
    request: the text for a chat, with --print."""

    file: str
    features: int
    written: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...]
    request: str | None = None
