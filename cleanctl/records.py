"""What one stage hands to the next: small frozen records and the protocols between them.

Dimension legend, here and everywhere: N samples, B samples of a batch, D embedding size, P prompts, C (or K) classes,
S side of a square image in pixels. Rows are numbered 0…N-1 in store order, which is the order of sorted keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Status(IntEnum):
    """Where a row of the store stands. Every row ends OK or FAILED, and the counts add up to N."""

    PENDING = 0
    OK = 1
    FAILED = 2


KNOWN_WRONG = -2  # a truth: the label is known to be wrong, and the true class is not known


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """What a source says of one split, before any image is opened.

    keys: N distinct strings, sorted; the path relative to the source in POSIX form, or `shard/name` in a tar. A list
        is kept as `files.keys.Keys` as soon as many of them are looked at.
    label_N: int32, 0…C-1. truth_N: int32 the same, -1 where it is unknown, KNOWN_WRONG where that alone is known, or
        None where no truth is known.
    published_N: int64, each row's place in the order that the dataset's authors publish, or None where they give none.
    """

    split: str
    keys: Sequence[str]
    label_N: np.ndarray
    truth_N: np.ndarray | None = None
    published_N: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


class FileContent(NamedTuple):
    """One image file as it was read: its bytes, size and modification time; or why it could not be, and size -1."""

    data: bytes
    size: int
    mtime_ns: int
    reason: str = ""


class Storage(Protocol):
    """Where the bytes of a source's images are: below a folder, inside tars, behind a URL. Can be pickled.

    A file that is missing or cannot be read is never an exception of `stat` or `read`: its row says so.
    """

    @property
    def location(self) -> str:
        """Absolute path or URL, which provenance keeps."""
        ...

    def stat(self, keys: Sequence[str]) -> Fingerprints:
        """Sizes and times in the order of `keys`, digests zero; size -1 where there is no such file."""
        ...

    def read(self, keys: Sequence[str]) -> Iterator[FileContent]:
        """The files in the order of `keys`, few at a time in memory; neighbours may be fetched together."""
        ...

    def head(self, key: str, count: int) -> bytes:
        """The first `count` bytes (fewer if the file is shorter); none where it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class OtherOrder:
    """Another order of a dataset's class names that is in use too, and what to type for it."""

    classes: tuple[str, ...]
    option: str


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The labels that `--noise` gave a split, as they are written down beside the store.

    noise, seed: the recipe; seed is None where nothing was drawn. label_N: int32, in the order that `order` names: the
    dataset's published one, or that of sorted keys. changed: labels that are others now. wrong: share of the rows whose
    truth is known that have another label. digest: of the labels. file, file_digest: what they were read from, its name
    and SHA-256, or empty.
    """

    split: str
    noise: str
    seed: int | None
    order: Literal["published", "keys"]
    label_N: np.ndarray
    changed: int
    wrong: float
    digest: str
    file: str = ""
    file_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A recognised source. `classes` are names in label order; `left_out` counts image files that no split holds.

    variant: which images of it these are, where it comes in several sets; with the seed of one that was drawn.
    other_order: where sources disagree on the order of the names; zero-shot accuracy tells which fits.
    """

    files: Storage
    layout: str
    classes: tuple[str, ...]
    splits: tuple[SplitManifest, ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()
    variant: str = ""
    other_order: OtherOrder | None = None
    label_set: LabelSet | None = None


@dataclass(frozen=True)
class Shard:
    """One of `count` equal parts of a split's rows, for one of as many processes; written 0/4 … 3/4."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def file_part(self) -> str:
        """Its part of the name of a file that is its own."""
        return f"{self.index}-of-{self.count}"

    @property
    def lock_part(self) -> str:
        """Of the name of its lock; what follows `-of-` tells how the rows are divided."""
        return self.file_part

    def rows(self, num_rows: int) -> slice:
        """The rows of this share. Shares tile the split and begin at multiples of a power of two, which is as large as
        equal parts allow: batches are then composed as one process would compose them, and blocks are rarely split."""
        step = 1 << (max(1, min(num_rows // (4 * self.count), 1 << 16)).bit_length() - 1)
        units = -(-num_rows // step)
        start, stop = (min(units * index // self.count * step, num_rows) for index in (self.index, self.index + 1))
        return slice(start, stop)


@dataclass(frozen=True)
class BlockPart:
    """`length` rows of one split from row `index * length` on: what an engine gives to one worker at a time.

    length: a power of two, at most a block of the store.
    """

    split: str
    index: int
    length: int

    def __str__(self) -> str:
        return f"{self.split}, rows from {self.index * self.length:,}"

    @property
    def file_part(self) -> str:
        return f"{self.index}-of-blocks"

    @property
    def lock_part(self) -> str:
        return f"{self.split}-{self.index}-of-blocks-{self.length}"

    def rows(self, num_rows: int) -> slice:
        return slice(min(self.index * self.length, num_rows), min((self.index + 1) * self.length, num_rows))

    @classmethod
    def of(cls, split: str, num_rows: int, length: int) -> list[BlockPart]:
        """All parts of a split."""
        return [cls(split, index, length) for index in range(-(-num_rows // length))]


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """What tells whether a file is still the one that was read (all of the same length, one item a row).

    digest_N16: uint8 (N, 16), BLAKE2b-16 of the content. size_N: int64, bytes. mtime_ns_N: int64, nanoseconds.
    """

    digest_N16: np.ndarray
    size_N: np.ndarray
    mtime_ns_N: np.ndarray

    def at(self, rows: np.ndarray | slice) -> Fingerprints:
        return Fingerprints(
            digest_N16=self.digest_N16[rows], size_N=self.size_N[rows], mtime_ns_N=self.mtime_ns_N[rows]
        )


@dataclass(frozen=True, kw_only=True)
class PixelSpec:
    """The geometry that a loader must give: open_clip's own preprocessing up to, not including, normalisation.

    `shortest` scales the short side to `size` and cuts the centre square, `longest` scales the long side and pads
    with `fill`, `squash` scales both sides to `size`. Pixels are upright (EXIF orientation applied), RGB, uint8.
    """

    size: int
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0


@dataclass(frozen=True, kw_only=True)
class DevicePixels:
    """Crops that a loader made on a CUDA device, of the readable images of a batch alone, in order.

    pixel_KSSC: a torch tensor, uint8 (K, S, S, 3), that is not written to again. ready: the torch.cuda.Event after
        which it is whole; None on a CPU.
    """

    pixel_KSSC: Any
    ready: Any = None

    def __len__(self) -> int:
        return len(self.pixel_KSSC)


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Decoded images of some rows, ready for an encoder or a trainer.

    row_B: int64, the rows asked for, in the order asked for.
    pixel_BSSC: uint8 (B, S, S, 3), C-contiguous; undefined where ok_B is False. It may be a view of a buffer that the
        loader uses again: it is valid until the next batch is asked for.
    ok_B: bool. reason: row → why that image could not be read, for each row where ok_B is False.
    fingerprints: of the files that the pixels came from, one a position; size -1 where a file could not be read.
    on_device: the pixels of a loader that was asked to leave them on its device; pixel_BSSC has no rows then.
    """

    row_B: np.ndarray
    pixel_BSSC: np.ndarray
    ok_B: np.ndarray
    reason: dict[int, str]
    fingerprints: Fingerprints
    on_device: DevicePixels | None = None


class ImageLoader(Protocol):
    """Rows of one split → batches of pixels. Made once per pixel spec; `batches` may be called again and again."""

    name: str  # one of config.LOADERS, not auto

    def batches(self, row_N: np.ndarray, *, batch_size: int) -> Iterator[ImageBatch]:
        """Every row of `row_N` exactly once, in that order; the last batch may be smaller and is never dropped."""
        ...

    def close(self) -> None: ...


class EmbeddingBlocks(Protocol):
    """Image embeddings that are read block by block and can be read again from the start.

    Each item is (rows, image_ND): a slice of 0…num_rows and its L2-normalised float16 embeddings; the slices tile the
    range in order. Only rows whose status is OK appear, numbered without gaps.
    """

    @property
    def num_rows(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]: ...


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """Prompts of the classes: embedding_PD float32 L2-normalised, class_P int32 in 0…C-1, every class present."""

    embedding_PD: np.ndarray
    class_P: np.ndarray
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClassPosterior:
    """What a scorer says of each sample (all arrays length N), never the N × C matrix itself.

    p_label: float32, probability of the given label. p_max: float32, highest probability. suggested: int32, its class
    (lowest index on a tie). p_second: float32, second highest (0 where C is 1). entropy: float32, natural log.
    log_p_label: float32, ln p_label, right also where that is 0 in float32; -inf only where no such label can be.
    """

    p_label: np.ndarray
    p_max: np.ndarray
    suggested: np.ndarray
    p_second: np.ndarray
    entropy: np.ndarray
    log_p_label: np.ndarray
