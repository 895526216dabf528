"""What cleanlab's users know: issues.csv with the columns of Datalab.get_issues("label"), and labels.npy."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cleanctl.export.chosen import Chosen
from cleanctl.export.targets.target import Target, Written
from cleanctl.progress import Progress


class Cleanlab(Target):
    """issues.csv: key, is_label_issue (the selection drops it), label_score (P of the given label), given_label and
    predicted_label by name. labels.npy: int64, the given labels. classes.txt: names in label order."""

    folder = True
    usual_take = "all"  # of kept samples alone, none would be an issue

    def names(self, chosen: Chosen) -> Sequence[str]:
        return ["issues.csv", "labels.npy", "classes.txt"]

    def write(self, place: Path, chosen: Chosen, progress: Progress) -> Written:
        np.save(place / "labels.npy", chosen.given_M.astype(np.int64))
        (place / "classes.txt").write_text("".join(f"{name}\n" for name in chosen.classes), "utf-8")
        with (place / "issues.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "is_label_issue", "label_score", "given_label", "predicted_label"))
            for at, key in enumerate(chosen.keys):
                given, suggested = chosen.classes[chosen.given_M[at]], chosen.classes[chosen.suggested_M[at]]
                writer.writerow((key, not chosen.keep_M[at], float(chosen.p_label_M[at]), given, suggested))
        return Written(examples=tuple(self.names(chosen)))
