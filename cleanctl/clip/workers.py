"""Many batches through an encoder at once, in order.

CPU: as many workers as torch has threads, each a Python thread that encodes whole batches alone. Batches need no
barrier, where torch's own parallel loops meet at one several hundred times a batch and spin there while a loader's
thread has the core: on two cores with two loader processes that costs half of the speed. And the number of threads does
not change the last bit of an embedding.
CUDA: pinned staging; the upload of one batch runs under the computation of the one before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

STAGING_BUFFERS = 3


class Pending(Protocol):
    """A batch on its way through the encoder."""

    def result(self) -> np.ndarray:
        """image_BD float16 (B, D); waits for it. The batch's pixels may be overwritten from then on."""
        ...


class Encodes(Protocol):
    """What the workers need of an `Encoder` (`cleanctl.clip.encoder` has the meaning of each)."""

    def encode_images(self, pixel_BSSC: np.ndarray) -> np.ndarray: ...

    def check(self, pixel_BSSC: np.ndarray) -> None: ...

    def embed(self, pixel_BSSC: torch.Tensor) -> torch.Tensor: ...


class InferenceWorkers(Protocol):
    """ahead: how many batches to keep under way before waiting for the oldest."""

    ahead: int

    def submit(self, pixel_BSSC: np.ndarray) -> Pending:
        """Starts on a batch, which must stay as it is until its result has been taken."""
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

    def submit(self, pixel_BSSC: np.ndarray) -> Pending:
        return self._pool.submit(self._encoder.encode_images, pixel_BSSC)

    def prepare_thread(self) -> None:
        import torch

        torch.set_num_threads(1)

    def close(self) -> None:
        import torch

        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)


class CudaWorkers:
    ahead = 1

    def __init__(self, encoder: Encodes) -> None:
        import torch

        self._encoder = encoder
        self._uploads = torch.cuda.Stream()
        self._staging: list[torch.Tensor | None] = [None] * STAGING_BUFFERS
        self._uploaded: list[Any] = [None] * STAGING_BUFFERS
        self._turn = 0

    def submit(self, pixel_BSSC: np.ndarray) -> Pending:
        import torch

        self._encoder.check(pixel_BSSC)
        host = self._stage(pixel_BSSC)
        with torch.inference_mode():
            with torch.cuda.stream(self._uploads):
                device = host.to("cuda", non_blocking=True)
                self._uploaded[self._turn] = torch.cuda.Event()
                self._uploaded[self._turn].record()
            current = torch.cuda.current_stream()
            current.wait_stream(self._uploads)
            device.record_stream(current)
            image_BD = self._encoder.embed(device)
            host_BD = torch.empty(image_BD.shape, dtype=image_BD.dtype, pin_memory=True)
            host_BD.copy_(image_BD, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        self._turn = (self._turn + 1) % STAGING_BUFFERS
        return _OnDevice(host_BD, done)

    def prepare_thread(self) -> None:
        pass

    def close(self) -> None:
        import torch

        torch.cuda.synchronize()

    def _stage(self, pixel_BSSC: np.ndarray) -> torch.Tensor:
        """A pinned copy, in a buffer whose last upload has ended."""
        import torch

        if self._uploaded[self._turn] is not None:
            self._uploaded[self._turn].synchronize()
        buffer = self._staging[self._turn]
        if buffer is None or len(buffer) < len(pixel_BSSC):
            buffer = torch.empty(pixel_BSSC.shape, dtype=torch.uint8, pin_memory=True)
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
