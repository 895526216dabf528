"""What the verbs of `review` return."""

from __future__ import annotations

from dataclasses import dataclass

from cleanctl.results.result import Result


@dataclass(frozen=True, kw_only=True)
class VerdictLine:
    """A verdict as people read it. verdict: keep, drop, relabel, skip. label: the right class, with relabel. by: "" for
    a person without a name. at: ISO 8601. holds: "" if it counts, else why not."""

    key: str
    given: str
    verdict: str
    label: str | None
    by: str
    at: str
    source: str
    holds: str = ""


@dataclass(frozen=True, kw_only=True)
class Conflicting:
    """Verdicts on one image that contradict each other; by time, the last one counts until they are settled."""

    key: str
    sides: tuple[VerdictLine, ...]


@dataclass(frozen=True, kw_only=True)
class ReviewApplied(Result):
    """read = added + known + gone + changed + relabelled. added: new in the store; by verdict in keep, drop, relabel,
    skip. known: there already. gone, changed, relabelled: left out, because the split has no such key, because the
    image has another content, or because its label is another one, with examples of each. replaced: earlier verdicts of
    the same person. contradictions: with other people's or files', settled by `prefer` where it is given.
    """

    split: str
    files: tuple[str, ...]
    read: int
    added: int
    keep: int
    drop: int
    relabel: int
    skip: int
    known: int
    gone: int
    changed: int
    relabelled: int
    replaced: int
    contradictions: tuple[Conflicting, ...]
    left_out: tuple[VerdictLine, ...]
    prefer: str | None
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class ReviewServed(Result):
    """taken: verdicts that were stored while the page was served. place: the log's file."""

    split: str
    taken: int
    place: str


@dataclass(frozen=True, kw_only=True)
class ReviewList(Result):
    """What people decided of a split. total: verdicts that are the latest on their image; keep + drop + relabel + skip
    hold. shown: of them, as many as were asked for, all of the log with --history. place: the log's file."""

    split: str
    place: str
    total: int
    keep: int
    drop: int
    relabel: int
    skip: int
    gone: int
    changed: int
    relabelled: int
    people: dict[str, int]
    contradictions: tuple[Conflicting, ...]
    shown: tuple[VerdictLine, ...]
    out: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReviewRemoved(Result):
    """removed: images whose verdicts do not count any more. unknown: keys without a verdict."""

    split: str
    removed: int
    unknown: tuple[str, ...]
