"""The loader that decodes JPEGs on the GPU (nvJPEG, through torchcodec) and resizes them there.

In: rows. Out: ImageBatch, in the order asked for, its crops in this machine's memory or, where that was asked for, left
on the device. Nothing is written; every pass reads the files again.

Threads read the files ahead, a few at a time, and sort them. What nvJPEG decodes as libjpeg does goes to the device, a
batch in one call: plain JPEGs (`jpeg.py`) in YCbCr, of moderate size, and scaled down by half again or more where
chroma has fewer samples than luma. Everything else is decoded by those threads with Pillow, as is what the device
refuses, so that the verdict on a broken file is the one that all loaders give. Why scaled down: nvJPEG repeats each
chroma sample where libjpeg interpolates between them, and at one to one that alone costs a cosine of up to 0.0012
(measured with libjpeg-turbo's own switch for it, 4:2:0, 36 pieces of two photographs); at 1.5 the worst is 0.0002,
within the promise of 0.001.

All decoded images of a call are resized in one launch (`cleanctl_kernels.resize`), in float32, with Pillow's filters;
Pillow rounds between its two passes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.files.fingerprints import no_fingerprints, put_fingerprint
from cleanctl.images.crop import to_crop
from cleanctl.images.decode import UnreadableImage, decode_rgb
from cleanctl.images.geometry import Crop, RandomCrop, draws_of, place, scaled_side
from cleanctl.images.jpeg import read_plain_header
from cleanctl.records import DevicePixels, FileContent, Fingerprints, ImageBatch, PixelSpec, Storage
from cleanctl.runtime import cpu_count

if TYPE_CHECKING:
    import torch

BATCHES_AHEAD = 4
CHUNK = 16  # files of a batch that one thread reads: small images are decoded there, and should keep all threads busy
LEAST_DOWNSCALE = 1.5
MOST_DOWNSCALE = 40  # the kernel's work grows with its square; torch's own stops at 47
MOST_PIXELS = 2**24  # of one image on the device, which one thread block would decode for long
PIXELS_AT_ONCE = 2**27  # of the images decoded in one call, 3 bytes a pixel


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A batch, filled in by the reading threads. jpeg: position in the batch → file content and pixels (w × h)."""

    pixel_BSSC: np.ndarray
    fingerprints: Fingerprints
    failed: dict[int, str] = field(default_factory=dict)
    jpeg: dict[int, tuple[bytes, int]] = field(default_factory=dict)


