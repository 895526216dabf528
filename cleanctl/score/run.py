"""Scores of a split, from the store into the store; a score whose parameters are all the same is used again.

Leaves one result per scorer under `scores`, named by `SelectConfig.score_name`: ClassPosterior's five arrays, `clean`
(posterior of the class's clean mixture component) and `scaled` (its min-max scaled ln P), NaN or -1 in rows that are
not OK, and as attributes every parameter, what ran (of IVF also its measured recall), and the corner cases met.
`similarity` has one array of that name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from cleanctl.config import SelectConfig
from cleanctl.errors import StoreError
from cleanctl.progress import SILENT, Progress
from cleanctl.records import ClassPosterior
from cleanctl.runtime import choose_device
from cleanctl.score.knn import knn_posterior
from cleanctl.score.logistic import logistic_posterior
from cleanctl.score.mixture import loss_scores
from cleanctl.score.paper_code import sklearn_loss, sklearn_posterior
from cleanctl.score.solvers import choose_solver
from cleanctl.score.zeroshot import label_similarity, zeroshot_posterior
from cleanctl.store import Split, Store

FORMAT = "2"  # a score of another format is computed again: the first had no log_p_label
SCORERS = ("zeroshot", "similarity", "logistic", "knn")  # also the order in which they run


def score_split(
    store: Store,
    split: Split,
    config: SelectConfig,
    *,
    scorers: Iterable[str],
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Computes what is not stored yet; returns scorer → name of its stored score."""
    wanted = set(scorers)
    assert wanted <= set(SCORERS), wanted
    work = _Work(store, split, config, progress)
    names = {}
    for scorer in SCORERS:
        if scorer in wanted:
            names[scorer] = config.score_name(scorer)
            work.run(scorer, names[scorer])
    return names


