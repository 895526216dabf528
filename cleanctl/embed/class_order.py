"""Which of two orders of the same class names fits the images: told after embedding, where a dataset has two in use.

Zero-shot predictions name a class; a label is a number. Whichever order gives more of the labels the predicted name is
the better one. Nothing is written.
"""

from __future__ import annotations

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.progress import Progress
from cleanctl.records import Dataset
from cleanctl.runtime import choose_device
from cleanctl.score.scorer import Rows
from cleanctl.score.temperature import PAPER_TEMPERATURE
from cleanctl.score.zeroshot import class_logits
from cleanctl.store import Store


def tell_class_order(store: Store, dataset: Dataset, *, device: str, progress: Progress) -> None:
    """Notes the zero-shot accuracy of both orders on `test`, or without it on every split; warns where the other wins.

    The store must be complete. Does nothing for a dataset that has one order.
    """
    if dataset.other_order is None:
        return
    names = [split.split for split in dataset.splits]
    tested = ["test"] if "test" in names else names
    other = dataset.other_order.classes
    as_other_C = np.array([other.index(name) for name in dataset.classes])
    right = right_by_other = count = 0
    for name in tested:
        label_N, class_N = _predicted(store, name, device)
        right += int((class_N == label_N).sum())
        right_by_other += int((as_other_C[class_N] == label_N).sum())
        count += len(label_N)
    if not count:
        return
    differ = [number for number, pair in enumerate(zip(dataset.classes, other)) if pair[0] != pair[1]]
    fact = (
        f"Zero-shot accuracy on {', '.join(tested)} is {100 * right / count:.1f} % with "
        f"{_order(dataset.classes, differ)}, and {100 * right_by_other / count:.1f} % with {_order(other, differ)}"
    )
    if right_by_other > right:
        progress.warn(
            f"{fact}: the labels seem to follow the other order, which {dataset.other_order.option} takes, in another "
            "store or with --replace."
        )
    else:
        progress.note(f"{fact}: the order is kept.")


def _predicted(store: Store, name: str, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and zero-shot predictions, int (N,), of the readable rows; at the published temperature."""
    split = store.split(name)
    label_N = split.label_N()[split.ok_rows()]
    rows = Rows(blocks=split.blocks(), label_N=label_N, num_classes=len(store.classes), device=choose_device(device))
    pooled = class_logits(store.text(), rows, temperature=PAPER_TEMPERATURE, pooling=SelectConfig.prompt_pooling)
    class_N = np.empty(len(label_N), dtype=np.int64)
    for part, logit_BC, _ in pooled:
        class_N[part] = logit_BC.argmax(axis=1)
    return label_N, class_N


def _order(classes: tuple[str, ...], numbers: list[int]) -> str:
    return ", ".join(f"{number} {classes[number]}" for number in numbers)
