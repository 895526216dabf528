"""The encoder: uint8 pixels → float16 image embeddings, prompts → float32 text embeddings.

pixel_BSSC uint8 (B, S, S, 3) in, image_BD float16 (B, D) out, L2-normalised in float32 before rounding
(docs/method.md A.1); a row that the network made non-finite (or zero) comes out as NaN throughout, never as a number.
On CUDA: fp16 weights, layer norms and QuickGELU in one pass each (`fused.py`). On a CPU: channels-last fp32 (or bf16
where it is native), which convolutions take 1.4 times faster than the usual layout; ATen's ViT and ResNet inference is
then within a fifth of the cores' multiply-add rate, and folding batch norms (7 %) or tracing (slower) is not worth its
risk. How batches overlap is in `workers.py`.
Nothing is written to disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cleanctl.clip import weights
from cleanctl.clip.cuda_workers import CudaWorkers
from cleanctl.clip.provenance import EncoderInfo, ModelSource
from cleanctl.clip.workers import CpuWorkers, InferenceWorkers
from cleanctl.errors import InputError, MissingPackageError, first_line
from cleanctl.progress import SILENT, Progress
from cleanctl.runtime import torch_dtype

if TYPE_CHECKING:
    import torch

TEXT_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """embedding_PD float32 (P, D), L2-normalised; cut_P bool, prompts longer than the model's context."""

    embedding_PD: np.ndarray
    cut_P: np.ndarray


class Encoder:
    """A built model on its device. Use `load_encoder` to make one."""

    def __init__(self, model: Any, tokenizer: Any, info: EncoderInfo, device: str, progress: Progress = SILENT) -> None:
        import torch

        self.info = info
        self.progress = progress
        self.device = device
        self.dim = info.dim
        self._model = model
        self._tokenizer = tokenizer
        self._dtype = torch_dtype(info.precision)
        self._mean_3 = torch.tensor(info.mean, dtype=torch.float32, device=device)
        self._std_3 = torch.tensor(info.std, dtype=torch.float32, device=device)

    @property
    def model(self) -> Any:
        """The open_clip model, in evaluation mode and without gradients."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def encode_images(self, pixel_BSSC: np.ndarray) -> np.ndarray:
        """image_BD float16 (B, D), rows of unit length, NaN where the network gave non-finite values.

        One batch after another on this thread; `workers` is for many.
        """
        import torch

        self.check(pixel_BSSC)
        if not pixel_BSSC.flags.writeable:
            pixel_BSSC = pixel_BSSC.copy()  # torch has no read-only tensors and warns
        with torch.inference_mode():
            return self.embed(torch.from_numpy(pixel_BSSC).to(self.device)).cpu().numpy()

    @contextmanager
    def workers(self, *, graph: bool = True) -> Iterator[InferenceWorkers]:
        """Many batches at full speed: see `cleanctl.clip.workers`. graph: whether CUDA may replay the network."""
        workers: InferenceWorkers
        if self.device == "cuda":
            workers = CudaWorkers(self, graph=graph, note=self.progress.note)
        else:
            workers = CpuWorkers(self)
        try:
            yield workers
        finally:
            workers.close()

    def check(self, pixel_BSSC: Any) -> None:
        """Of numpy or torch: bytes, of the model's size."""
        size = self.info.pixels.size
        assert str(pixel_BSSC.dtype).endswith("uint8"), pixel_BSSC.dtype
        assert pixel_BSSC.shape[1:] == (size, size, 3), pixel_BSSC.shape

    def encode_text(self, prompts: Sequence[str]) -> EncodedText:
        """Prompts → embeddings. Raises InputError if the model gives non-finite values."""
        import torch

        parts, cut = [], []
        with torch.inference_mode():
            for start in range(0, len(prompts), TEXT_BATCH):
                texts = list(prompts[start : start + TEXT_BATCH])
                token_PL = self._tokenizer(texts)
                cut.append(_longer_than_context(self._tokenizer, texts, token_PL))
                feature_PD = self._model.encode_text(token_PL.to(self.device), normalize=False).float()
                parts.append(_normalised(feature_PD).cpu().numpy())
        embedding_PD = np.concatenate(parts).astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(embedding_PD).all(axis=1))
        if len(bad):
            raise InputError(
                f"The text encoder gave non-finite values for {len(bad)} prompts, e.g. {prompts[int(bad[0])]!r}.",
                do="Check the weights, or use --precision fp32.",
            )
        return EncodedText(embedding_PD=embedding_PD, cut_P=np.concatenate(cut))

    def embed(self, pixel_BSSC: torch.Tensor) -> torch.Tensor:
        """uint8 (B, S, S, 3) on the device → float16 (B, D) on the device; caller holds inference mode."""
        from cleanctl_kernels.pixels import pixels_to_input

        input_BCSS = pixels_to_input(pixel_BSSC, self._mean_3, self._std_3, dtype=self._dtype)
        feature_BD = self._model.encode_image(input_BCSS, normalize=False)
        if feature_BD.shape[1] != self.dim:
            raise InputError(
                f"{self.info.model} gives embeddings of size {feature_BD.shape[1]}, its configuration says {self.dim}.",
                do="Correct embed_dim in the configuration.",
            )
        return _normalised(feature_BD.float()).half()


