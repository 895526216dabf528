"""Contexts before class names, in every kind of text tower; names and contexts that do not fit are refused."""

from __future__ import annotations

import open_clip
import pytest
import torch
from tiny_clip import SIGLIP_TEXT, TEXT, tiny_clip

from cleanctl.adapt import contexts
from cleanctl.adapt.contexts import DualContexts, TextTower, class_means, class_phrases, context_parameters
from cleanctl.errors import InputError
from cleanctl.records import TextEmbeddings

CLASSES = ("maple_tree", "cat", "greater white-fronted goose")
TOWERS = {
    "CLIP's": {},
    "CLIP's, eos": {"text": TEXT | {"pool_type": "eos", "eos_id": 49407}, "custom": True},
    "one of its own": {"custom": True},
    "SigLIP's": {"text": SIGLIP_TEXT, "custom": True},
}


def test_the_two_contexts_of_vit_b_16_are_16384_numbers():
    assert context_parameters(open_clip.get_model_config("ViT-B-16"), 16) == 16_384
    model, tokenizer, _ = tiny_clip()
    text = DualContexts(TextTower(model, tokenizer, CLASSES, tokens=5), seed=0)
    assert sum(p.numel() for p in text.parameters()) == context_parameters({"text_cfg": TEXT}, 5)


def test_names_are_written_as_deft_writes_them():
    assert class_phrases(["maple_tree", "cat"]) == ["maple tree.", "cat."]


@pytest.mark.parametrize("kind", TOWERS.values(), ids=TOWERS)
def test_a_context_of_words_gives_the_embedding_of_the_text_with_these_words(kind):
    model, tokenizer, _ = tiny_clip(**kind)
    tower = TextTower(model, tokenizer, CLASSES, tokens=4)
    owner = model.text if hasattr(model, "text") else model
    words = tokenizer(["a photo of the"])[0, 1:5]
    with torch.no_grad():
        found = tower.embed(owner.token_embedding(words))
        wanted = model.encode_text(tokenizer([f"a photo of the {one}" for one in class_phrases(CLASSES)]))
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1))


def test_a_tower_whose_texts_begin_without_a_token_of_their_own():
    class Bare:
        """Like SigLIP's: words, a last token, padding by the same."""

        def __init__(self):
            self.inner, self.tokenizer = open_clip.SimpleTokenizer(context_length=24), self
            self.pad_token_id = 1

        def __call__(self, texts, context_length=24):
            rows = [self.inner.encode(text)[: context_length - 1] for text in texts]
            return torch.tensor([[*row, *[1] * (context_length - len(row))] for row in rows])

    model, _, _ = tiny_clip(text=SIGLIP_TEXT, custom=True)
    tower = TextTower(model, Bare(), CLASSES, tokens=3)
    with torch.no_grad():
        found = tower.embed(model.text.token_embedding(Bare()(["a photo of"])[0, :3]))
        wanted = model.encode_text(Bare()([f"a photo of {one}" for one in class_phrases(CLASSES)]))
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1))


def test_many_classes_are_embedded_in_parts_with_the_same_gradient(monkeypatch):
    model, tokenizer, _ = tiny_clip()
    tower = TextTower(model.requires_grad_(False), tokenizer, CLASSES, tokens=4)
    text = DualContexts(tower, seed=0, dtype=torch.float64)
    weight = torch.arange(24.0, dtype=torch.float64).reshape(3, 8)
    found = []
    for chunk in (10_000, 1):
        monkeypatch.setattr(contexts, "CHUNK_TOKENS", chunk)
        found.append(torch.autograd.grad((text.positive() * weight).sum(), text.positive_context)[0])
    torch.testing.assert_close(*found)
    assert found[0].abs().sum() > 0


def test_some_classes_are_those_of_all():
    model, tokenizer, _ = tiny_clip()
    text = DualContexts(TextTower(model, tokenizer, CLASSES, tokens=4), seed=0, dtype=torch.float64)
    with torch.no_grad():
        every = text.negative(torch.arange(3))
        torch.testing.assert_close(text.negative(torch.tensor([2, 0])), every[[2, 0]])


@pytest.mark.parametrize(("tokens", "name"), [(30, "cat"), (16, "a very long " * 3 + "name"), (4, "word " * 60)])
def test_what_does_not_fit_into_the_tower_is_refused(tokens, name):
    model, tokenizer, _ = tiny_clip()
    with pytest.raises(InputError, match=r"do not fit into the text tower's 24 places.*cut off"):
        TextTower(model, tokenizer, ("dog", name), tokens=tokens)


def test_the_longest_context_that_fits_is_named_and_fits():
    model, tokenizer, _ = tiny_clip()
    with pytest.raises(InputError, match="--context-tokens 20 or fewer"):  # start, name, full stop, end
        TextTower(model, tokenizer, ("cat",), tokens=21)
    assert TextTower(model, tokenizer, ("cat",), tokens=20).num_classes == 1


def test_class_means_have_unit_length_whatever_the_number_of_prompts():
    embedding = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    text = TextEmbeddings(
        embedding_PD=embedding.numpy(), class_P=torch.tensor([1, 0, 1, 1, 2]).numpy(), prompts=("",) * 5
    )
    mean = class_means(text, 3)
    torch.testing.assert_close(mean.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(mean[0], embedding[1])
    torch.testing.assert_close(mean[1], torch.nn.functional.normalize(embedding[[0, 2, 3]].sum(0), dim=0))
