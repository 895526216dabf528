"""Which splits choose the best epoch, and how many labels of a training set are right."""

from __future__ import annotations

import numpy as np
import pytest

from cleanctl.records import KNOWN_WRONG
from cleanctl.train.pool import find_tests, right_share


def test_a_split_beside_the_datasets_own_never_chooses_the_best_epoch():
    """ILSVRC2012's validation images beside WebVision's: the published models never saw them."""
    assert list(find_tests(["ilsvrc", "train", "val"])) == ["val"]
    assert list(find_tests(["ilsvrc", "train"])) == []


def test_labels_of_unknown_truth_are_not_counted_and_those_known_to_be_wrong_are_wrong():
    given = np.array([0, 1, 2, 2, 2])
    truth = np.array([0, 0, -1, KNOWN_WRONG, KNOWN_WRONG])
    assert right_share(given, given, truth) == pytest.approx(1 / 4)
    # 1 → 0 is right now; the last but one may be right since it is another label, and is no longer counted.
    label = np.array([0, 0, 2, 1, 2])
    assert right_share(label, given, truth) == pytest.approx(2 / 3)
    assert right_share(given[2:3], given[2:3], truth[2:3]) is None
