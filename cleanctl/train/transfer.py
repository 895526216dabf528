"""Small arrays from the processor to the device in one copy that a GPU's work does not wait for, and back in few.

A step draws a few dozen numbers an image with NumPy. Sent one by one, each would make the processor wait for the GPU;
here they travel together, from pinned memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

ALIGNED = 16  # bytes: a view as another dtype begins at a multiple of its size
TOGETHER = 64  # batches whose small arrays travel in one copy
T = TypeVar("T")


def send(arrays: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, Tensor]:
    """The arrays as tensors on the device, by the same names. On a processor they are not copied."""
    if torch.device(device).type == "cpu":
        return {name: torch.from_numpy(np.asarray(values, order="C")) for name, values in arrays.items()}
    return unpack(arrays, packed(arrays).to(device, non_blocking=True))


def packed(arrays: Mapping[str, np.ndarray]) -> Tensor:
    """uint8, in host memory that is copied from while the processor goes on."""
    host = torch.empty(packed_size(arrays), dtype=torch.uint8, pin_memory=True)
    pack(arrays, host.numpy())
    return host


def send_each(arrays: Sequence[np.ndarray], device: torch.device | str) -> Iterator[Tensor]:
    """The arrays, int64 (n,) each, as tensors on the device; TOGETHER of them in one copy."""
    for start in range(0, len(arrays), TOGETHER):
        some = arrays[start : start + TOGETHER]
        if torch.device(device).type == "cpu":
            yield from map(torch.from_numpy, some)
        else:
            yield from send({"all": np.concatenate(some)}, device)["all"].split([len(one) for one in some])


def packed_size(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(-(-values.nbytes // ALIGNED) * ALIGNED for values in arrays.values())


def pack(arrays: Mapping[str, np.ndarray], into: np.ndarray) -> None:
    """into: uint8 (packed_size(arrays),)."""
    at = 0
    for values in arrays.values():
        into[at : at + values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        at += -(-values.nbytes // ALIGNED) * ALIGNED


def unpack(arrays: Mapping[str, np.ndarray], packed: Tensor) -> dict[str, Tensor]:
    """Views of what `pack` wrote, with the arrays' dtypes and shapes."""
    found, at = {}, 0
    for name, values in arrays.items():
        dtype = torch.from_numpy(np.empty(0, values.dtype)).dtype
        found[name] = packed[at : at + values.nbytes].view(dtype).view(values.shape)
        at += -(-values.nbytes // ALIGNED) * ALIGNED
    return found


class Gathered:
    """Values by position, (M,) arrays of the host, brought from the device TOGETHER batches at a time, since reading
    makes a GPU wait. What was put is there after `close`."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self._arrays = arrays
        self._waiting: list[tuple[np.ndarray, tuple[Tensor, ...]]] = []

    def put(self, position_B: np.ndarray, *values: Tensor) -> None:
        """A tensor (B,) for each array."""
        self._waiting.append((position_B, values))
        if len(self._waiting) == TOGETHER:
            self.close()

    def close(self) -> None:
        if not self._waiting:
            return
        positions, values = zip(*self._waiting)
        position = np.concatenate(positions)
        for array, parts in zip(self._arrays, zip(*values)):
            array[position] = torch.cat(parts).cpu().numpy()
        self._waiting = []


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The items, of which a thread makes up to `depth` before they are asked for. Raises what making them raises.

    The thread ends with the last item, or soon after the generator is closed.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
        except BaseException as exc:  # noqa: BLE001  raised again in the thread that asks
            put((None, exc, True))
        else:
            put((None, None, True))

    thread = threading.Thread(target=work, name="images ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, failure, last = ready.get()
            if failure is not None:
                raise failure
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()
