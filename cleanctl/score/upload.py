"""Blocks on their way to a GPU: read, staged and copied while the last one is worked on.

In: (rows, array) of host memory. Out: (rows, tensor on the device), in order. A thread reads a block, writes it into
one of two pinned buffers and starts its copy on a stream of its own; whoever asks for the block makes their stream wait
for that copy, not the processor. From pageable memory the copy would take the processor, half the speed, and its turn.
`cpu:0`, torch's own CPU, goes the same way with plain memory, and nothing to wait for. Leaves nothing on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

BUFFERS = 2


class Lane(Protocol):
    """How a device is reached."""

    def buffer(self, size: int) -> torch.Tensor:
        """uint8 of host memory from which a copy may go on by itself."""

    def send(self, host: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Starts the copy: where it will lie, and what to wait for before `host` may change."""

    def wait(self, sent: Any) -> None:
        """Until the copy is made; the thread sleeps."""

    def receive(self, there: torch.Tensor, sent: Any) -> None:
        """What is launched from now on by the thread that asks finds the copy made."""


class CudaLane:
    """Pinned memory, a stream for copies, an event for each."""

    def __init__(self, device: str) -> None:
        import torch

        self._device, self._cuda = device, torch.cuda
        self._stream = torch.cuda.Stream(device)

    def buffer(self, size: int) -> torch.Tensor:
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def send(self, host: torch.Tensor) -> tuple[torch.Tensor, Any]:
        with self._cuda.stream(self._stream):
            there = host.to(self._device, non_blocking=True)
            sent = self._cuda.Event(blocking=True)
            sent.record(self._stream)
        return there, sent

    def wait(self, sent: Any) -> None:
        sent.synchronize()

    def receive(self, there: torch.Tensor, sent: Any) -> None:
        current = self._cuda.current_stream(self._device)
        current.wait_event(sent)
        there.record_stream(current)  # its memory came from the other stream, which must not have it back too early


class HostLane:
    """torch's own CPU: the copy is made before `send` returns."""

    def buffer(self, size: int) -> torch.Tensor:
        import torch

        return torch.empty(size, dtype=torch.uint8)

    def send(self, host: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return host.clone(), None

    def wait(self, sent: Any) -> None:
        return None

    def receive(self, there: torch.Tensor, sent: Any) -> None:
        return None


@dataclass
class _Slot:
    """A buffer, and the copy that was last made from it."""

    buffer: torch.Tensor | None = None
    sent: Any = None


def uploaded(
    blocks: Iterable[tuple[slice, np.ndarray]], device: str, *, lane: Lane | None = None
) -> Iterator[tuple[slice, torch.Tensor]]:
    """device: `cuda`, `cuda:1`, …, or `cpu:0`. Beside the block that is worked on, one is on its way."""
    way: Lane = lane or (CudaLane(device) if device.startswith("cuda") else HostLane())
    slots, source = [_Slot() for _ in range(BUFFERS)], iter(blocks)

    def bring(turn: int) -> tuple[slice, torch.Tensor, Any] | None:
        item = next(source, None)
        if item is None:
            return None
        rows, values = item
        slot = slots[turn % BUFFERS]
        there, slot.sent = way.send(_staged(slot, values, way))
        return rows, there, slot.sent

    turn = 0
    with ThreadPoolExecutor(1, thread_name_prefix="upload") as pool:
        coming = pool.submit(bring, turn)
        while (item := coming.result()) is not None:
            turn += 1
            coming = pool.submit(bring, turn)
            rows, there, sent = item
            way.receive(there, sent)
            yield rows, there


def _staged(slot: _Slot, values: np.ndarray, way: Lane) -> torch.Tensor:
    """The values in the slot's buffer, once the last copy out of it is made."""
    import torch

    if slot.buffer is not None:
        way.wait(slot.sent)
    if slot.buffer is None or len(slot.buffer) < values.nbytes:
        slot.buffer = way.buffer(values.nbytes)
    dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
    host = slot.buffer[: values.nbytes].view(dtype).view(values.shape)
    np.copyto(host.numpy(), values)
    return host
