"""Many batches through an encoder at once, in order.

CPU: as many workers as torch has threads, each a Python thread that encodes whole batches alone. Batches need no
barrier, where torch's own parallel loops meet at one several hundred times a batch and spin there while a loader's
thread has the core: on two cores with two loader processes that costs half of the speed. And the number of threads does
not change the last bit of an embedding. On CUDA: `cuda_workers.py`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cleanctl.records import DevicePixels

if TYPE_CHECKING:
    import torch


class Pending(Protocol):
    """A batch on its way through the encoder."""

    def result(self) -> np.ndarray:
        """image_BD float16 (B, D); waits for it. The batch's pixels may be overwritten from then on."""
        ...


class Encodes(Protocol):
    """What the workers need of an `Encoder` (`cleanctl.clip.encoder` has the meaning of each)."""

    def encode_images(self, pixel_BSSC: np.ndarray) -> np.ndarray: ...

    def check(self, pixel_BSSC: Any) -> None: ...

    def embed(self, pixel_BSSC: torch.Tensor) -> torch.Tensor: ...


class InferenceWorkers(Protocol):
    """ahead: how many batches to keep under way before waiting for the oldest."""

    ahead: int

    def submit(self, pixels: np.ndarray | DevicePixels) -> Pending:
        """Starts on a batch, which must stay as it is until its result has been taken. On a CPU an array."""
        ...

    def prepare_thread(self) -> None:
        """To be called first in every thread that works beside them and may use torch."""

    def close(self) -> None: ...


class CpuWorkers:
    def __init__(self, encoder: Encodes) -> None:
        import torch

        self._encoder = encoder
        self._threads = torch.get_num_threads()
        self.ahead = self._threads
        torch.set_num_threads(1)  # for each thread that sets it, and for all of MKL
        self._pool = ThreadPoolExecutor(
            self._threads, thread_name_prefix="cleanctl-encoder", initializer=self.prepare_thread
        )

    def submit(self, pixels: np.ndarray | DevicePixels) -> Pending:
        assert isinstance(pixels, np.ndarray), "no device"
        return self._pool.submit(self._encoder.encode_images, pixels)

    def prepare_thread(self) -> None:
        import torch

        torch.set_num_threads(1)

    def close(self) -> None:
        import torch

        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)
