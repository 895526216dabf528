"""Training dynamics: after each epoch the logits of every training image → sums over epochs → the score `dynamics`.

In: a View of the training set (no augmentation), the network's prediction, the labels as given, selected or not. The
sums are part of the run's state, so that a run that was stopped goes on with them. On disk, at the end of the run: the
score `dynamics` of the split (cleanctl.score.dynamics says what is in it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cleanctl.errors import UsageError
from cleanctl.records import ClassPosterior
from cleanctl.score.compute import record_score
from cleanctl.score.dynamics import Dynamics
from cleanctl.store import Store
from cleanctl.train.methods.method import View
from cleanctl.train.transfer import Gathered, send

Sums = dict[str, Any]  # name → tensor (M,), and `epochs`; empty before the first epoch
LAST = tuple(ClassPosterior.__dataclass_fields__)


def after_epoch(before: Sums, view: View, predict: Callable[[Tensor], Tensor], label_M: np.ndarray) -> Sums:
    """The sums with one more epoch. An image that cannot be read adds nothing, one whose logits hold NaN neither."""
    from cleanctl_kernels.zeroshot import stats_of_logits

    count = len(label_M)
    sums = {name: value.clone() for name, value in before.items() if name != "epochs"} or _empty(count)
    number_M, margin_M, right_M = np.zeros(count, bool), np.zeros(count), np.zeros(count, bool)
    last = {name: np.zeros(count, sums[name].numpy().dtype) for name in LAST}
    gathered = Gathered(number_M, margin_M, right_M, *last.values())
    with torch.inference_mode():
        for position, image in view.images():
            logit = predict(image).float()
            label = send({"label": label_M[position].astype(np.int64)}, logit.device)["label"]
            number, margin = logit.isfinite().all(dim=1), _margin(logit, label).double()
            found = stats_of_logits(logit, label)  # consumes the logits
            gathered.put(position, number, margin, found.suggested == label, *(getattr(found, name) for name in LAST))
        gathered.close()
    at = torch.from_numpy(np.flatnonzero(number_M))
    margin, right = torch.from_numpy(margin_M)[at], torch.from_numpy(right_M)[at]
    sums["seen"][at] += 1
    sums["margin"][at] += margin
    sums["square"][at] += margin.square()
    sums["log"][at] += torch.from_numpy(last["log_p_label"])[at].double()
    sums["forgotten"][at] += (sums["right"][at] & ~right).int()
    sums["right"][at] = right
    for name, values_M in last.items():
        sums[name][at] = torch.from_numpy(values_M)[at]
    return {**sums, "epochs": int(before.get("epochs", 0)) + 1}


def require_from_the_start(sums: Sums, epoch: int) -> None:
    """UsageError for a run that went through `epoch` epochs without recording."""
    if epoch and int(sums.get("epochs", 0)) != epoch:
        raise UsageError(
            f"The run has {epoch} epochs behind it of which no dynamics were recorded.",
            so="An average over the others would be another measure.",
            do="Start it over with --no-resume, or give it another --name.",
        )


def require_recorded(store: Store, split: str, run: str) -> None:
    """UsageError where a finished run did not leave the dynamics that are asked for."""
    stored = store.split(split).scores.usable(Dynamics.name) or {}
    if stored.get("run") != run:
        raise UsageError(
            f"The run {run} is finished, and the split's dynamics are not those of it.",
            so="They can be recorded only while it trains.",
            do="Start it over with --no-resume, or give it another --name.",
        )


def spread(sums: Sums, row_M: np.ndarray, ok_rows: np.ndarray) -> Sums:
    """The sums of the rows row_M as those of all readable rows; the others, which people dropped, were never seen."""
    if len(row_M) == len(ok_rows):
        return sums
    at = torch.from_numpy(np.searchsorted(ok_rows, row_M))
    wide = _empty(len(ok_rows))
    for name, values in wide.items():
        values[at] = sums[name]
    return {**wide, "epochs": sums["epochs"]}


def write_dynamics(
    store: Store,
    split: str,
    sums: Sums,
    about: Mapping[str, Any],
    *,
    row_M: np.ndarray,
    label_M: np.ndarray,
    device: str,
) -> None:
    """The score of the split's readable rows. Rows that were never read have P 0 and the lowest margin.

    sums: of the rows row_M, which were trained with the labels label_M; StoreError where the split has others by now.
    """
    opened = store.split(split)
    ok_rows = opened.ok_rows()
    if not np.isin(row_M, ok_rows).all():
        raise opened.changed()
    sums, given_M = spread(sums, row_M, ok_rows), label_M
    label_M = opened.label_N()[ok_rows]
    label_M[np.searchsorted(ok_rows, row_M)] = given_M
    seen_M = sums["seen"].numpy().astype(np.float64)
    times_M = np.maximum(seen_M, 1)
    margin_M = sums["margin"].numpy() / times_M
    variance_M = np.maximum(sums["square"].numpy() / times_M - margin_M**2, 0)
    lowest = float(margin_M[seen_M > 0].min(initial=0.0))
    last = {name: sums[name].numpy() for name in LAST}
    log_M = np.where(seen_M > 0, sums["log"].numpy() / times_M, -np.inf)
    suggested_M = np.where(seen_M > 0, last["suggested"], label_M).astype(np.int32)
    posterior = ClassPosterior(**{**last, "log_p_label": log_M.astype(np.float32), "suggested": suggested_M})
    extra = {
        "margin": np.where(seen_M > 0, margin_M, lowest).astype(np.float32),
        "variance": variance_M.astype(np.float32),
        "forgotten": sums["forgotten"].numpy().astype(np.int32),
    }
    epochs = int(sums["epochs"])
    ran = {"by": f"run {about['run']} ({about['method']} on {about['selection']}, {epochs} epochs)", "epochs": epochs}
    more = {"ran": ran, **about}
    record_score(
        opened, Dynamics, posterior, extra, more, label_M=label_M, num_classes=len(store.classes), device=device
    )


def _margin(logit_BK: Tensor, label_B: Tensor) -> Tensor:
    """(B,) logit of the label less the highest other; 0 where there is no other class."""
    if logit_BK.shape[1] == 1:
        return torch.zeros_like(logit_BK[:, 0])
    own = logit_BK.gather(1, label_B[:, None]).squeeze(1)
    return own - logit_BK.scatter(1, label_B[:, None], float("-inf")).amax(dim=1)


def _empty(count: int) -> Sums:
    sums: Sums = {name: torch.zeros(count, dtype=torch.float64) for name in ("margin", "square", "log")}
    sums |= {name: torch.zeros(count, dtype=torch.int32) for name in ("seen", "forgotten", "suggested")}
    sums |= {name: torch.zeros(count) for name in LAST if name != "suggested"}
    return {**sums, "right": torch.zeros(count, dtype=torch.bool)}
