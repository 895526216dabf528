"""The shipped encoder: small, whole, offline, and decent on images it has never seen."""

from __future__ import annotations

import io
import socket
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cleanctl.demo
from cleanctl.demo.captions import SYNONYMS, TRAITS, write_caption
from cleanctl.demo.draw import draw_jpeg, plan_image
from cleanctl.demo.shapes import CLASSES
from cleanctl.prompts.prompt_set import resolve_prompts

HERE = Path(cleanctl.demo.__file__).parent


@pytest.fixture(scope="module")
def encoder():
    """(model, preprocess, tokenizer) of open_clip, with the network shut."""
    import open_clip

    def refuse(*args, **kwargs):
        raise AssertionError("the shipped model asked for the network")

    name = f"local-dir:{HERE / 'model'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        model, _, preprocess = open_clip.create_model_and_transforms(name)
        return model.eval(), preprocess, open_clip.get_tokenizer(name)


def zero_shot_accuracy(encoder, count: int) -> float:
    """On images of a seed that neither the demo nor the training script uses."""
    model, preprocess, tokenize = encoder
    prompts = resolve_prompts(str(HERE / "prompts.toml"), CLASSES)
    drawn = [draw_jpeg(12345, 1, number) for number in range(count)]
    pixels = torch.stack([preprocess(Image.open(io.BytesIO(data))) for _, data in drawn])
    with torch.inference_mode():
        image_ND = model.encode_image(pixels, normalize=True)
        text_PD = model.encode_text(tokenize(list(prompts.prompts)), normalize=True)
    weight_NP = torch.exp(image_ND @ text_PD.T / 0.07)
    of_class = torch.zeros(len(drawn), len(CLASSES)).index_add_(1, torch.from_numpy(prompts.class_P).long(), weight_NP)
    truth = np.array([scene.label for scene, _ in drawn])
    return float((of_class.argmax(1).numpy() == truth).mean())


def test_the_encoder_knows_fresh_images_well_but_not_perfectly(encoder):
    accuracy = zero_shot_accuracy(encoder, 300)
    assert 0.70 < accuracy < 0.97


def test_it_is_half_precision_and_at_most_8_megabytes():
    from safetensors import safe_open

    assert sum(path.stat().st_size for path in (HERE / "model").iterdir()) <= 8_000_000
    with safe_open(HERE / "model" / "open_clip_model.safetensors", "pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  not a dict
    assert torch.float16 in kinds
    assert torch.float32 not in kinds


def test_words_that_no_caption_holds_are_silent_not_random(encoder):
    model, _, tokenize = encoder
    token = tokenize(["zeppelin"])[0, 1]
    assert model.token_embedding.weight[token].abs().max() == 0


def test_every_class_has_as_many_prompts():
    """Sums over prompts would favour a class that has more of them."""
    counts = np.bincount(resolve_prompts(str(HERE / "prompts.toml"), CLASSES).class_P)
    assert len(counts) == len(CLASSES)
    assert len(set(counts.tolist())) == 1


def test_the_prompts_use_words_that_the_encoder_has_learnt(encoder):
    model, _, tokenize = encoder
    phrases = tomllib.loads((HERE / "prompts.toml").read_text())["phrases"]
    for phrase in [phrase for part in phrases.values() for phrase in part]:
        known = model.token_embedding.weight[tokenize([phrase])[0]].abs().amax(1) > 0
        assert known.float().mean() > 0.5, phrase


def test_a_caption_names_its_shape_and_no_other():
    for number in range(200):
        scene, _ = plan_image(5, 7, number)
        caption = write_caption(scene, np.random.default_rng(number))
        named = [name for name, words in SYNONYMS.items() if any(f" {word}" in caption for word in words)]
        assert CLASSES[scene.label] in named
        assert len(named) == 1 or any(trait in caption for trait in TRAITS[CLASSES[scene.label]])
