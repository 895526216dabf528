"""What a tar in WebDataset's layout holds: its samples, where their images lie, and what its label members say.

In: a tar, read once by its headers; of the data only the small label members are looked at. Out: a `TarIndex`.
Nothing is written.

A sample is what shares a name: a member's path up to the first dot of its last part, as WebDataset itself has it; the
rest is the member's kind. `00017.jpg`, `00017.json` and `00017.txt` are one sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cleanctl.errors import InputError
from cleanctl.files.arrow import column_of, numpy_of
from cleanctl.files.keys import Keys
from cleanctl.files.listing import IMAGE_SUFFIXES, is_utf8
from cleanctl.files.storage import Tar, TreeStorage
from cleanctl.files.tar_headers import NO_FILE, DamagedTar, Member, WindowedFile, members

LABEL_LIMIT = 1 << 20  # bytes; a larger member is no label
TEXT_LIMIT = 200  # characters that are kept of a text, which may be a caption

LABEL_COLUMNS = ("json_label", "json_truth", "cls", "txt")

Value = int | str | None


@dataclass(frozen=True, kw_only=True)
class LabelFields:
    """Which fields of a sample's `.json` are its label and its truth. read False: no label member is looked at."""

    label: str = "label"
    truth: str | None = None
    read: bool = True


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Labels of N samples, each value once in memory. code_N: int32, into `texts`, -1 where a sample has none. texts:
    the values as JSON, those that a sample has."""

    code_N: np.ndarray
    texts: Keys

    @classmethod
    def of(cls, columns: Sequence[pa.Array | pa.ChunkedArray]) -> Coded:
        """Columns of JSON texts (strings or dictionaries of them), one after the other."""
        chunks = [chunk for one in columns for chunk in (one.chunks if isinstance(one, pa.ChunkedArray) else [one])]
        encoded = [one if pa.types.is_dictionary(one.type) else one.dictionary_encode() for one in chunks]
        whole = pa.chunked_array(encoded, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
        if not whole.num_chunks:
            return cls(code_N=np.zeros(0, np.int32), texts=Keys.of(()))
        code_N = np.concatenate([numpy_of(chunk.indices.fill_null(-1)) for chunk in whole.chunks])
        used = np.zeros(len(whole.chunk(0).dictionary), bool)  # a slice of a column brings the words of all of it
        used[code_N[code_N >= 0]] = True
        number = np.append(np.cumsum(used, dtype=np.int32) - 1, np.int32(-1))  # the last is that of code -1
        return cls(code_N=number[code_N], texts=Keys.of_arrow(whole.chunk(0).dictionary)[used])

    def __len__(self) -> int:
        return len(self.code_N)

    def value(self, code: int) -> int | str:
        return json.loads(self.texts[code])


@dataclass(kw_only=True)
class TarIndex:
    """One tar's N samples in the order of their images. offset_N, size_N: int64, where an image lies and its bytes.

    labels: by LABEL_COLUMNS, pyarrow dictionaries of JSON texts; json_label, json_truth: fields of the `.json`; cls,
    txt: the members' text; null where there is none. others: members that belong to no sample with an image, or are
    neither its image nor a label. json_fields: the names in the first `.json`. damage: where and why reading ended
    early, else empty.
    """

    tar: Tar
    names: Keys
    offset_N: np.ndarray
    size_N: np.ndarray
    labels: dict[str, pa.Array]
    others: int = 0
    json_fields: tuple[str, ...] = ()
    damage: str = ""

    @property
    def shard(self) -> str:
        return shard_of(self.tar.name)

    def labels_alone(self) -> TarIndex:
        """Without the places, and with the first name alone."""
        none = np.zeros(0, np.int64)
        return replace(self, names=Keys.of(self.names[:1].tolist()), offset_N=none, size_N=none)


def shard_of(name: str) -> str:
    """`train/00003.tar` → `train/00003`."""
    return name[: -len(".tar")]


class _Sample:
    __slots__ = ("cls", "extra", "image", "json_label", "json_truth", "kind", "txt")

    def __init__(self) -> None:
        self.image: Member | None = None
        self.kind = ""
        self.extra: list[tuple[str, Member]] = []  # images of a longer kind, such as `left.jpg`
        self.json_label: Value = None
        self.json_truth: Value = None
        self.cls: Value = None
        self.txt: Value = None


def index_tar(storage: TreeStorage, tar: Tar, fields: LabelFields) -> TarIndex:
    """Raises OSError, or InputError where two images or two labels of one kind share a name."""
    reading, damage = _Reading(tar, fields), ""
    with storage.open_tar(tar) as pread:
        file = WindowedFile(pread, tar.size, storage.window)
        try:
            for member in members(file):
                reading.take(member, file)
        except DamagedTar as exc:
            damage = str(exc)
    return reading.finish(damage)


class _Reading:
    """One pass over a tar's members."""

    def __init__(self, tar: Tar, fields: LabelFields) -> None:
        self._tar = tar
        self._fields = fields
        self._others = 0
        self._json_fields: tuple[str, ...] = ()
        self._samples: dict[str, _Sample] = {}
        self._words: dict[Any, Any] = {}  # equal values once in memory
        self._labels: dict[str, Callable[[_Sample, bytes], None]] = {}
        if fields.read:
            self._labels = {"json": self._take_json, "cls": self._take_cls, "txt": self._take_txt}

    def take(self, member: Member, file: WindowedFile) -> None:
        name, kind = _name_and_kind(member.name)
        suffix = "." + kind.rpartition(".")[2]
        is_image = suffix in IMAGE_SUFFIXES
        if member.size == NO_FILE or not name or not (is_image or kind in self._labels):
            self._others += 1
            return
        sample = self._samples.get(name)
        if sample is None:
            sample = self._samples[name] = _Sample()
        if is_image and suffix == "." + kind:
            if sample.image is not None:
                self._refuse(name, sample.kind, kind)
            sample.image, sample.kind = member, kind
        elif is_image:
            sample.extra.append((kind, member))
        elif member.size > LABEL_LIMIT:
            self._others += 1
        else:
            self._labels[kind](sample, file.get(member.offset, member.size))

    def finish(self, damage: str) -> TarIndex:
        """The samples that have an image."""
        names, images, samples = [], [], []
        for name, sample in self._samples.items():
            image = sample.image
            if image is None and sample.extra:
                if len(sample.extra) > 1:
                    self._refuse(name, sample.extra[0][0], sample.extra[1][0])
                image = sample.extra.pop()[1]
            self._others += len(sample.extra)
            if image is None:
                self._others += 1
                continue
            names.append(name)
            images.append(image)
            samples.append(sample)
        text_of = {value: json.dumps(value) for value in self._words}
        return TarIndex(
            tar=self._tar,
            names=Keys.of(names),
            offset_N=np.array([image.offset for image in images], dtype=np.int64),
            size_N=np.array([image.size for image in images], dtype=np.int64),
            labels={name: _coded([getattr(sample, name) for sample in samples], text_of) for name in LABEL_COLUMNS},
            others=self._others,
            json_fields=self._json_fields,
            damage=damage,
        )

    def _take_json(self, sample: _Sample, data: bytes) -> None:
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return  # an unlabelled sample, which is counted
        if not isinstance(record, dict):
            return
        if not self._json_fields:
            self._json_fields = tuple(map(str, record))
        sample.json_label = self._scalar(record.get(self._fields.label))
        if self._fields.truth is not None:
            sample.json_truth = self._scalar(record.get(self._fields.truth))

    def _take_cls(self, sample: _Sample, data: bytes) -> None:
        sample.cls = self._text(data)

    def _take_txt(self, sample: _Sample, data: bytes) -> None:
        sample.txt = self._text(data)

    def _text(self, data: bytes) -> str | None:
        text = data.decode("utf-8", "replace").strip()[:TEXT_LIMIT]
        return self._words.setdefault(text, text) if text else None

    def _scalar(self, value: object) -> Value:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            return None
        return self._words.setdefault(value, value)

    def _refuse(self, name: str, kind: str, other: str) -> None:
        raise InputError(
            f"The tar {self._tar.name!r} has two images under the name {name!r}: .{kind} and .{other}.",
            so="A name is one sample with one image, so its row would be ambiguous.",
            do="Give each image its own name up to the first dot, and write the tar again.",
        )


def _coded(values: list[Value], text_of: Mapping[int | str, str]) -> pa.Array:
    texts = [None if value is None else text_of[value] for value in values]
    return column_of(texts, pa.string()).dictionary_encode()


def _name_and_kind(path: str) -> tuple[str, str]:
    """("", "") for hidden files, names without a dot and names that are not UTF-8."""
    folder, slash, last = path.rpartition("/")
    stem, _, kind = last.partition(".")
    if not stem or not kind or not is_utf8(path):
        return "", ""
    if folder.startswith((".", "/")) or "//" in folder or "/." in folder:
        folder = "/".join(part for part in folder.split("/") if part not in ("", "."))
        slash = "/" if folder else ""
    return folder + slash + stem, kind.lower()
