"""What the report says of rules, cuts, mixtures and single rows is what the store holds."""

from __future__ import annotations

import numpy as np
import pytest

from cleanctl import api
from cleanctl.report import svg
from cleanctl.report.assemble import rows_of_page, rows_with_images
from cleanctl.report.confusion import confusion_of
from cleanctl.report.evidence import cut_of, evidence_of, sentence
from cleanctl.report.gain import gain_of
from cleanctl.report.galleries import galleries_of
from cleanctl.report.mixtures import changes, mixtures_of
from cleanctl.report.sections import thresholds
from cleanctl.report.snapshot import take_snapshot
from cleanctl.score.mixture import loss_scores
from cleanctl.store import Store
from cleanctl.store.stored import RuleColumns
from tests.report.stores import make_store


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    path = make_store(tmp_path_factory.mktemp("evidence"), rows=900, strategies=("intersection", "joint"))
    store = Store.open(path)
    return {name: take_snapshot(store, store.split("train"), name) for name in ("intersection", "joint")}


def test_a_cut_is_the_lowest_kept_score_and_only_where_the_score_decides():
    label_N = np.array([0, 0, 0, 1, 1, 1])
    score_N = np.array([0.1, 0.5, 0.9, 0.2, 0.3, 0.4], np.float32)
    ok_N = np.ones(6, bool)

    def cut(*keep):
        rule = RuleColumns(score=score_N, keep=np.array(keep, bool), posterior=None)
        return cut_of(rule, label_N, ok_N, num_classes=2)

    assert cut(0, 1, 1, 0, 0, 0) == 0.5  # over all classes
    np.testing.assert_allclose(cut(0, 0, 1, 0, 1, 1), [0.9, 0.3], rtol=1e-6)
    np.testing.assert_allclose(cut(1, 0, 1, 0, 0, 1), [np.nan, 0.4], rtol=1e-6)
    assert cut(1, 0, 1, 1, 0, 1) is None
    assert cut(0, 0, 0, 0, 0, 0) is None


@pytest.mark.parametrize("name", ["intersection", "joint"])
def test_the_criterion_in_words_is_what_decided(snapshots, name):
    for one in evidence_of(snapshots[name]):
        assert one.threshold is not None
        assert f"{one.threshold:g}" in one.criterion
        assert ((one.number_N >= np.float32(one.threshold)) == one.keep_N).all()


def test_a_row_s_sentence_names_each_rule_on_the_side_that_it_took(snapshots):
    snapshot = snapshots["intersection"]
    evidence = evidence_of(snapshot)
    table = api.read_selection(snapshot.path, "intersection").to_pylist()
    for row in range(0, 900, 41):
        said = sentence(snapshot, evidence, row)
        against, _, favour = said.partition("For: ")
        assert said.startswith("Kept." if table[row]["keep"] else "Dropped.")
        for rule in (one.name for one in evidence):
            assert (f"{rule}:" in favour) == table[row][f"{rule}.keep"]
            assert (f"{rule}:" in against) == (not table[row][f"{rule}.keep"])
        ratio = table[row]["logistic.consistency.score"]
        if ratio >= 0.001:
            assert (
                f"logistic.consistency: of the highest {ratio:.3f} {'≥' if ratio >= np.float32(0.8) else '<'}" in said
            )


def test_components_are_those_that_were_fitted(snapshots):
    snapshot = snapshots["intersection"]
    rule = next(one for one in evidence_of(snapshot) if one.name == "logistic.loss")
    log_N = snapshot.scores["logistic"].arrays["log_p_label"]
    fit = loss_scores(log_N, snapshot.label_N.astype(np.int64), num_classes=3)
    found = mixtures_of(snapshot, rule)
    assert [one.place for one in found] == [0, 1, 2]
    for one in found:
        order = np.argsort(-fit.mean_C2[one.place])  # the clean component first
        np.testing.assert_allclose(one.weight_2, fit.weight_C2[one.place][order], atol=0.02)
        np.testing.assert_allclose(one.mean_2, fit.mean_C2[one.place][order], atol=0.02)
        np.testing.assert_allclose(one.variance_2, fit.variance_C2[one.place][order], rtol=0.1, atol=1e-4)


def test_bars_side_by_side_are_one_outline_and_an_empty_bin_parts_them():
    frame = svg.Frame(width=4, height=3, left=0, right=0, top=0, bottom=0, x=(0, 4), y=(0, 3))
    html = svg.stacked_histogram(frame, np.arange(5.0), np.array([1, 2, 0, 3]), np.array([0, 1, 0, 0]))
    first = "M0.0 2.0L1.0 2.0L1.0 1.0L2.0 1.0L2.0 3.0L1.0 3.0L1.0 3.0L0.0 3.0Z"
    assert f'class="keep" d="{first}M3.0 0.0L4.0 0.0L4.0 3.0L3.0 3.0Z"' in html
    assert 'class="drop" d="M1.0 0.0L2.0 0.0L2.0 1.0L1.0 1.0Z"' in html