def load_encoder(source: ModelSource, *, device: str, precision: str, progress: Progress = SILENT) -> Encoder:
    """Builds the network of a resolved source and loads its weights.

    device: cuda or cpu. precision: fp16, bf16 or fp32. Raises InputError if weights and architecture do not fit, or
    a tokenizer is missing; MissingPackageError if the tokenizer needs `transformers`.
    """
    import torch

    with weights.network(source.download), weights.quiet_root_logger():
        tokenizer = _tokenizer(source)
        model = _network(source, precision)
    weights.load_weights(model, source.weights)
    model = model.eval().requires_grad_(False).to(device=device)
    model.visual.to(memory_format=torch.channels_last)
    if device == "cuda":
        from cleanctl.clip.fused import fuse

        fuse(model.visual)
    info = source.info(precision)
    if not source.weights.name.endswith(".safetensors"):
        progress.note(f"{source.weights.name} was read with torch's restricted reader (weights_only).")
    return Encoder(model, tokenizer, info, device, progress)


def _network(source: ModelSource, precision: str) -> Any:
    """The architecture with random weights, in its final precision (norms stay fp32, as open_clip does)."""
    import open_clip

    try:
        return open_clip.create_model(
            source.open_clip_name,
            load_weights=False,
            precision=precision,
            pretrained_image=False,
            pretrained_text=False,
        )
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, AttributeError, AssertionError) as exc:
        raise InputError(
            f"open_clip cannot build {source.name}: {type(exc).__name__} {str(exc)[:300]}",
            do="Check the configuration (a text tower from the hub needs its own on disk: --download).",
        ) from exc


def _tokenizer(source: ModelSource) -> Any:
    """The model's own tokenizer with its context length."""
    import importlib.util

    import open_clip

    kind = source.config["text_cfg"].get("hf_tokenizer_name")
    if kind and importlib.util.find_spec("transformers") is None:
        raise MissingPackageError.of("transformers", extra="siglip", needed_for=f"the tokenizer of {source.name}")
    try:
        return open_clip.get_tokenizer(source.open_clip_name)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as exc:
        raise InputError(
            f"The tokenizer of {source.name} ({kind}) cannot be loaded: {first_line(exc)}",
            so="Prompts cannot be embedded without it.",
            do="Add --download to fetch it once, or put its files beside the weights of a local-dir:",
        ) from exc


def _longer_than_context(tokenizer: Any, texts: list[str], token_PL: torch.Tensor) -> np.ndarray:
    """bool (P,): texts of which a context of twice the length holds more tokens than `token_PL` does.

    The number that pads is the tokenizer's own: 0 in CLIP's, 1 in SigLIP's.
    """
    pad = getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None) or 0
    longer_PL = tokenizer(texts, context_length=2 * token_PL.shape[1])
    return ((longer_PL != pad).sum(dim=1) > (token_PL != pad).sum(dim=1)).numpy()


def _normalised(feature_BD: torch.Tensor) -> torch.Tensor:
    """Rows of unit length; a zero row divides to NaN, as it should."""
    return feature_BD / feature_BD.norm(dim=1, keepdim=True)
