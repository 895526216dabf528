"""The temperature of zero-shot probabilities: a number, the model's own (1 / its logit scale) or the paper's 0.07.

The store holds the logit scale of the model that made it. A store of an earlier version does not: its scale is then
read from the weights, found by the store's provenance and checked by their SHA-256, and written into the store.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from cleanctl.errors import CleanctlError, InputError, StoreError, UsageError
from cleanctl.progress import SILENT, Progress
from cleanctl.store import Store

PAPER_TEMPERATURE = 0.07  # docs/method.md A.3
DIGITS = 6  # of 1 / logit scale, which is part of a stored score's name


def temperature_of(asked: float | str | None, usual: str, logit_scale: float | None) -> float:
    """The number. asked: of the config, None takes the scorer's `usual` one (`model` or `paper`).

    UsageError where the model's own is wanted and its scale is not known.
    """
    word = usual if asked is None else asked
    if word == "paper":
        return PAPER_TEMPERATURE
    if isinstance(word, float):
        return word
    if logit_scale is None:
        raise UsageError(
            "The model's own temperature was asked for, and its logit scale is not known.",
            do="Give the number: --temperature 0.01 is 1/100, the scale that most CLIP models end at.",
        )
    return float(f"{1.0 / logit_scale:.{DIGITS}g}")


def in_words(number: float, asked: float | str | None, usual: str) -> str:
    word = usual if asked is None else asked
    whose = {"paper": " (the paper's)", "model": f" (the model's own, 1/{1 / number:.4g})"}
    return f"temperature {number:.4g}{whose.get(str(word), '')}"


def stored_logit_scale(store: Store, progress: Progress = SILENT) -> float:
    """exp(logit_scale) of the model that made the store. StoreError that says how to give it."""
    made = store.encoder
    scale = made.get("logit_scale")
    if isinstance(scale, int | float) and scale > 0:
        return float(scale)
    if "weights_sha256" not in made:
        raise _unknown(store, "Run the same cleanctl import again with --logit-scale 100, if 100 is its scale")
    scale, bias = _of_the_weights(store, made)
    progress.note(f"The model's logit scale, {scale:.4g}, was read from its weights and is now kept in the store.")
    with suppress(StoreError), store.lock():  # where another process writes, the next selection keeps it
        store.annotate(encoder={**store.encoder, "logit_scale": scale, "logit_bias": bias})
    return scale


def _of_the_weights(store: Store, made: dict[str, Any]) -> tuple[float, float | None]:
    from cleanctl.clip.models import resolve_model

    remedy = f"Bring the weights of {made.get('model')} {made.get('pretrained') or ''}".rstrip() + " back to this disk"
    try:
        source = resolve_model(str(made.get("model")), made.get("pretrained"))
    except (InputError, UsageError) as exc:
        raise _unknown(store, remedy) from exc
    if source.weights_sha256 != made["weights_sha256"]:
        raise _unknown(store, f"{source.weights} holds other weights than the store's. {remedy}")
    scale, bias = source.logits
    if scale is None:
        raise _unknown(store, f"{source.weights} holds no logit scale. Look it up")
    return scale, bias


def _unknown(store: Store, remedy: str) -> CleanctlError:
    return StoreError(
        f"{store.path} does not say the logit scale of the model that made it.",
        so="The model's own temperature is 1 / logit scale.",
        do=f"{remedy}, or give the number: --temperature 0.01 is 1/100, the scale that most CLIP models end at.",
    )
