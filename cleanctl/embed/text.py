"""The prompts of a store: embedded where they are others than those it holds."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from cleanctl.embed.machine import Machine
from cleanctl.progress import Progress
from cleanctl.prompts.prompt_set import PromptSet
from cleanctl.records import TextEmbeddings
from cleanctl.store import Store


def embed_prompts(
    store: Store, prompts: PromptSet, machine: Machine, progress: Progress, *, locked: bool = False
) -> bool:
    """Writes the text embeddings if the prompts are not those of the store; True if it did.

    locked: the caller holds the store's lock, or is the one process of several that writes them.
    """
    if store.has_text_of(prompts.digest):
        return False
    text = machine.encoder.encode_text(prompts.prompts)
    cut = int(np.count_nonzero(text.cut_P))
    if cut:
        first = prompts.prompts[int(np.argmax(text.cut_P))]
        progress.warn(f"{cut} prompts are longer than the model's context and lose their end, e.g. {first!r}.")
    progress.note(f"Prompts {prompts.name}: {len(prompts.prompts)} sentences for {len(store.classes)} classes.")
    embeddings = TextEmbeddings(embedding_PD=text.embedding_PD, class_P=prompts.class_P, prompts=prompts.prompts)
    with nullcontext() if locked else store.lock():
        store.write_text(embeddings, {"name": prompts.name, "digest": prompts.digest})
    return True
