"""A method's own numbers: from defaults, a recipe's table and --set into the run's config.json, or refused."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from blobs import RECIPE, loader_of, make_store
from pydantic import TypeAdapter

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.registry import METHODS
from cleanctl.train import train
from cleanctl.train.recipe import Recipe, load_recipe, parse_recipe, with_overrides
from cleanctl.train.settings import parse_setting
from cleanctl.user_files import _allowed

DOCS = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def elr(text: str = "", *given: str) -> Recipe:
    return with_overrides(parse_recipe(RECIPE + text, "mine"), TrainConfig(method="elr", settings=given))


def test_set_comes_before_the_recipes_table_and_that_before_the_default() -> None:
    assert elr().settings == {"elr": {"momentum": 0.3, "weight": 5.0}}
    assert elr("[elr]\nmomentum = 0.7\n").settings["elr"] == {"momentum": 0.7, "weight": 5.0}
    assert elr("[elr]\nmomentum = 0.7\n", "momentum=0.9", "weight=1").settings["elr"] == {"momentum": 0.9, "weight": 1}


def test_a_table_of_another_method_is_left_to_that_method() -> None:
    recipe = parse_recipe(RECIPE + "[elr]\nweight = 3\n[sce]\nbeta = 0.5\n", "mine")
    assert with_overrides(recipe, TrainConfig(method="sce")).settings == {"sce": {"alpha": 1.0, "beta": 0.5}}
    assert with_overrides(recipe, TrainConfig(method="mixfix")).settings == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[elr]\nmomentun = 0.7", "The recipe mine, table [elr]: the key momentun is unknown"),
        ("[elr]\nmomentum = 1.5", "momentum is 1.5; allowed: a number from 0 below 1"),
        ("[elr]\nweight = 'high'", "weight is 'high'; allowed: a number from 0 to 1,000"),
        ("[elr]\nweight = true", "weight is True; allowed: a number"),
        ("[erl]\nweight = 3", "the key weight is unknown"),
    ],
)
def test_a_wrong_table_of_a_recipe_names_field_value_and_range(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        parse_recipe(RECIPE + text, "mine")


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("elr", "momentum", "--set is 'momentum'. Give NAME=VALUE"),
        ("elr", "=3", "--set is '=3'."),
        ("elr", "beta=1", "the key beta is unknown. Give --set NAME=VALUE with one of: momentum, weight."),
        ("elr", "weight=-1", "weight is -1; allowed: a number from 0 to 1,000"),
        ("elr", "weight=nan", "weight is"),
        ("elr", "weight=[1]", "weight is '[1]'; allowed: a number"),
        ("mixfix", "weight=1", "--set weight=… was given with --method mixfix. That method has no settings"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_wrong_usage(method: str, given: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        with_overrides(load_recipe("cifar10"), TrainConfig(method=method, settings=(given,)))


def test_a_value_is_a_number_a_truth_value_or_text() -> None:
    typed = ["a=1", "a=0.5", "a=1e-3", "a=true", "a=selected", 'a="x"', "a=1=2", "a = 2"]
    assert [parse_setting(text)[1] for text in typed] == [1, 0.5, 0.001, True, "selected", '"x"', "1=2", 2]


def test_a_run_writes_its_settings_down_and_another_value_is_another_experiment(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("epochs = 3", "epochs = 2"))
    config = {"recipe": str(tmp_path / "tiny.toml"), "method": "elr", "selection": "all", "device": "cpu"}
    result = train(store, TrainConfig(**config, settings=("weight=2",)), loader_factory=loader_of)
    described = json.loads((Path(result.folder) / "config.json").read_text())
    assert described["recipe"]["settings"] == {"elr": {"momentum": 0.3, "weight": 2.0}}
    with pytest.raises(StoreError, match=r"weight was 2\.0, now 5\.0"):
        train(store, TrainConfig(**config), loader_factory=loader_of)


def test_the_documentation_has_every_setting_with_its_default_and_range() -> None:
    rows = []
    for name in METHODS.built_in:
        known = METHODS.load(name).Settings
        schema = TypeAdapter(known).json_schema()
        for field in fields(known):
            one = schema["properties"][field.name]
            default = json.dumps(one["default"]) if "default" in one else "must be given"
            rows.append(f"| `{name}` | `{field.name}` | {default} | {_allowed(one)} | {one['description']} |")
    text = DOCS.read_text("utf-8")
    table = text.split("<!-- settings: begin -->\n")[1].split("<!-- settings: end -->")[0].splitlines()[2:]
    assert table == rows, "\n".join(rows)
    for name in METHODS.built_in:
        assert f"| `{name}` |" in text
