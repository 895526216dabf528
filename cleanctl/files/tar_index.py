"""What a tar in WebDataset's layout holds: its samples, where their images lie, and what its label members say.

In: a tar, read once by its headers; of the data only the small label members are looked at. Out: a `TarIndex`.
Nothing is written.

A sample is what shares a name: a member's path up to the first dot of its last part, as WebDataset itself has it; the
rest is the member's kind. `00017.jpg`, `00017.json` and `00017.txt` are one sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cleanctl.errors import InputError
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


@dataclass(kw_only=True)
class TarIndex:
    """One tar's samples in the order of their images; every list has one item a sample.

    json_label, json_truth: fields of the `.json`; cls, txt: the members' text; None where there is none. others:
    members that belong to no sample with an image, or are neither its image nor a label. json_fields: the names in
    the first `.json`. damage: where and why reading ended early, else empty.
    """

    tar: Tar
    names: list[str] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    json_label: list[Value] = field(default_factory=list)
    json_truth: list[Value] = field(default_factory=list)
    cls: list[Value] = field(default_factory=list)
    txt: list[Value] = field(default_factory=list)
    others: int = 0
    json_fields: tuple[str, ...] = ()
    damage: str = ""

    @property
    def shard(self) -> str:
        return shard_of(self.tar.name)


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
    index = TarIndex(tar=tar)
    reading = _Reading(index, fields)
    with storage.open_tar(tar) as pread:
        file = WindowedFile(pread, tar.size, storage.window)
        try:
            for member in members(file):
                reading.take(member, file)
        except DamagedTar as exc:
            index.damage = str(exc)
    reading.finish()
    return index


class _Reading:
    """One pass over a tar's members."""

    def __init__(self, index: TarIndex, fields: LabelFields) -> None:
        self._index = index
        self._fields = fields
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
            self._index.others += 1
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
            self._index.others += 1
        else:
            self._labels[kind](sample, file.get(member.offset, member.size))

    def finish(self) -> None:
        """Moves the samples that have an image into the index."""
        index = self._index
        for name, sample in self._samples.items():
            image = sample.image
            if image is None and sample.extra:
                if len(sample.extra) > 1:
                    self._refuse(name, sample.extra[0][0], sample.extra[1][0])
                image = sample.extra.pop()[1]
            index.others += len(sample.extra)
            if image is None:
                index.others += 1
                continue
            index.names.append(name)
            index.offset.append(image.offset)
            index.size.append(image.size)
            for column in LABEL_COLUMNS:
                getattr(index, column).append(getattr(sample, column))

    def _take_json(self, sample: _Sample, data: bytes) -> None:
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return  # an unlabelled sample, which is counted
        if not isinstance(record, dict):
            return
        if not self._index.json_fields:
            self._index.json_fields = tuple(map(str, record))
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
            f"The tar {self._index.tar.name!r} has two images under the name {name!r}: .{kind} and .{other}.",
            so="A name is one sample with one image, so its row would be ambiguous.",
            do="Give each image its own name up to the first dot, and write the tar again.",
        )


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
