"""Findings → how many of each kind, and the largest groups. Pure but for the keys, which are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from cleanctl.config import ConflictsConfig
from cleanctl.conflicts.findings import Findings
from cleanctl.conflicts.pool import Pool
from cleanctl.results import ConflictCount, ConflictsSummary, LargestGroup

SHOWN_GROUPS = 10
SHOWN_KEYS = 3


def summarise(
    pool: Pool,
    findings: Findings,
    classes: tuple[str, ...],
    config: ConflictsConfig,
    searched: dict[str, Any],
    *,
    seconds: float,
) -> ConflictsSummary:
    """searched: the summary's fields that say how conflicts were looked for."""
    kinds_G = [_kinds(pool, findings, member_K) for member_K in findings.member_G]
    counts = []
    leaks = [f"leak:{part.split.name}" for part in pool.parts[1:]]
    for kind in ("exact", "near", "label", "placeholder", *leaks):
        of_kind = [member_K for member_K, kinds in zip(findings.member_G, kinds_G) if kind in kinds]
        counts.append(ConflictCount(kind=kind, groups=len(of_kind), images=_images(pool, findings, kind, of_kind)))
    several = [len(member_K) - 1 for member_K in findings.member_G]
    return ConflictsSummary(
        split=config.split,
        against=tuple(part.split.name for part in pool.parts[1:]),
        count=pool.own,
        groups=len(findings.member_G),
        duplicates=sum(several),
        counts=tuple(counts),
        largest=tuple(
            _largest(number, pool, findings.member_G[number], kinds_G[number], classes)
            for number in range(min(SHOWN_GROUPS, len(kinds_G)))
        ),
        seconds=round(seconds, 3),
        **searched,
    )


def _kinds(pool: Pool, findings: Findings, member_K: np.ndarray) -> tuple[str, ...]:
    twin_K = pool.twin_M[member_K]
    to_K = findings.leak_to_N[member_K]
    leaks = sorted(set(pool.part_M[to_K[to_K >= 0]].tolist()))
    said = {
        "exact": findings.exact_N[member_K].any(),
        "near": (twin_K != twin_K[0]).any(),
        "label": findings.label_N[member_K].any(),
        "placeholder": findings.placeholder_N[member_K].any(),
        **{f"leak:{pool.parts[part].split.name}": True for part in leaks},
    }
    return tuple(kind for kind, holds in said.items() if holds)


def _images(pool: Pool, findings: Findings, kind: str, groups: list[np.ndarray]) -> int:
    member_M = np.concatenate(groups) if groups else np.zeros(0, np.int64)
    if kind == "exact":
        return int(findings.exact_N[member_M].sum())
    if kind.startswith("leak:"):
        to_M = findings.leak_to_N[member_M]
        part = [part.split.name for part in pool.parts].index(kind.removeprefix("leak:"))
        return int((pool.part_M[to_M[to_M >= 0]] == part).sum())
    return len(member_M)


def _largest(
    number: int, pool: Pool, member_K: np.ndarray, kinds: tuple[str, ...], classes: tuple[str, ...]
) -> LargestGroup:
    label_K, count_K = np.unique(pool.label_M[member_K], return_counts=True)
    order = np.argsort(-count_K, kind="stable")
    keys = [_key(pool, one) for one in member_K[: SHOWN_KEYS + 1].tolist()]
    return LargestGroup(
        number=number,
        size=len(member_K),
        kinds=kinds,
        centre=keys[0],
        labels={classes[int(label_K[at])]: int(count_K[at]) for at in order},
        examples=tuple(keys[1:]),
    )


def _key(pool: Pool, number: int) -> str:
    part = pool.parts[int(pool.part_M[number])]
    row = int(pool.row_M[number])
    return part.split.keys(slice(row, row + 1))[0]
