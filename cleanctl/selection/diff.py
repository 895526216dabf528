"""Two stored selections of a split → which samples differ, by which rule and class. Reads only.

Legend: N rows of the split. A sample that differs is kept by one selection and dropped by the other; its reason is
looked for in this order:
    verdict   a person's verdict made the one drop it, or the other keep it
    fallback  the keeping selection's strategy drops it too, and its class was topped up
    rules     the rules of the dropping selection that say no
    strategy  none says no: the strategy drops what rules keep (`~`)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.errors import StoreError
from cleanctl.files.arrow import Values, batch_of, names_of
from cleanctl.results import DiffClass, DiffReason, SelectionDiff
from cleanctl.store import Split
from cleanctl.store.standing import DROP, KEEP, RELABEL, WORDS
from cleanctl.store.stored import StoredSelection
from cleanctl.strategy import evaluate, parse, rules_of

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 3
CHUNK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Difference:
    """first_N, second_N: bool, kept. reason_N: int32, place in `reasons`, -1 where both agree."""

    first_N: np.ndarray
    second_N: np.ndarray
    reason_N: np.ndarray
    reasons: tuple[tuple[str, str], ...]  # (dropped by "first" or "second", in words)


def compare(first: StoredSelection, second: StoredSelection) -> Difference:
    """Raises StoreError where they are not of the same rows."""
    first_N, second_N = first.keep, second.keep
    if len(first_N) != len(second_N):
        raise StoreError(
            f"The selections {first.name!r} and {second.name!r} have {len(first_N):,} and {len(second_N):,} rows.",
            do="Make both again with: cleanctl select",
        )
    reason_N = np.full(len(first_N), -1, np.int32)
    reasons: list[tuple[str, str]] = []
    for dropped_by, loser, keeper in (("first", first, second), ("second", second, first)):
        row_M = np.flatnonzero(keeper.keep & ~loser.keep)
        words, why_M = _reasons(loser, keeper, row_M)
        used = sorted(np.unique(why_M).tolist(), key=words.__getitem__)
        place_W = np.zeros(len(words), np.int32)
        place_W[used] = len(reasons) + np.arange(len(used))
        reason_N[row_M] = place_W[why_M]
        reasons += [(dropped_by, words[why]) for why in used]
    return Difference(first_N=first_N, second_N=second_N, reason_N=reason_N, reasons=tuple(reasons))


def _reasons(loser: StoredSelection, keeper: StoredSelection, row_M: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Why `loser` drops rows that `keeper` keeps: reasons in words, and int32 (M,) which of them is each row's."""
    refusing_RM = np.stack([~rule.keep[row_M] for rule in loser.rules.values()])
    kind_M = np.zeros(len(row_M), np.int64)
    for refuses_M in refusing_RM:  # which is far quicker than unique columns, and their number may be any
        _, first_K, kind_M = np.unique(2 * kind_M + refuses_M, return_index=True, return_inverse=True)
    words, why_M = [_refusal(loser, refusing_R) for refusing_R in refusing_RM[:, first_K].T], kind_M.astype(np.int32)

    def rather(reason: str, where_M: np.ndarray) -> None:
        why_M[where_M] = len(words)
        words.append(reason)

    rather(f"only {keeper.name}'s fallback keeps it", ~_by_strategy(keeper)[row_M])
    verdict_M, unaided_M = keeper.verdict[row_M], keeper.unreviewed[row_M]
    for verdict in (KEEP, RELABEL):
        rather(f"only {keeper.name} obeys the verdict {WORDS[verdict]}", (verdict_M == verdict) & ~unaided_M)
    rather("the verdict drop", ((loser.verdict == DROP) & loser.unreviewed)[row_M])
    return words, why_M


def _refusal(loser: StoredSelection, refusing_R: np.ndarray) -> str:
    """Which of the rules say no, in words."""
    names = [name for name, refuses in zip(loser.rules, refusing_R, strict=True) if refuses]
    if not names:
        return f"strategy {loser.attributes.get('strategy', '')}"
    return ", ".join(names) + (" says no" if len(names) == 1 else " say no")


