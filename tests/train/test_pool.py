"""Which splits choose the best epoch, and which labels of a training set can be judged."""

from __future__ import annotations

import numpy as np

from cleanctl.records import KNOWN_WRONG
from cleanctl.train.pool import find_tests, judged


def test_a_split_beside_the_datasets_own_never_chooses_the_best_epoch():
    """ILSVRC2012's validation images beside WebVision's: the published models never saw them."""
    assert list(find_tests(["ilsvrc", "train", "val"])) == ["val"]
    assert list(find_tests(["ilsvrc", "train"])) == []


def test_a_label_known_to_be_wrong_is_judged_until_it_is_another():
    given = np.array([0, 1, 2, 2, 2])
    truth = np.array([0, 0, -1, KNOWN_WRONG, KNOWN_WRONG])
    assert judged(given, given, truth).tolist() == [True, True, False, True, True]
    label = np.array([0, 0, 2, 1, 2])  # the last but one may be right since it is another label
    assert judged(label, given, truth).tolist() == [True, True, False, False, True]