def test_of_many_classes_the_page_has_the_mixtures_of_those_that_drop_most(snapshots, monkeypatch):
    snapshot = snapshots["intersection"]
    evidence = evidence_of(snapshot)
    monkeypatch.setattr(thresholds, "SHOWN_CLASSES", 2)
    parts = thresholds.mixtures(snapshot, evidence).html.split("<h3>")[1:]
    rules = [one for one in evidence if one.mechanism == "loss"]
    assert len(parts) == len(rules) == 2
    for rule, html in zip(rules, parts, strict=True):
        dropped = np.bincount(snapshot.label_N[~rule.keep_N], minlength=3)
        assert len({*dropped.tolist()}) == 3
        assert "Shown are the 2 of 3 classes that drop most." in html
        for place, name in enumerate(snapshot.classes):
            assert (f'aria-label="{name}:' in html) == (place != dropped.argmin())


def test_a_mixture_s_picture_counts_every_row_and_its_cuts_part_kept_from_dropped(snapshots):
    snapshot = snapshots["intersection"]
    for rule in evidence_of(snapshot):
        if rule.mechanism != "loss":
            continue
        for one in mixtures_of(snapshot, rule):
            own = snapshot.label_N == one.place
            assert one.kept_B.sum() == one.kept == rule.keep_N[own].sum()
            assert one.kept_B.sum() + one.dropped_B.sum() == one.count == own.sum()
            log_M = rule.score_N[own].astype(np.float64)
            scaled_M = (log_M - log_M.min()) / np.ptp(log_M)
            sides = np.digitize(scaled_M, one.cuts)
            assert one.cuts
            for side in np.unique(sides):
                assert len(set(rule.keep_N[own][sides == side].tolist())) == 1


def test_changes_lie_between_the_values_that_differ():
    assert changes(np.array([0.0, 1.0, 0.4, 0.6]), np.array([False, True, False, True])) == pytest.approx((0.5,))
    assert changes(np.array([0.0, 1.0]), np.array([True, True])) == ()


def test_galleries_show_what_they_say(snapshots):
    snapshot = snapshots["intersection"]
    selection, label_N = snapshot.selection, snapshot.label_N
    found = {one.id: one for one in galleries_of(snapshot, evidence_of(snapshot))}
    assert set(found) == {"suspicious", "borderline", "disagreements", "suggested", "kept-doubtful"}
    suspicious = list(found["suspicious"].rows)
    assert not selection.keep[suspicious].any()
    assert (selection.suggested[suspicious] != label_N[suspicious]).all()
    doubtful = np.flatnonzero(~selection.keep & (selection.suggested != label_N))
    for place in range(3):
        own = doubtful[label_N[doubtful] == place]
        assert own[np.argmin(selection.p_label[own])] in suspicious
    divided = list(found["disagreements"].rows)
    assert ((selection.votes[divided] > 0) & (selection.votes[divided] < 4)).all()
    assert selection.keep[list(found["kept-doubtful"].rows)].all()
    assert all(len(set(one.rows)) == len(one.rows) <= one.of for one in found.values())
    assert "disagreements" not in {one.id for one in galleries_of(snapshots["joint"], evidence_of(snapshots["joint"]))}


def test_pairs_hold_rows_of_the_pair(snapshots):
    for snapshot in snapshots.values():
        view = confusion_of(snapshot)
        assert [pair.samples for pair in view.pairs] == sorted((pair.samples for pair in view.pairs), reverse=True)
        for pair in view.pairs:
            rows = list(pair.rows)
            assert (snapshot.label_N[rows] == pair.given).all()
            assert (snapshot.selection.suggested[rows] == pair.likely).all()
        np.testing.assert_allclose(view.share_SS.sum(axis=1), 1.0, atol=0.02)
    assert confusion_of(snapshots["intersection"]).transition_SS is None
    np.testing.assert_allclose(confusion_of(snapshots["joint"]).transition_SS.sum(axis=1), 1.0, atol=0.01)


def test_a_look_brings_more_where_the_rules_are_divided(snapshots):
    snapshot = snapshots["intersection"]
    gain_N = gain_of(snapshot, evidence_of(snapshot))
    votes = snapshot.selection.votes
    assert ((gain_N >= 0) & (gain_N <= 1)).all()
    assert gain_N[votes == 2].mean() > gain_N[votes == 3].mean() > gain_N[votes == 4].mean()
    assert gain_N[votes == 2].mean() > gain_N[votes == 0].mean()


def test_a_page_of_a_part_holds_what_sections_show_and_what_to_review_first(snapshots):
    snapshot = snapshots["joint"]
    gain_N = gain_of(snapshot, evidence_of(snapshot))
    rows = rows_of_page(snapshot, gain_N, [899, 5], most=100)
    assert len(rows) == 100
    assert (np.diff(rows) > 0).all()
    assert {899, 5, *np.argsort(-gain_N, kind="stable")[:20].tolist()} <= set(rows.tolist())
    assert len(rows_of_page(snapshot, gain_N, [], most=900)) == 900
    wanted = rows_with_images(gain_N, snapshot.ok_N, [7, 899, 7], 60)
    assert wanted[:2] == [7, 899]
    assert len(set(wanted)) == len(wanted) == 60
    few = rows_with_images(gain_N, snapshot.ok_N, [7], 5_000)
    assert sorted(few) == list(range(900))