class _Work:
    """One scoring of one split: reads it once, holds labels of the OK rows."""

    def __init__(self, store: Store, split: Split, config: SelectConfig, progress: Progress) -> None:
        self.store, self.split, self.config, self.progress = store, split, config, progress
        self.ok_M = split.ok_rows()
        if not len(self.ok_M):
            raise StoreError(
                f"Split {split.name!r} of {store.path} holds no readable image.",
                do="Look at the reasons with cleanctl embed, and embed readable images.",
            )
        self.label_M = split.label_N()[self.ok_M].astype(np.int64)
        self.num_classes = len(store.classes)
        self.device = choose_device(config.device)
        # One stream through all scorers, as the published code draws from numpy's global state (docs/method.md F.4).
        self.random = np.random.RandomState(config.seed % 2**32)

    def run(self, scorer: str, name: str) -> None:
        basis = self._basis(scorer)
        stored = self.split.results("scores").get(name, {})
        if not self.config.compat and stored.get("basis") == basis and not stored.get("stale"):
            self.progress.note(f"{scorer}: scores of {stored.get('made', 'an earlier run')} are used again ({name}).")
            return
        started = time.perf_counter()
        if scorer == "similarity":
            cosine_M = label_similarity(
                self.split.blocks(),
                self.label_M,
                self.store.text(),
                num_classes=self.num_classes,
                device=self.device.value,
            )
            arrays: dict[str, np.ndarray] = {"similarity": cosine_M}
            attributes: dict[str, Any] = {}
        else:
            arrays, attributes = self._posterior_and_loss(scorer)
        attributes |= {
            "scorer": scorer,
            "parameters": self.config.score_parameters(scorer),
            "basis": basis,
            "device": self.device.value,
            "made": time.strftime("%Y-%m-%d %H:%M:%S"),
            "seconds": round(time.perf_counter() - started, 3),
        }
        self.split.write_result("scores", name, self._all_rows(arrays), attributes)

    def _posterior_and_loss(self, scorer: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        posterior, ran = self._posterior(scorer)
        arrays = asdict(posterior)
        if self.config.compat:
            arrays["clean"], arrays["scaled"] = sklearn_loss(
                posterior.log_p_label, self.label_M, num_classes=self.num_classes, random=self.random
            )
            return arrays, {"ran": ran, "mixture": {"by": "scikit-learn"}}
        loss = loss_scores(posterior.log_p_label, self.label_M, num_classes=self.num_classes, device=self.device.value)
        arrays["clean"], arrays["scaled"] = loss.posterior_N, loss.scaled_N
        report = {
            "constant": list(loss.constant),
            "single": list(loss.single),
            "absent": list(loss.absent),
            "not_monotone": loss.not_monotone,
            "not_converged": list(loss.not_converged),
        }
        if loss.constant:
            self.progress.warn(
                f"{scorer}.loss: all scores are equal in {len(loss.constant)} class(es) "
                f"({_some_names(loss.constant, self.store.classes)}); the loss rule keeps all of their samples."
            )
        return arrays, {"ran": ran, "mixture": report}

    def _posterior(self, scorer: str) -> tuple[ClassPosterior, dict[str, Any]]:
        """And what ran: `by` for people, for IVF also its measured recall."""
        config, blocks, device = self.config, self.split.blocks(), self.device.value
        if scorer == "zeroshot":
            from cleanctl_kernels import path_taken

            ran = self._ran(scorer, f"{path_taken(device)} on {device} ({self.device.reason})")
            posterior = zeroshot_posterior(
                blocks,
                self.label_M,
                self.store.text(),
                num_classes=self.num_classes,
                temperature=config.temperature,
                pooling=config.prompt_pooling,
                device=device,
                progress=self.progress,
            )
            return posterior, ran
        if scorer == "logistic" and config.compat:
            ran = self._ran(scorer, "scikit-learn's LogisticRegression (--compat paper-code)")
            return sklearn_posterior(blocks, self.label_M, num_classes=self.num_classes), ran
        if scorer == "logistic":
            solver, ran = self._solver()
            posterior = logistic_posterior(
                blocks,
                self.label_M,
                num_classes=self.num_classes,
                crossfit=config.crossfit,
                seed=config.seed,
                solver=solver,
                device=device,
                progress=self.progress,
            )
            return posterior, ran
        return knn_posterior(
            blocks,
            self.label_M,
            num_classes=self.num_classes,
            neighbors=config.neighbors,
            include_self=config.compat is not None,
            probes=config.probes,
            device=device,
            progress=self.progress,
        )

    def _solver(self) -> tuple[str, dict[str, Any]]:
        device = self.device.value
        classes = len(np.unique(self.label_M))
        work = float(len(self.label_M)) * self.split.dim * classes
        solver = choose_solver(self.config.logistic_solver, device=device, work=work)
        words = {"lbfgs": "preconditioned L-BFGS", "cuml": "cuML's LogisticRegression, finished by L-BFGS"}[
            solver.value
        ]
        precision = ", tf32 then float32" if device == "cuda" else ""
        ran = self._ran("logistic", f"{words} on {device}{precision} ({solver.reason}; {self.device.reason})")
        return solver.value, ran | {"solver": solver.value}

    def _ran(self, scorer: str, by: str) -> dict[str, Any]:
        self.progress.note(f"{scorer}: {by}.")
        return {"by": by}

    def _basis(self, scorer: str) -> dict[str, str]:
        """Fingerprints of what a score was computed from; one that differs makes it stale."""
        basis = {"format": FORMAT, "labels": self.split.label_fingerprint(), "rows": self._rows_fingerprint()}
        if scorer in ("zeroshot", "similarity"):
            text = self.store.text()
            basis["text"] = _digest(np.ascontiguousarray(text.embedding_PD), np.ascontiguousarray(text.class_P))
        return basis

    def _rows_fingerprint(self) -> str:
        return _digest(self.split.status_N(), np.ascontiguousarray(self.split.fingerprints().digest_N16))

    def _all_rows(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows that are not OK hold NaN, or -1 where the array holds integers."""
        full = {}
        for key, values_M in arrays.items():
            blank = np.nan if values_M.dtype.kind == "f" else -1
            full[key] = np.full(self.split.num_rows, blank, values_M.dtype)
            full[key][self.ok_M] = values_M
        return full


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _some_names(classes: tuple[int, ...], names: tuple[str, ...]) -> str:
    shown = ", ".join(names[k] for k in classes[:3])
    return shown + (", …" if len(classes) > 3 else "")