class NvjpegLoader:
    """An ImageLoader over files; `threads` read, and decode what the device does not.

    device: `cuda`; `cpu` decodes with torchcodec's libjpeg instead and exists for tests. on_device: crops are left on
    the device, as `ImageBatch.on_device`.
    """

    name = "nvjpeg"

    def __init__(
        self,
        *,
        files: Storage,
        keys: Sequence[str],
        spec: PixelSpec,
        crop: Crop | None = None,
        threads: int | None = None,
        device: str = "cuda",
        on_device: bool = False,
    ) -> None:
        self.on_device = on_device
        self.spec = spec
        self.crop = crop
        self._files = files
        self._keys = keys
        self._device = device
        self._pool = ThreadPoolExecutor(threads or cpu_count(), thread_name_prefix="cleanctl-read")

    def batches(self, row_N: np.ndarray, *, batch_size: int, seed: int = 0, done: int = 0) -> Iterator[ImageBatch]:
        """Every row of `row_N` (repetitions allowed) once, in that order; `seed` fixes random crops."""
        row_N = np.asarray(row_N, dtype=np.int64)
        draw_N = np.zeros(len(row_N), np.int64) if self.crop is None else draws_of(len(row_N), seed, done)
        parts = [slice(start, start + batch_size) for start in range(0, len(row_N), batch_size)]
        under_way: deque[tuple[_Read, list[Future[None]]]] = deque()
        stream = self._new_stream()
        try:
            for ahead, part in enumerate(parts):
                for other in parts[ahead + len(under_way) : ahead + BATCHES_AHEAD]:
                    under_way.append(self._submit(row_N[other], draw_N[other]))
                for future in under_way[0][1]:
                    future.result()
                read, _ = under_way.popleft()
                with stream:
                    on_device = self._finish(read, draw_N[part])
                yield self._batch(row_N[part], read, on_device)
        finally:
            for future in (one for _, futures in under_way for one in futures):
                future.cancel()

    def close(self) -> None:
        self._pool.shutdown()

    def _submit(self, row_B: np.ndarray, draw_B: np.ndarray) -> tuple[_Read, list[Future[None]]]:
        """A batch, and what fills it."""
        size, count = self.spec.size, len(row_B)
        read = _Read(pixel_BSSC=np.zeros((count, size, size, 3), np.uint8), fingerprints=no_fingerprints(count))
        parts = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
        return read, [self._pool.submit(self._read, read, part, row_B, draw_B) for part in parts]

    # ---- in the reading threads

    def _read(self, read: _Read, part: slice, row_B: np.ndarray, draw_B: np.ndarray) -> None:
        keys = [self._keys[row] for row in row_B[part].tolist()]
        for index, content in enumerate(self._files.read(keys), start=part.start):
            if content.reason:
                read.failed[index] = content.reason
                continue
            put_fingerprint(read.fingerprints, index, content)
            pixels = self._pixels_for_device(content)
            if pixels:
                read.jpeg[index] = content.data, pixels
            else:
                self._decode_here(read, index, content.data, int(draw_B[index]))

    def _pixels_for_device(self, content: FileContent) -> int:
        """Its width × height if the device is to decode it, else 0."""
        header = read_plain_header(content.data)
        if header is None or header.stored_rgb:
            return 0
        pixels, short, long = header.width * header.height, min(header.size), max(header.size)
        side = scaled_side(self.spec, self.crop) or self.spec.size
        least = short * (self.crop.scale[0] ** 0.5 if isinstance(self.crop, RandomCrop) else 1)
        enough = not header.thinned or LEAST_DOWNSCALE * side <= least
        fits = enough and long <= MOST_DOWNSCALE * side and long <= 8 * short
        return pixels if fits and pixels <= MOST_PIXELS else 0

    def _decode_here(self, read: _Read, index: int, data: bytes, draw: int) -> None:
        try:
            read.pixel_BSSC[index] = to_crop(np.array(decode_rgb(data)), self.spec, self.crop, draw)
        except UnreadableImage as exc:
            read.failed[index] = exc.reason

    # ---- in the thread that asks for batches

    def _finish(self, read: _Read, draw_B: np.ndarray) -> DevicePixels | None:
        """Makes the crops of `read.jpeg`: on the device beside those that were decoded here, or None and all of them
        in `read.pixel_BSSC`."""
        made = [part for part in self._groups(read, draw_B) if part[0]]
        if self.on_device:
            return self._gathered(read, made)
        copied = [(index_K, self._to_host(crop_KSSC)) for index_K, crop_KSSC in made]
        self._wait()
        for index_K, crop_KSSC in copied:
            read.pixel_BSSC[index_K] = crop_KSSC.numpy()
        return None

    def _groups(self, read: _Read, draw_B: np.ndarray) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Places in the batch and their crops on the device; what the device refuses is decoded here."""
        todo = sorted(read.jpeg)
        while todo:
            held, count = 0, 0
            while count < len(todo) and (not count or held + read.jpeg[todo[count]][1] <= PIXELS_AT_ONCE):
                held += read.jpeg[todo[count]][1]
                count += 1
            group, todo = todo[:count], todo[count:]
            decoded = self._decode_on_device([read.jpeg[index][0] for index in group])
            ours = [(index, image_CHW) for index, image_CHW in zip(group, decoded) if image_CHW is not None]
            for index, image_CHW in zip(group, decoded):
                if image_CHW is None:
                    self._decode_here(read, index, read.jpeg[index][0], int(draw_B[index]))
            if ours:
                index_K = [index for index, _ in ours]
                yield index_K, self._crops([image_CHW for _, image_CHW in ours], draw_B[index_K])

    def _crops(self, images: list[torch.Tensor], draw_K: np.ndarray) -> torch.Tensor:
        """`to_crop`, on the device."""
        from cleanctl_kernels.resize import resize_crops
        from cleanctl_kernels.types import Cut

        cuts = []
        for image_CHW, draw in zip(images, draw_K.tolist()):
            height, width = image_CHW.shape[1:]
            cuts.append(Cut(*place(width, height, self.spec, self.crop, draw)))
        spec = self.spec
        return resize_crops(images, cuts, size=spec.size, fill=spec.fill, interpolation=spec.interpolation)

    def _gathered(self, read: _Read, made: list[tuple[list[int], torch.Tensor]]) -> DevicePixels:
        """The crops of all readable images in one tensor, in order."""
        import torch

        there = [index for index_K, _ in made for index in index_K]
        here = sorted(set(range(len(read.pixel_BSSC))) - set(there) - set(read.failed))
        parts = [crop_KSSC for _, crop_KSSC in made]
        if here or not parts:
            parts.append(self._to_device(torch.from_numpy(read.pixel_BSSC[here])))
        crop_KSSC = parts[0] if len(parts) == 1 else torch.cat(parts)
        place_K = np.argsort(np.array(there + here, dtype=np.int64))
        if (np.diff(place_K) != 1).any():
            crop_KSSC = crop_KSSC.index_select(0, self._to_device(torch.from_numpy(place_K)))
        if self._device == "cpu":
            return DevicePixels(pixel_KSSC=crop_KSSC)
        ready = torch.cuda.Event(blocking=True)
        ready.record()
        return DevicePixels(pixel_KSSC=crop_KSSC, ready=ready)

    def _to_device(self, values: torch.Tensor) -> torch.Tensor:
        if self._device == "cpu" or not len(values):
            return values.to(self._device)
        return values.pin_memory().to(self._device, non_blocking=True)

    def _to_host(self, crop_KSSC: torch.Tensor) -> torch.Tensor:
        """Pinned, and there after `_wait`."""
        import torch

        if self._device == "cpu":
            return crop_KSSC
        host_KSSC = torch.empty(crop_KSSC.shape, dtype=torch.uint8, pin_memory=True)
        return host_KSSC.copy_(crop_KSSC, non_blocking=True)

    def _wait(self) -> None:
        """Until this stream's work has ended, without spinning."""
        if self._device == "cpu":
            return
        import torch

        event = torch.cuda.Event(blocking=True)
        event.record()
        event.synchronize()

    def _decode_on_device(self, data: list[bytes]) -> list[torch.Tensor | None]:
        """uint8 (3, H, W) each; None for what the decoder refuses, which it says of a whole call only.

        Raises what is no verdict on a file: a GPU out of memory, an nvJPEG that cannot be set up, its statuses 1 (not
        initialized), 5 (allocator failure) and 7 (architecture mismatch).
        """
        import torch
        from torchcodec.decoders import decode_jpeg

        try:
            return list(decode_jpeg(data, mode="RGB", device=self._device))
        except RuntimeError as exc:
            # What the processor's decoder raises in its place is always about the file.
            refused = re.search(r"nvjpegDecode failed: (?![157]\b)" if self._device != "cpu" else "", str(exc))
            if not refused or isinstance(exc, torch.OutOfMemoryError):
                raise
            if len(data) == 1:
                return [None]
            half = len(data) // 2
            return self._decode_on_device(data[:half]) + self._decode_on_device(data[half:])

    def _new_stream(self) -> AbstractContextManager[object]:
        """A stream of its own: fetching crops does not wait for the encoder's work."""
        if self._device == "cpu":
            return nullcontext()
        import torch

        return torch.cuda.stream(torch.cuda.Stream())

    def _batch(self, row_B: np.ndarray, read: _Read, on_device: DevicePixels | None) -> ImageBatch:
        ok_B = np.ones(len(row_B), dtype=bool)
        ok_B[list(read.failed)] = False
        reason = {int(row_B[index]): why for index, why in read.failed.items()}
        return ImageBatch(
            row_B=row_B,
            pixel_BSSC=read.pixel_BSSC if on_device is None else read.pixel_BSSC[:0],
            ok_B=ok_B,
            reason=reason,
            fingerprints=read.fingerprints,
            on_device=on_device,
        )


def open_nvjpeg(
    *,
    files: Storage,
    keys: Sequence[str],
    spec: PixelSpec,
    crop: Crop | None,
    threads: int | None,
    on_device: bool = False,
) -> NvjpegLoader:
    """Raises UsageError without a CUDA device, MissingPackageError without torchcodec."""
    import importlib.util

    import torch

    if importlib.util.find_spec("torchcodec") is None:
        raise MissingPackageError.of("torchcodec", extra="gpu", needed_for="--loader nvjpeg")
    if not torch.cuda.is_available():
        raise UsageError(
            "--loader nvjpeg was asked for, and torch finds no CUDA device.",
            so="nvJPEG decodes on an NVIDIA GPU alone.",
            do="Use --loader auto, or see what is missing with: cleanctl doctor",
        )
    return NvjpegLoader(files=files, keys=keys, spec=spec, crop=crop, threads=threads, on_device=on_device)
