"""What DeFT learns of each class: two contexts before its name (`prompts`), or its two vectors (`class-vectors`).

`DualContexts` holds a positive and a negative context of M vectors, shared over the classes; a prompt is what the
tokenizer begins with, the context, "name." and what it ends with (docs/method.md C.1). The contexts are put into the
output of the text tower's token embedding, so that every open_clip tower with one works: CLIP's causal transformer,
SigLIP's, CoCa's, those of Hugging Face. `ClassVectors` needs no text tower. Nothing on disk.

Dimensions: C classes, K of them, M context tokens, L places of the text tower, W its width, D joint space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cleanctl.errors import InputError
from cleanctl.records import TextEmbeddings

CONTEXT_STD = 0.02
CHUNK_TOKENS = 4_096  # of prompts whose activations are kept at a time; more are computed again in the backward pass


def class_phrases(classes: Sequence[str]) -> list[str]:
    """Class names as DeFT writes them into a prompt: underscores are blanks, a full stop ends it."""
    return [f"{name.replace('_', ' ')}." for name in classes]


def context_parameters(model_config: Mapping[str, Any], tokens: int) -> int:
    """How many numbers the two contexts hold, from open_clip's model configuration alone."""
    return 2 * tokens * int(model_config["text_cfg"].get("width", 512))


