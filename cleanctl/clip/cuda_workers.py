"""Many batches through an encoder on a CUDA device: staging, upload, computation and the way back side by side.

numpy pixels go through pinned memory; the upload of one batch runs under the computation of the one before. Pixels that
a loader left on the device (`DevicePixels`) are computed on where they lie. From the second batch of a shape on, the
network is replayed as a CUDA graph: one launch where a ViT-B/32 takes some 160, each of which needs the interpreter
lock that the loader's and the writer's threads want as well. Whoever waits sleeps (blocking events) instead of
spinning on a core that decodes. Nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.clip.workers import Encodes, Pending
from cleanctl.errors import UsageError, first_line
from cleanctl.records import DevicePixels

if TYPE_CHECKING:
    import torch

AHEAD = 2
STAGING_BUFFERS = AHEAD + 2  # one is filled while others are uploaded
MOST_GRAPHS = 2  # each holds a batch's activations

Embed = Callable[["torch.Tensor"], "torch.Tensor"]
Note = Callable[[str], None]


class CudaWorkers:
    """device: `cuda`; `cpu` exists for tests, which put something in the place of `torch.cuda`."""

    ahead = AHEAD

    def __init__(self, encoder: Encodes, *, graph: bool = True, note: Note = lambda text: None, device: str = "cuda"):
        import torch

        self._encoder = encoder
        self._device = device
        self._embed: Embed = Graphs(encoder.embed, note) if graph else encoder.embed
        self._uploads = torch.cuda.Stream()
        self._staging: list[torch.Tensor | None] = [None] * STAGING_BUFFERS
        self._uploaded: list[Any] = [None] * STAGING_BUFFERS
        self._turn = 0

    def submit(self, pixels: np.ndarray | DevicePixels) -> Pending:
        """Raises UsageError where the device has no memory for such a batch."""
        import torch

        with torch.inference_mode(), _telling_of_memory(len(pixels)):
            if isinstance(pixels, DevicePixels):
                device_BSSC = self._arrived(pixels)
            else:
                device_BSSC = self._upload(pixels)
            image_BD = self._embed(device_BSSC)
            host_BD = torch.empty(image_BD.shape, dtype=image_BD.dtype, pin_memory=self._device == "cuda")
            host_BD.copy_(image_BD, non_blocking=True)
            done = torch.cuda.Event(blocking=True)
            done.record()
        return _OnDevice(host_BD, done)

    def prepare_thread(self) -> None:
        pass

    def close(self) -> None:
        import torch

        torch.cuda.synchronize()

    def _arrived(self, pixels: DevicePixels) -> torch.Tensor:
        """The tensor itself, which the computation waits for and keeps from being given to others."""
        import torch

        self._encoder.check(pixels.pixel_KSSC)
        current = torch.cuda.current_stream()
        if pixels.ready is not None:
            current.wait_event(pixels.ready)
        if pixels.pixel_KSSC.device.type == "cuda":
            pixels.pixel_KSSC.record_stream(current)
        return pixels.pixel_KSSC

    def _upload(self, pixel_BSSC: np.ndarray) -> torch.Tensor:
        import torch

        self._encoder.check(pixel_BSSC)
        host = self._stage(pixel_BSSC)
        with torch.cuda.stream(self._uploads):
            device_BSSC = host.to(self._device, non_blocking=True)
            self._uploaded[self._turn] = torch.cuda.Event(blocking=True)
            self._uploaded[self._turn].record()
        current = torch.cuda.current_stream()
        current.wait_stream(self._uploads)
        if device_BSSC.device.type == "cuda":
            device_BSSC.record_stream(current)
        self._turn = (self._turn + 1) % STAGING_BUFFERS
        return device_BSSC

    def _stage(self, pixel_BSSC: np.ndarray) -> torch.Tensor:
        """A pinned copy, in a buffer whose last upload has ended."""
        import torch

        if self._uploaded[self._turn] is not None:
            self._uploaded[self._turn].synchronize()
        buffer = self._staging[self._turn]
        if buffer is None or len(buffer) < len(pixel_BSSC):
            buffer = torch.empty(pixel_BSSC.shape, dtype=torch.uint8, pin_memory=self._device == "cuda")
            self._staging[self._turn] = buffer
        host = buffer[: len(pixel_BSSC)]
        host.numpy()[...] = pixel_BSSC
        return host


class _OnDevice:
    def __init__(self, host_BD: torch.Tensor, done: Any) -> None:
        self._host_BD = host_BD
        self._done = done

    def result(self) -> np.ndarray:
        self._done.synchronize()
        return self._host_BD.numpy()


class Graphs:
    """`embed`, computed as it is the first time that a shape comes and replayed from then on.

    The first time compiles kernels and lets libraries choose theirs, which cannot be recorded. Batches of other shapes,
    such as the last of a split, go on being computed as they are, as all do where recording fails. What is returned is
    overwritten by the next batch; it has to be copied away in the same stream.
    """

    def __init__(self, embed: Embed, note: Note) -> None:
        self._embed = embed
        self._note = note
        self._seen: set[tuple[int, ...]] = set()
        self._recorded: dict[tuple[int, ...], tuple[torch.Tensor, Callable[[], None], torch.Tensor]] = {}
        self._failed = False

    def __call__(self, pixel_BSSC: torch.Tensor) -> torch.Tensor:
        shape = tuple(pixel_BSSC.shape)
        if shape not in self._recorded:
            if shape not in self._seen or self._failed or len(self._recorded) == MOST_GRAPHS:
                self._seen.add(shape)
                return self._embed(pixel_BSSC)
            if not self._record(pixel_BSSC):
                return self._embed(pixel_BSSC)
        static_BSSC, replay, image_BD = self._recorded[shape]
        static_BSSC.copy_(pixel_BSSC)
        replay()
        return image_BD

    def _record(self, pixel_BSSC: torch.Tensor) -> bool:
        """False, and the reason in a note, where the network cannot be recorded."""
        import torch

        try:
            static_BSSC = torch.empty_like(pixel_BSSC)
            self._recorded[tuple(pixel_BSSC.shape)] = static_BSSC, *record_graph(self._embed, static_BSSC)
        except RuntimeError as exc:  # what the capture of a graph raises, of memory too
            self._failed = True
            self._note(f"CUDA graph: not used ({first_line(exc)}).")
            return False
        self._note(f"CUDA graph: used for batches of {len(pixel_BSSC):,} images.")
        return True


def record_graph(embed: Embed, pixel_BSSC: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
    """What computes the embeddings of whatever then lies in `pixel_BSSC`, and where it puts them."""
    import torch

    graph = torch.cuda.CUDAGraph()
    # Loaders' threads use the device meanwhile, which only their own captures could forbid them.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        image_BD = embed(pixel_BSSC)
    return graph.replay, image_BD


@contextmanager
def _telling_of_memory(count: int) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise UsageError(
            f"The CUDA device has no memory for a batch of {count:,} images: {first_line(exc)}",
            so="Nothing of this batch was computed.",
            do="Give a smaller --batch-size, or end what else uses the device.",
        ) from exc
