"""Promises about the encoder: open_clip's own numbers, unit rows, nothing non-finite passed off as an embedding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer
from PIL import Image

from cleanctl.clip.encoder import load_encoder
from cleanctl.clip.models import resolve_model


@pytest.fixture(scope="module")
def encoder(model_dir):
    return load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def reference(model_dir):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model_dir}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{model_dir}")


def pixels(count, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_images_get_the_embeddings_that_open_clips_own_transform_and_model_give(encoder, reference):
    model, transform, _ = reference
    pixel_BSSC = pixels(9)
    with torch.no_grad():
        theirs = model.encode_image(torch.stack([transform(Image.fromarray(p)) for p in pixel_BSSC])).numpy()
    ours = encoder.encode_images(pixel_BSSC)
    assert cosine(ours, theirs).min() > 0.99999
    assert ours.dtype == np.float16
    # The check above must be able to fail: swapped channels are seen.
    assert cosine(encoder.encode_images(pixel_BSSC[..., ::-1].copy()), theirs).min() < 0.999


def test_rows_have_unit_length_and_do_not_depend_on_their_neighbours(encoder):
    pixel_BSSC = pixels(12)
    whole = encoder.encode_images(pixel_BSSC)
    assert np.allclose(np.linalg.norm(whole.astype(np.float32), axis=1), 1, atol=1e-3)
    parts = np.concatenate([encoder.encode_images(pixel_BSSC[:5]), encoder.encode_images(pixel_BSSC[5:])])
    assert np.abs(whole.astype(np.float32) - parts).max() < 1e-3


def test_read_only_pixels_are_taken_and_not_written_to(encoder, recwarn):
    pixel_BSSC = pixels(2)
    before = pixel_BSSC.copy()
    pixel_BSSC.flags.writeable = False
    encoder.encode_images(pixel_BSSC)
    assert (pixel_BSSC == before).all()
    assert not recwarn.list


def test_prompts_get_open_clips_embeddings_and_cut_ones_are_reported(encoder, reference):
    model, _, tokenizer = reference
    prompts = ["a photo of a cat.", "a photo of a dog which has floppy ears.", "very " * 40 + "long"]
    with torch.no_grad():
        theirs = model.encode_text(tokenizer(prompts), normalize=True).numpy()
    ours = encoder.encode_text(prompts)
    assert np.abs(ours.embedding_PD - theirs).max() < 1e-5
    assert ours.embedding_PD.dtype == np.float32
    assert ours.cut_P.tolist() == [False, False, True]


class WordTokenizer:
    """What transformers' tokenizers do, for open_clip's wrappers: a number a word, an end, padding."""

    cls_token_id, bos_token_id, eos_token_id = 7, 8, 1

    def __init__(self, pad_token_id):
        self.pad_token_id = pad_token_id

    def __call__(self, texts, *, max_length=None, truncation=False, **_):
        rows = [[10 + len(word) for word in text.split()] for text in texts]
        if not truncation:
            return {"input_ids": rows}
        rows = [[*row[: max_length - 1], self.eos_token_id] for row in rows]
        padded = [row + [self.pad_token_id] * (max_length - len(row)) for row in rows]
        return SimpleNamespace(input_ids=torch.tensor(padded))


def wrapped(kind, pad, mode=""):
    """An open_clip tokenizer around WordTokenizer; its own constructor would ask a hub for files."""
    tokenizer = object.__new__(kind)
    tokenizer.tokenizer, tokenizer.context_length = WordTokenizer(pad), 24
    tokenizer.tokenizer_mode, tokenizer.strip_sep_token, tokenizer.clean_fn = mode, False, str.strip
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "room"),
    [
        (open_clip.SimpleTokenizer(context_length=24), 22),
        (wrapped(SigLipTokenizer, pad=1), 23),
        (wrapped(HFTokenizer, pad=1), 23),
        (wrapped(HFTokenizer, pad=0), 23),
        (wrapped(HFTokenizer, pad=0, mode="clips"), 21),
    ],
    ids=["clip", "siglip", "hf pads with 1", "hf pads with 0", "class token at the end"],
)
def test_a_prompt_is_cut_where_it_is_longer_than_the_context_whatever_the_tokenizer_pads_with(
    encoder, tokenizer, room, monkeypatch
):
    monkeypatch.setattr(encoder, "_tokenizer", tokenizer)
    prompts = ["cat", "cat " * (room - 1), "cat " * room, "cat " * (room + 1), "cat " * 90]
    assert encoder.encode_text(prompts).cut_P.tolist() == [False, False, False, True, True]


def test_a_broken_network_gives_rows_of_nan_never_numbers(model_dir):
    encoder = load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cpu", precision="fp32")
    broken = encoder._model.encode_image

    def encode_image(x, normalize=False):
        y = broken(x, normalize=normalize).clone()
        y[0], y[1], y[2] = float("inf"), 0.0, float("nan")
        return y

    encoder._model.encode_image = encode_image
    image_BD = encoder.encode_images(pixels(5))
    assert np.isnan(image_BD[:3]).all(axis=1).tolist() == [True, True, True]
    assert np.isfinite(image_BD[3:]).all()


def test_bf16_stays_close_to_fp32(model_dir, encoder):
    half = load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cpu", precision="bf16")
    pixel_BSSC = pixels(4)
    assert cosine(half.encode_images(pixel_BSSC), encoder.encode_images(pixel_BSSC)).min() > 0.999


def agree(encoder, reference_encoder, least):
    batches = [pixels(16, seed=i) for i in range(9)]
    with encoder.workers() as workers:
        pending, results = [], []
        for batch in batches:
            pending.append(workers.submit(batch))
            if len(pending) > workers.ahead:
                results.append(pending.pop(0).result().copy())
        results += [one.result() for one in pending]
    for batch, result in zip(batches, results, strict=True):
        assert cosine(result, reference_encoder.encode_images(batch)).min() > least


def test_workers_give_the_batches_in_order_and_put_torchs_threads_back(encoder):
    before = torch.get_num_threads()
    agree(encoder, encoder, 0.99999)
    assert torch.get_num_threads() == before


def test_the_number_of_threads_does_not_change_a_bit_in_the_workers(encoder):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with encoder.workers() as workers:
                found.append(workers.submit(pixels(32)).result())
    finally:
        torch.set_num_threads(before)
    assert (found[0] == found[1]).all()


@pytest.mark.gpu
def test_fp16_on_cuda_agrees_with_fp32_on_the_cpu_batch_after_batch(model_dir, encoder):
    agree(load_encoder(resolve_model(f"local-dir:{model_dir}", None), device="cuda", precision="fp16"), encoder, 0.999)
