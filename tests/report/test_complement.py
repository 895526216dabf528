"""A rule that a strategy takes the complement of (`~`) is shown on the side that it took, with that name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cleanctl import api
from cleanctl.config import ReportConfig
from cleanctl.report.evidence import complements, evidence_of, sentence
from cleanctl.report.gain import gain_of
from cleanctl.report.galleries import galleries_of
from cleanctl.report.quality import quality_of
from cleanctl.report.snapshot import take_snapshot
from cleanctl.store import Store
from cleanctl.strategy import parse
from tests.report.stores import make_store

PLAIN, TURNED = "zeroshot.consistency & zeroshot.match", "zeroshot.consistency & ~zeroshot.match"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("complement"), rows=300, strategies=(PLAIN, TURNED))


@pytest.fixture(scope="module")
def snapshots(path):
    store = Store.open(path)
    return [take_snapshot(store, store.split("train"), name) for name in (PLAIN, TURNED)]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        ("zeroshot.match & ~conflict.leak & ~conflict.duplicate", {"conflict.leak", "conflict.duplicate"}),
        ("~(zeroshot.match & ~knn.match)", {"zeroshot.match"}),
        ("~conflict.label | conflict.match", {"conflict.label"}),
        ("zeroshot.match & ~knn.match | knn.match & ~zeroshot.match", set()),
        ("intersection", set()),
    ],
)
def test_complements_are_the_rules_below_an_odd_number_of_tildes(strategy, names):
    assert complements(parse(strategy)) == names


def test_the_sentence_and_the_counts_go_by_what_the_strategy_made_of_the_rule(snapshots):
    plain, turned = snapshots
    before, after = evidence_of(plain)[1], evidence_of(turned)[1]
    assert (before.name, after.name) == ("zeroshot.match", "~zeroshot.match")
    assert (after.keep_N == ~before.keep_N).all()
    assert after.cut is None
    assert after.criterion == f"evidence does not meet this: {before.criterion}"
    for side_N, word in ((after.keep_N, "For"), (before.keep_N, "Against")):
        said = sentence(turned, evidence_of(turned), int(np.flatnonzero(side_N)[0]))
        sides = dict(re.findall(r"(For|Against): (.*?)(?= For:| Against:|$)", said))
        assert "~zeroshot.match: margin" in sides[word], said


def test_rules_disagree_where_the_strategy_has_them_disagree(snapshots):
    turned = snapshots[1]
    evidence = evidence_of(turned)
    one, other = (rule.keep_N for rule in evidence)
    divided = next(found for found in galleries_of(turned, evidence) if found.id == "disagreements")
    assert divided.of == (one != other).sum()
    gain_N = gain_of(turned, evidence)
    assert gain_N[one != other].min() >= 0.25  # divided evenly is a quarter of the gain


def test_a_complement_ranks_right_labels_the_other_way_round(snapshots):
    plain, turned = (quality_of(one, evidence_of(one)).rules for one in snapshots)
    assert turned["~zeroshot.match"][1] == pytest.approx(1 - plain["zeroshot.match"][1])


def test_the_page_counts_and_draws_the_complement(path, snapshots, tmp_path):
    api.report(ReportConfig(out=tmp_path / "page.html", selection=TURNED), store=path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    kept = [int(one.keep_N.sum()) for one in evidence_of(snapshots[1])]
    assert re.search(rf"<b>~zeroshot\.match</b>.*?>{kept[1]}<", text)
    keeping = np.sum([one.keep_N for one in evidence_of(snapshots[1])], axis=0)
    none, some, every = np.bincount(keeping, minlength=3)
    assert f"Labels kept by no rule: {none}; by 1 rule: {some}; by all rules: {every}." in text
    assert "dropped from 0<" in text
    assert "kept from 0.8<" in text
