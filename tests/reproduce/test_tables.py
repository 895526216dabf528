"""The tables as data: what they refer to exists, and the published numbers agree with one another where they should."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from cleanctl.adapt.preset import names as preset_names
from cleanctl.config.recipe_files import recipe_names
from cleanctl.config.reproduce import TABLES
from cleanctl.prompts.prompt_set import shipped_sets
from cleanctl.registry import DATASETS
from cleanctl.reproduce.figures import _SWEEP
from cleanctl.reproduce.tables import FOLDER, LIKE, find_pair, load_table, settings
from cleanctl.train.methods.mixfix import MixFix


def values(table, row):
    found = next(one for one in load_table(table).rows if one.id == row)
    return dict(found.published)


def test_every_table_is_offered_and_loads():
    assert {path.stem for path in FOLDER.glob("*.toml")} == {"settings", *TABLES} - set(LIKE)
    for name in TABLES:
        assert list(load_table(name).pairs())
        assert re.search(r"docs/\w+\.md [A-F]", load_table(name).source)


def test_settings_name_datasets_recipes_and_prompts_that_exist():
    used = {column.setting for name in TABLES for column in load_table(name).columns}
    assert used == set(settings())
    for one in settings().values():
        assert one.dataset in DATASETS
        assert one.recipe is None or one.recipe in recipe_names()
        assert one.prompts == "features" or one.prompts in shipped_sets()


@pytest.mark.parametrize("name", TABLES)
def test_each_row_says_how_it_is_measured_or_why_not(name):
    table = load_table(name)
    assert len({row.id for row in table.rows}) == len(table.rows)
    columns = {column.id: column for column in table.columns}
    assert len(columns) == len(table.columns)
    for row in table.rows:
        untrained = row.measure is not None or all(columns[one].measure == "f1" for one in row.published)
        ways = [row.method is not None, row.adapt is not None, bool(row.mean_of), bool(row.why)]
        assert sum(ways) == (0 if untrained and not any(ways) else 1), row.id
        assert set(row.spread) <= set(row.published) <= set(columns)
        assert all(0 < value <= 100 for value in row.published.values())
        assert set(row.mean_of) <= set(row.published)
        assert set(row.columns) <= set(columns)
        assert row.adapt is None or row.adapt in preset_names()
        for references in row.mean_of.values():
            for reference in references:
                assert find_pair(reference)[0].method is not None
        if row.method == "mixfix":
            assert set(row.options) <= set(MixFix.options)


def test_the_means_of_table_2_are_those_of_the_tables_that_it_sums_up():
    ours = values("T2", "ours")
    assert mean(value for key, value in values("T4", "ours").items() if key.startswith("cifar10-")) == pytest.approx(
        ours["cifar10"], abs=0.006
    )
    assert mean(values("T7", "ours").values()) == pytest.approx(ours["red"], abs=0.012)
    assert values("T6", "ours")["webvision-top1"] == ours["webvision"]
    assert values("T5", "ours-dividemix")["clothing1m"] == ours["clothing1m"]
    assert values("T8", "ours")["animal10n"] == ours["animal10n"]


def test_the_contradiction_of_cifar100_is_there_and_told():
    """Table 2's 71.17 needs table 1's 76.63 where table 4 has 78.20; the other three agree."""
    of_t1, of_t4 = values("T1", "r0.7-rr0.8"), values("T4", "ours")
    assert mean(of_t1.values()) == pytest.approx(values("T2", "ours")["cifar100"], abs=0.005)
    assert {key for key, value in of_t1.items() if of_t4[key] != value} == {"cifar100-sym20"}
    for name in ("T2", "T4"):
        assert any("Contradiction" in note and "78.2" in note for note in load_table(name).notes)


def test_table_1_is_a_grid_of_thresholds():
    rows = load_table("T1").rows
    named = {row.id: tuple(row.options.values()) for row in rows}
    assert set(named.values()) == {(a, b) for a in (0.7, 0.8, 0.9) for b in (0.7, 0.8, 0.9)}
    for name, thetas in named.items():
        assert tuple(map(float, _SWEEP.fullmatch(name).groups())) == thetas