def _by_strategy(selection: StoredSelection) -> np.ndarray:
    """(N,) bool: what the strategy alone keeps, before a fallback or a target."""
    tree = parse(str(selection.attributes["strategy"]))
    rules = selection.rules
    return evaluate(tree, {rule: rules[rule.name].keep for rule in rules_of(tree)})


def describe(
    split: Split, first: StoredSelection, second: StoredSelection, found: Difference, classes: tuple[str, ...]
) -> SelectionDiff:
    """The counts of a difference, by reason and by class."""
    label_N = split.label_N()
    only_first_N, only_second_N = found.first_N & ~found.second_N, found.second_N & ~found.first_N
    in_C = [np.bincount(label_N[only_N], minlength=len(classes)) for only_N in (only_first_N, only_second_N)]
    return SelectionDiff(
        first=first.name,
        second=second.name,
        split=split.name,
        count=len(label_N),
        both=int((found.first_N & found.second_N).sum()),
        only_first=int(only_first_N.sum()),
        only_second=int(only_second_N.sum()),
        neither=int((~found.first_N & ~found.second_N).sum()),
        reasons=tuple(sorted(_counted(split, found), key=lambda one: -one.samples)),
        classes=tuple(
            DiffClass(name=classes[k], only_first=int(in_C[0][k]), only_second=int(in_C[1][k]))
            for k in np.argsort(-(in_C[0] + in_C[1]), kind="stable").tolist()
            if in_C[0][k] + in_C[1][k]
        ),
        notes=tuple(
            f"Selection {one.name} is stale: images or labels changed after it was made."
            for one in (first, second)
            if one.stale
        )
        + _other_labels(label_N, first, second),
    )


def _other_labels(label_N: np.ndarray, first: StoredSelection, second: StoredSelection) -> tuple[str, ...]:
    """A note where people gave samples that both keep a label in one of them alone."""
    used = [np.where(one.verdict == RELABEL, one.verdict_label, label_N) for one in (first, second)]
    count = int((first.keep & second.keep & (used[0] != used[1])).sum())
    return (f"{count:,} samples that both keep have another label in one of them, by verdict.",) if count else ()


def _counted(split: Split, found: Difference) -> Iterator[DiffReason]:
    of_reason = [np.flatnonzero(found.reason_N == place) for place in range(len(found.reasons))]
    keys = _keys_at(split, [row for row_M in of_reason for row in row_M[:EXAMPLES].tolist()])
    for (dropped_by, reason), row_M in zip(found.reasons, of_reason):
        examples = tuple(keys[row] for row in row_M[:EXAMPLES].tolist())
        yield DiffReason(dropped_by=dropped_by, reason=reason, samples=len(row_M), examples=examples)


def _keys_at(split: Split, rows: list[int]) -> dict[int, str]:
    """row → key; each block of keys is read once."""
    keys: dict[int, str] = {}
    for block, rows_B in groupby(sorted(rows), lambda row: row // CHUNK_ROWS):
        start = block * CHUNK_ROWS
        key_B = split.keys(slice(start, start + CHUNK_ROWS))
        keys |= {row: key_B[row - start] for row in rows_B}
    return keys


def diff_table(
    split: Split, found: Difference, names: tuple[str, str], classes: tuple[str, ...]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The samples that differ, in store order: key, label, label_name, kept_by (a selection's name), reason."""
    import pyarrow as pa

    schema = pa.schema([("key", pa.string()), ("label", pa.int32())])
    for name in ("label_name", "kept_by", "reason"):
        schema = schema.append(pa.field(name, pa.string()))
    return schema, _batches(split, found, names, classes, schema)


def _batches(
    split: Split, found: Difference, names: tuple[str, str], classes: tuple[str, ...], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    label_N = split.label_N()
    for start in range(0, split.num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, split.num_rows))
        at_B = np.flatnonzero(found.reason_N[rows] >= 0)
        keys, label_B = split.keys(rows), label_N[rows][at_B]
        reason_B = found.reason_N[rows][at_B]
        columns: list[Values] = [
            [keys[at] for at in at_B.tolist()],
            label_B,
            names_of(label_B, classes),
            [names[0] if kept else names[1] for kept in found.first_N[rows][at_B].tolist()],
            [found.reasons[place][1] for place in reason_B.tolist()],
        ]
        yield batch_of(columns, schema)
