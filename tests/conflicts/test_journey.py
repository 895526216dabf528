"""From image files to groups, rules and tables: what was planted is found, and hardly anything else."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow.parquet as pq

from cleanctl import api
from cleanctl.config import SelectConfig
from cleanctl.conflicts.table import conflicts_table
from cleanctl.export.exporter import exporter_for, write_table


def share_found(shapes, kind):
    row_of = {key: row for row, key in enumerate(shapes.keys)}
    found = shapes.found
    hits = []
    for one in shapes.of(kind):
        group = found.group_N[row_of[one.key]]
        if kind == "leak":
            hits.append(
                (row_of[one.key], one.donor) in {(leak.row, leak.other_key) for leak in found.groups[group].leaks}
            )
        elif kind == "placeholder":
            hits.append("placeholder" in found.groups[group].kinds)
        else:
            hits.append(group >= 0 and group == found.group_N[row_of[one.donor]])
    return float(np.mean(hits))


def test_all_exact_copies_and_nearly_all_others_are_found(shapes):
    assert share_found(shapes, "exact") == 1
    assert share_found(shapes, "placeholder") == 1
    near = {kind: share_found(shapes, kind) for kind in ("reencoded", "resized", "cropped", "leak")}
    assert np.mean(list(near.values())) >= 0.95, near


def test_images_that_nobody_copied_are_in_no_group(shapes):
    planted = {one.key for one in shapes.planted}
    false = [
        group.number
        for group in shapes.found.groups
        if sum(shapes.keys[row] not in planted for row in group.row_K.tolist()) > 1
        or any(shapes.keys[leak.row] not in planted for leak in group.leaks)
    ]
    assert len(false) <= 0.01 * len(shapes.found.groups), false


def test_the_summary_counts_what_the_store_holds(shapes):
    found, counts = shapes.found, {one.kind: one for one in shapes.summary.counts}
    assert shapes.summary.groups == len(found.groups)
    assert shapes.summary.compared_by == found.compared_by == "pixels"
    assert not found.outdated
    for kind, count in counts.items():
        assert count.groups == sum(kind in group.kinds for group in found.groups), kind
    split = shapes.store.split("train")
    exact = split.scores.read("conflict").arrays["exact"]
    assert counts["exact"].images == int((exact > 0).sum()) >= 2 * len(shapes.of("exact"))
    assert counts["leak:test"].images == sum(len(group.leaks) for group in found.groups)
    sizes = [len(group.row_K) for group in found.groups]
    assert sizes == sorted(sizes, reverse=True)
    assert shapes.summary.duplicates == sum(sizes) - len(sizes)
    assert shapes.summary.largest[0].size == sizes[0]


def kept(shapes, strategy):
    config = SelectConfig(strategy=strategy, name="rules", device="cpu", fallback="none")
    api.select(config, store=shapes.path)
    return {row["key"] for row in api.read_selection(shapes.path, "rules").to_pylist() if row["keep"]}


def test_rules_leave_out_what_they_name(shapes):
    every, found, keys = set(shapes.keys), shapes.found, shapes.keys
    leaking = {keys[leak.row] for group in found.groups for leak in group.leaks}
    assert every - kept(shapes, "~conflict.leak") == leaking >= {one.key for one in shapes.of("leak")}
    left = kept(shapes, "~conflict.duplicate")
    for group in found.groups:
        assert [row for row in group.row_K.tolist() if keys[row] in left] == [group.kept]
    placeholders = kept(shapes, "conflict.placeholder")
    assert placeholders == {one.key for one in shapes.of("placeholder")}
    contradictory = every - kept(shapes, "~conflict.label")
    assert contradictory == {
        keys[row] for group in found.groups if len(set(group.label_K)) > 1 for row in group.row_K.tolist()
    }
    agreed = kept(shapes, "conflict.match")
    group = next(one for one in found.groups if len(one.row_K) > 4)
    labels, counts = np.unique(group.label_K, return_counts=True)
    majority = group.row_K[group.label_K == labels[np.argmax(counts)]]
    assert {keys[row] for row in group.row_K.tolist()} & agreed == {keys[row] for row in majority.tolist()}


def test_the_table_is_the_same_in_every_format(shapes, tmp_path):
    for suffix in ("parquet", "csv", "json"):
        out = tmp_path / f"t.{suffix}"
        write_table(exporter_for(out), out, *conflicts_table(shapes.store, "train"))
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert json.loads((tmp_path / "t.json").read_text()) == table
    with (tmp_path / "t.csv").open() as file:
        assert [row["key"] for row in csv.DictReader(file)] == [row["key"] for row in table]
    found = shapes.found
    assert [row["key"] for row in table if row["role"] == "centre"] == [
        shapes.keys[group.row_K[0]] for group in found.groups
    ]
    leaks = {(row["leak_of"], row["key"]) for row in table if row["role"] == "leak"}
    assert leaks >= {(one.key, one.donor) for one in shapes.of("leak")} - {
        (one.key, one.donor) for one in shapes.of("leak") if one.way != "exact"
    }
    assert sum(row["keep"] for row in table) == len(found.groups)
