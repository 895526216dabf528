"""The strategy language means what it says, and an error points at the column."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanctl.config import SelectConfig
from cleanctl.errors import UsageError
from cleanctl.score.compute import scores_needed
from cleanctl.strategy import PAPER_RULES, Rule, evaluate, parse, rules_of

RULES = ["zeroshot.loss", "zeroshot.match", "logistic.consistency", "knn.loss"]
BITS = {Rule(*name.split(".")): (np.arange(16) >> i & 1).astype(bool) for i, name in enumerate(RULES)}


def trees():
    """(text, python expression over a, b, c, d) pairs."""
    leaf = st.sampled_from(list(zip(RULES, "abcd")))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(lambda t: (f"~{t[0]}" if t[0][0] != "(" else f"~ {t[0]}", f"(~{t[1]})")),
            st.tuples(inner, inner).map(lambda p: (f"({p[0][0]} & {p[1][0]})", f"({p[0][1]} & {p[1][1]})")),
            st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}|{p[1][0]})", f"({p[0][1]} | {p[1][1]})")),
        ),
        max_leaves=8,
    )


@given(trees())
def test_any_expression_evaluates_as_boolean_algebra(tree):
    text, python = tree
    values = dict(zip("abcd", BITS.values()))
    expected = eval(python, {}, values)
    np.testing.assert_array_equal(evaluate(parse(text), BITS), expected)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("zeroshot.loss | zeroshot.match & logistic.consistency", "a | (b & c)"),
        ("~zeroshot.loss & zeroshot.match", "(~a) & b"),
        ("~(zeroshot.loss | zeroshot.match) | ~~knn.loss", "(~(a | b)) | d"),
        ("  zeroshot.loss&zeroshot.match&knn.loss ", "a & b & d"),
    ],
)
def test_not_binds_before_and_before_or(text, python):
    values = dict(zip("abcd", BITS.values()))
    np.testing.assert_array_equal(evaluate(parse(text), BITS), eval(python, {}, values))


def test_named_strategies_speak_of_the_four_rules_of_the_paper():
    keep = {rule: (np.arange(16) >> i & 1).astype(bool) for i, rule in enumerate(PAPER_RULES)}
    votes = sum(mask.astype(int) for mask in keep.values())
    assert set(rules_of(parse("intersection"))) == set(PAPER_RULES)
    np.testing.assert_array_equal(evaluate(parse("intersection"), keep), votes == 4)
    np.testing.assert_array_equal(evaluate(parse("union"), keep), votes >= 1)
    np.testing.assert_array_equal(evaluate(parse("vote:3"), keep), votes >= 3)
    np.testing.assert_array_equal(evaluate(parse("vote: 2 & ~intersection"), keep), (votes >= 2) & (votes < 4))


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "empty"),
        ("zeroshot.loss &", 16, "missing at the end"),
        ("zeroshot.loss zeroshot.match", 15, "join the two"),
        ("(zeroshot.loss | knn.match", 1, "not closed"),
        ("zeroshot.loss)", 14, "follows a complete"),
        ("& knn.loss", 1, "missing before '&'"),
        ("zeroshot.loss & zershot.match", 17, "did you mean 'zeroshot'"),
        ("zeroshot.los", 10, "did you mean 'loss'"),
        ("logistic.similarity", 10, "no mechanism of logistic"),
        ("knn", 4, "wants a mechanism"),
        ("vote:5", 6, "from 1 to 4"),
        ("vote:", 6, "from 1 to 4"),
        ("zeroshot.loss + knn.loss", 15, "'+' has no meaning"),
        ("intersect", 1, "did you mean 'intersection'"),
    ],
)
def test_an_error_points_at_its_column(text, column, words):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert f"at column {column}:" in message
    assert words in message
    assert f"\n    {text}\n    {' ' * (column - 1)}^" in message


@given(st.text(alphabet="zeroshtlgick.nml&|~() :3", max_size=30))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(UsageError):
        assert rules_of(parse(text))


def test_only_the_scorers_that_a_strategy_needs_are_computed():
    def needed(strategy):
        return [one.title for one in scores_needed(SelectConfig(strategy=strategy, name="n"))]

    assert needed("zeroshot.match & ~zeroshot.loss") == ["zeroshot"]
    assert needed("intersection") == ["zeroshot", "logistic"]
    assert needed("knn.match & zeroshot.similarity") == ["zeroshot", "similarity", "knn"]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 400 + "knn.loss" + ")" * 400,
        "~" * 500 + "knn.loss",
        "(" * 10_000,
        "(knn.loss & " * 10_000,
        "~(" * 300 + "knn.loss" + ")" * 300,
    ],
    ids=["400 brackets", "500 ~", "10,000 open brackets", "10,000 open terms", "both"],
)
def test_a_strategy_nested_too_deep_is_refused_in_few_words(text):
    with pytest.raises(UsageError, match="inside one another") as caught:
        parse(text)
    assert len(str(caught.value)) < 600


def test_a_deep_strategy_within_the_limit_and_a_long_flat_one_are_evaluated():
    deep = parse("(" * 50 + "~" * 50 + "knn.loss" + ")" * 50)
    np.testing.assert_array_equal(evaluate(deep, BITS), BITS[Rule("knn", "loss")])
    flat = parse(" & ".join(["knn.loss"] * 5_000))
    np.testing.assert_array_equal(evaluate(flat, BITS), BITS[Rule("knn", "loss")])