class TextTower:
    """A frozen open_clip model's text side, with room for a context before each class name.

    Raises InputError where the tower has no token embedding, or where a context and a class name do not fit into it.
    """

    def __init__(self, model: Any, tokenizer: Any, classes: Sequence[str], *, tokens: int) -> None:
        self.model, self.tokens = model, tokens
        self._owner, self._at = (model.text, "text.") if hasattr(model, "text") else (model, "")
        self._embedding = _token_embedding(self._owner)
        self.width = int(self._embedding.weight.shape[1])
        device = self._embedding.weight.device
        self._lead = _leading_tokens(tokenizer)
        self._token_CL = self._tokens(tokenizer, classes).to(device)

    @property
    def num_classes(self) -> int:
        return len(self._token_CL)

    def embed(self, context_MW: Tensor, class_K: Tensor | None = None) -> Tensor:
        """(K, D) L2-normalised: the prompts of some classes (None: all) with this context, with gradient to it."""
        token_KL = self._token_CL if class_K is None else self._token_CL[class_K]
        chunk = max(1, CHUNK_TOKENS // token_KL.shape[1])
        if len(token_KL) <= chunk:
            return self._embed(context_MW, token_KL)
        parts = [checkpoint(self._embed, context_MW, part, use_reentrant=False) for part in token_KL.split(chunk)]
        return torch.cat(parts)

    def _embed(self, context_MW: Tensor, token_KL: Tensor) -> Tensor:
        first, last = self._lead, self._lead + self.tokens

        def put_in(module: nn.Module, args: Any, token_KLW: Tensor) -> Tensor:
            context_KMW = context_MW.to(token_KLW.dtype).expand(len(token_KLW), -1, -1)
            return torch.cat([token_KLW[:, :first], context_KMW, token_KLW[:, last:]], dim=1)

        hook = self._embedding.register_forward_hook(put_in)
        try:
            if self._shorter:
                found = functional_call(self.model, self._shorter, kwargs={"text": token_KL})
                feature_KD = found["text_features"] if isinstance(found, dict) else found[1]
            else:
                feature_KD = self.model.encode_text(token_KL, normalize=True)
        finally:
            hook.remove()
        return functional.normalize(feature_KD.to(context_MW.dtype), dim=1)

    def _tokens(self, tokenizer: Any, classes: Sequence[str]) -> Tensor:
        """(C, L) int64: the prompts' tokens, a word that is never used in the context's places."""
        phrases = class_phrases(classes)
        places = int(tokenizer(phrases[:1]).shape[1])
        long_CL = tokenizer(phrases, context_length=places + 256)
        used_C = _used(tokenizer, long_CL)
        self._require_room(classes, used_C, places)
        token_CL = tokenizer(phrases)
        filler = int(tokenizer(["x"])[0, self._lead])
        filler_CM = torch.full((len(phrases), self.tokens), filler, dtype=token_CL.dtype)
        token_CL = torch.cat([token_CL[:, : self._lead], filler_CM, token_CL[:, self._lead : places - self.tokens]], 1)
        self._shorter: dict[str, Tensor] = {}
        if _sees_only_what_stands_before(self._owner):
            length = int(used_C.max()) + self.tokens
            token_CL = token_CL[:, :length]
            position, mask = self._owner.positional_embedding, self._owner.attn_mask
            self._shorter = {
                f"{self._at}positional_embedding": position.detach()[:length],
                f"{self._at}attn_mask": mask[:length, :length],
            }
        return token_CL

    def _require_room(self, classes: Sequence[str], used_C: np.ndarray, places: int) -> None:
        worst = int(used_C.argmax())
        most = places - int(used_C[worst])
        if self.tokens <= most:
            return
        shorter = f"--context-tokens {most} or fewer" if most > 0 else "a shorter class name"
        raise InputError(
            f"A context of {self.tokens} tokens and the class name {classes[worst]!r} of {int(used_C[worst])} tokens "
            f"(with those that begin and end a text) do not fit into the text tower's {places} places.",
            so="The name would be cut off.",
            do=f"Use {shorter}, or --tune class-vectors, which needs no text tower.",
        )


class DualContexts(nn.Module):
    """The two contexts, each (M, W), drawn from N(0, 0.02²): 16,384 numbers for 16 tokens of ViT-B/16."""

    def __init__(self, tower: TextTower, *, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.tower = tower
        random = torch.Generator().manual_seed(seed)
        drawn_2MW = CONTEXT_STD * torch.randn(2, tower.tokens, tower.width, generator=random, dtype=dtype)
        self.positive_context = nn.Parameter(drawn_2MW[0].clone())
        self.negative_context = nn.Parameter(drawn_2MW[1].clone())

    def positive(self) -> Tensor:
        return self.tower.embed(self.positive_context)

    def negative(self, class_K: Tensor) -> Tensor:
        return self.tower.embed(self.negative_context, class_K)


class ClassVectors(nn.Module):
    """T⁺ and T⁻ of each class, each (C, D), learnt themselves; normalised where they are used."""

    def __init__(self, start_CD: Tensor) -> None:
        """start_CD: where both begin. p_clean is then 1/2 everywhere, and z⁺ what the prompts say."""
        super().__init__()
        self.positive_vector = nn.Parameter(start_CD.clone())
        self.negative_vector = nn.Parameter(start_CD.clone())

    def positive(self) -> Tensor:
        return functional.normalize(self.positive_vector, dim=1)

    def negative(self, class_K: Tensor) -> Tensor:
        return functional.normalize(self.negative_vector[class_K], dim=1)


def class_means(text: TextEmbeddings, num_classes: int) -> Tensor:
    """(C, D) float32 of unit length: the mean of each class's prompts."""
    sum_CD = np.zeros((num_classes, text.embedding_PD.shape[1]))
    np.add.at(sum_CD, text.class_P, text.embedding_PD)
    return torch.from_numpy(sum_CD / np.linalg.norm(sum_CD, axis=1, keepdims=True)).float()


# ---- what towers and tokenizers differ in


def _token_embedding(owner: Any) -> nn.Embedding:
    """The module that turns tokens into vectors."""
    found = getattr(owner, "token_embedding", None)
    if found is None and hasattr(getattr(owner, "transformer", None), "get_input_embeddings"):
        found = owner.transformer.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise InputError(
            f"The text tower {type(owner).__name__} has no token embedding that a context could be put into.",
            do="Use --tune class-vectors, which needs no text tower.",
        )
    return found


def _leading_tokens(tokenizer: Any) -> int:
    """1 where a text begins with a token of its own, as CLIP's do; 0 where it begins with its first word."""
    return int(tokenizer(["a"])[0, 0] == tokenizer(["the"])[0, 0])


def _used(tokenizer: Any, token_CL: Tensor) -> np.ndarray:
    """(C,) int: places up to the last token that is not padding. The number that pads is the tokenizer's own."""
    pad = getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None) or 0
    filled_CL = (token_CL != pad).numpy()
    used_C: np.ndarray = token_CL.shape[1] - filled_CL[:, ::-1].argmax(axis=1)
    return used_C


def _sees_only_what_stands_before(owner: Any) -> bool:
    """Whether the places after a text's end change nothing: then they need not be computed."""
    pooled = getattr(owner, "text_pool_type", getattr(owner, "pool_type", None))
    plain = getattr(owner, "cls_emb", None) is None and not getattr(owner, "use_pad_mask", False)
    return plain and pooled in ("argmax", "eos") and getattr(owner, "attn_mask", None) is not None
