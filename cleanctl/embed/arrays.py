"""`import_arrays`: embeddings that somebody else computed → a store, as if `embed` had made it.

In: image_ND (N, D) and text_PD (P, D) as .npy files of floats, labels, optional keys, truth and class names. The image
array is memory-mapped and passes through in blocks, so N is not bounded by memory. Rows are L2-normalised in float64
and stored as float16. On disk: the store; rows are in the order of sorted keys. Raises InputError (exit 3) for arrays
that do not fit each other or hold non-finite rows, before anything is written; StoreError (exit 4) where the store was
made from something else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cleanctl.clip.provenance import package_versions
from cleanctl.config import ImportConfig
from cleanctl.datasets.columns import (
    LabelColumn,
    as_numbers,
    open_array,
    read_classes,
    read_keys,
    read_labels,
    refuse_repeated,
)
from cleanctl.errors import InputError, InterruptedRun, StoreError, UsageError
from cleanctl.files.keys import Keys
from cleanctl.progress import SILENT, Progress
from cleanctl.records import Fingerprints, SplitManifest, TextEmbeddings
from cleanctl.results import EmbedSummary, SplitSummary
from cleanctl.runtime import StopFlag, stop_requests
from cleanctl.store import Store

BLOCK_ROWS = 8_192
SMALLEST = 1e-12  # a row whose values are all smaller counts as zero, as in torch's normalize
KIND = "imported"


@dataclass(frozen=True, kw_only=True)
class _Request:
    """Everything read and checked but the rows of the image array. order_N: store row → row of the array."""

    image_ND: np.ndarray
    order_N: np.ndarray
    manifest: SplitManifest
    classes: tuple[str, ...]
    text: TextEmbeddings | None


def import_arrays(config: ImportConfig, store_path: Path, *, progress: Progress = SILENT) -> EmbedSummary:
    """Arrays → store. Raises UsageError, InputError, StoreError, InterruptedRun."""
    started = time.monotonic()
    request = _read(config, progress)
    _require_rows(request.image_ND, config.image_embeddings, progress)
    with stop_requests() as stop:
        store = _open_store(store_path, request, config, progress)
        _keep_logit_scale(store, config)
        if request.text is not None:
            _write_text(store, request.text, config)
        elif not store.text_attributes():
            progress.note("No --text-embeddings: zero-shot rules will not be available.")
        imported = _import_rows(store, request, config, stop, progress)
    seconds = time.monotonic() - started
    count = len(request.manifest)
    split = SplitSummary(
        split=config.split,
        images=count,
        ok=count,
        failed=0,
        embedded=imported,
        unchanged=count - imported,
        seconds=seconds,
    )
    return EmbedSummary(
        store=store_path,
        splits=(split,),
        classes=len(request.classes),
        model=f"imported from {config.image_embeddings.name}",
        prompts=None if config.text_embeddings is None else config.text_embeddings.name,
        num_prompts=0 if request.text is None else len(request.text.prompts),
        prompts_embedded=request.text is not None,
        dim=request.image_ND.shape[1],
        device=None,
        precision=None,
        seconds=seconds,
    )


def _import_rows(store: Store, request: _Request, config: ImportConfig, stop: StopFlag, progress: Progress) -> int:
    """Commits every pending row; returns how many there were."""
    count = len(request.manifest)
    fingerprints = _fingerprints(config.image_embeddings, count)
    with store.write_split(request.manifest, dim=request.image_ND.shape[1], fingerprints=fingerprints) as writer:
        pending_N = writer.pending_rows()
        done = count - len(pending_N)
        with progress.track(f"importing {config.split}", total=count, unit="rows", done=done) as task:
            for block in _blocks(len(pending_N)):
                if stop:
                    raise InterruptedRun(
                        f"Stopped on request: {len(pending_N) - block.start:,} of {count:,} rows remain.",
                        do="Run the same command again to go on.",
                    )
                row_B = pending_N[block]
                writer.put(row_B, _normalised(request.image_ND[request.order_N[row_B]]).astype(np.float16))
                task.advance(len(row_B))
        writer.finish()
    return len(pending_N)


# ---- reading and checking


def _read(config: ImportConfig, progress: Progress) -> _Request:
    image_ND = _matrix(config.image_embeddings, "--image-embeddings")
    labels = read_labels(config.labels, "--labels", "label")
    keys = _keys(config, labels, len(image_ND))
    classes = _classes(config, labels)
    label_N = _column(labels, keys, classes, config.labels, "--labels", len(image_ND))
    truth_N = None
    if config.truth is not None:
        truth = read_labels(config.truth, "--truth", "truth", unknown=True)
        truth_N = _column(truth, keys, classes, config.truth, "--truth", len(image_ND))
    keys = keys if keys is not None else default_keys(len(image_ND))
    ordered, order_N = keys.sorted()
    manifest = SplitManifest(
        split=config.split,
        keys=ordered,
        label_N=label_N[order_N],
        truth_N=None if truth_N is None else truth_N[order_N],
    )
    text = _text(config, classes, image_ND.shape[1], progress)
    return _Request(image_ND=image_ND, order_N=order_N, manifest=manifest, classes=classes, text=text)


def default_keys(count: int) -> Keys:
    """`row-00000000` …, wide enough that their order is that of their numbers."""
    width = max(8, len(str(max(count - 1, 0))))
    return Keys.of(f"row-{row:0{width}d}" for row in range(count))


def _matrix(path: Path, what: str) -> np.ndarray:
    values = open_array(path, what)
    if values.ndim != 2 or values.dtype.kind != "f" or 0 in values.shape:
        raise InputError(
            f"{what}: {path} holds {values.dtype} {values.shape}.",
            do="Give floating-point embeddings of shape (rows, size).",
        )
    return values


def _keys(config: ImportConfig, labels: LabelColumn, count: int) -> Keys | None:
    keys = labels.keys if config.keys is None else read_keys(config.keys)
    if keys is None:
        return None
    whose = config.labels if config.keys is None else config.keys
    _require_length(len(keys), count, f"the keys of {whose}", config.image_embeddings)
    refuse_repeated(keys, str(whose))
    return keys


def _classes(config: ImportConfig, labels: LabelColumn) -> tuple[str, ...]:
    """From --classes, else the label names, sorted, else the numbers up to the highest one."""
    if config.classes is not None:
        return read_classes(config.classes)
    if labels.value_N.dtype == object:
        return tuple(sorted(set(labels.value_N.tolist())))
    highest = int(labels.value_N.max(initial=-1))
    if config.text_classes is not None:
        highest = max(highest, int(np.max(open_array(config.text_classes, "--text-classes"), initial=-1)))
    return tuple(str(number) for number in range(highest + 1))


def _column(
    column: LabelColumn, keys: Keys | None, classes: tuple[str, ...], path: Path, what: str, count: int
) -> np.ndarray:
    column = column.in_order_of(keys, path)
    value_N = column.value_N
    _require_length(len(value_N), count, f"{what} {path}", Path("the image embeddings"))
    return as_numbers(value_N, classes=classes, column="", where=column.where, unknown=what == "--truth")


def _require_length(found: int, count: int, whose: str, images: Path) -> None:
    if found != count:
        raise InputError(
            f"There are {found:,} rows in {whose}, and {count:,} in {images}.",
            so="They must stand for the same samples, in the same order.",
            do="Check that both files belong together.",
        )


def _text(config: ImportConfig, classes: tuple[str, ...], dim: int, progress: Progress) -> TextEmbeddings | None:
    if config.text_embeddings is None:
        if config.text_classes is not None:
            raise UsageError("--text-classes was given without --text-embeddings.", do="Give both or neither.")
        return None
    text_PD = np.asarray(_matrix(config.text_embeddings, "--text-embeddings"), dtype=np.float32)
    if text_PD.shape[1] != dim:
        raise InputError(
            f"Text embeddings have size {text_PD.shape[1]}, image embeddings {dim}.", do="Use one model for both."
        )
    _require_direction(text_PD, 0, config.text_embeddings)
    class_P = _text_classes(config, len(text_PD), classes, progress)
    absent = sorted(set(range(len(classes))).difference(class_P.tolist()))
    if absent:
        raise InputError(
            f"{len(absent)} of {len(classes)} classes have no text embedding, e.g. {classes[absent[0]]!r}.",
            do="Give each class at least one.",
        )
    prompts = tuple(f"{classes[k]} (imported row {row})" for row, k in enumerate(class_P.tolist()))
    return TextEmbeddings(embedding_PD=_normalised(text_PD), class_P=class_P, prompts=prompts)


def _text_classes(config: ImportConfig, count: int, classes: tuple[str, ...], progress: Progress) -> np.ndarray:
    if config.text_classes is None:
        if count != len(classes):
            raise UsageError(
                f"--text-embeddings has {count} rows for {len(classes)} classes.",
                do="Say which class each row stands for with --text-classes c.npy.",
            )
        progress.note(f"One text embedding a class, in label order ({classes[0]!r}, …).")
        return np.arange(count, dtype=np.int32)
    values = open_array(config.text_classes, "--text-classes")
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise InputError(
            f"--text-classes: {config.text_classes} holds {values.dtype} {values.shape}; {count} integers are needed.",
            do="Give the class number of each text embedding.",
        )

    def where(row: int) -> str:
        return f"Row {row + 1} of {str(config.text_classes)!r}"

    return as_numbers(np.asarray(values, dtype=np.int64), classes=classes, column="", where=where)


def _require_rows(image_ND: np.ndarray, path: Path, progress: Progress) -> None:
    """One pass over the array before anything is written: an import is whole or refused."""
    with progress.track(f"checking {path.name}", total=len(image_ND), unit="rows") as task:
        for rows in _blocks(len(image_ND)):
            _require_direction(image_ND[rows], rows.start, path)
            task.advance(rows.stop - rows.start)


def _require_direction(values_BD: np.ndarray, first: int, path: Path) -> None:
    peak_B = np.abs(values_BD).max(axis=1)
    bad = np.flatnonzero(~np.isfinite(peak_B) | (peak_B < SMALLEST))
    if len(bad):
        rows = ", ".join(str(first + row) for row in bad[:5].tolist())
        raise InputError(
            f"{path} has rows that are not finite, or zero (no value reaches {SMALLEST:g}): "
            f"{rows}{', …' if len(bad) > 5 else ''}.",
            so="They have no direction, so nothing can be said of them.",
            do="Leave those rows out, together with their labels and keys.",
        )


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, count))


def _normalised(values_BD: np.ndarray) -> np.ndarray:
    """float32 rows of unit length; scaled first, so that no square overflows or vanishes."""
    values_BD = np.asarray(values_BD, dtype=np.float64)
    values_BD = values_BD / np.abs(values_BD).max(axis=1, keepdims=True)
    return (values_BD / np.linalg.norm(values_BD, axis=1, keepdims=True)).astype(np.float32)


# ---- the store


def _open_store(path: Path, request: _Request, config: ImportConfig, progress: Progress) -> Store:
    dim = request.image_ND.shape[1]
    if Store.exists(path):
        try:
            store = Store.open(path)
            _require_agreement(store, request, dim)
            return store
        except StoreError as exc:
            if not config.replace:
                raise
            progress.note(f"The store is recreated (--replace): {exc.found}")
            Store.remove(path)
    encoder = {"kind": KIND, "dim": dim, "packages": package_versions(), "logit_scale": config.logit_scale}
    return Store.create(path, classes=request.classes, encoder=encoder, source={})


def _require_agreement(store: Store, request: _Request, dim: int) -> None:
    remedy = "Choose another store with --store PATH, or recreate this one with --replace."
    here = store.encoder
    if here.get("kind") != KIND or here.get("dim") != dim:
        made = here.get("model") or f"imported embeddings of size {here.get('dim')}"
        raise StoreError(
            f"{store.path} holds {made}; these are imported embeddings of size {dim}.",
            so="They cannot stand in one store.",
            do=remedy,
        )
    if store.classes != request.classes:
        raise StoreError(
            f"{store.path} has {len(store.classes)} classes ({', '.join(store.classes[:3])}, …), these arrays "
            f"{len(request.classes)} ({', '.join(request.classes[:3])}, …).",
            so="Labels are numbers in that order, so they would change their meaning.",
            do=f"Give the same --classes. {remedy}",
        )


def _keep_logit_scale(store: Store, config: ImportConfig) -> None:
    """One that is given now replaces the one in the store; one that is not given leaves it."""
    if config.logit_scale is not None and store.encoder.get("logit_scale") != config.logit_scale:
        with store.lock():
            store.annotate(encoder={**store.encoder, "logit_scale": config.logit_scale})


def _write_text(store: Store, text: TextEmbeddings, config: ImportConfig) -> None:
    digest = hashlib.sha256(text.embedding_PD.tobytes() + text.class_P.tobytes()).hexdigest()
    if store.has_text_of(digest):
        return
    assert config.text_embeddings is not None
    with store.lock():
        store.write_text(text, {"name": config.text_embeddings.name, "digest": digest})


def _fingerprints(path: Path, count: int) -> Fingerprints:
    """Rows of an array stand for the array's file: after a change of that file every row is imported again."""
    stat = path.stat()
    return Fingerprints(
        digest_N16=np.zeros((count, 16), dtype=np.uint8),
        size_N=np.full(count, stat.st_size, dtype=np.int64),
        mtime_ns_N=np.full(count, stat.st_mtime_ns, dtype=np.int64),
    )
