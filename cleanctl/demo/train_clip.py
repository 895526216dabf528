"""Trains the open_clip model that the package ships: `python -m cleanctl.demo.train_clip [--out FOLDER]`.

A ModifiedResNet of width 16 on 64 px beside a two-layer text tower of width 32, joint space 128-d, trained from
nothing by CLIP's own contrastive loss on drawn images and written captions. Its images come from a seed stream that the
demo's dataset never uses, with the true shape in the caption; no image or label of a demo dataset is seen.
`--tower vit --out FOLDER --batch-size 128` makes a ViT of four blocks of width 96 on patches of 16 px instead, which is
not shipped: it is for trying what `adapt` tunes of a ViT (bench/adapt_shapes.py).

Leaves open_clip_config.json and open_clip_model.safetensors (fp16) in the folder: what `--model local-dir:` loads.
It takes about five minutes on two idle cores; the result differs a little between machines, as sums of floats do.
Dimensions: N images, B of a batch, S side in pixels, D joint space, L tokens.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from PIL import Image
from safetensors.torch import save_file

from cleanctl.demo.captions import write_caption
from cleanctl.demo.draw import draw_jpeg
from cleanctl.runtime import cpu_count, seed_everything

STREAM = 7  # draw.py uses 0, 1 and 2
MODEL_FOLDER = Path(__file__).parent / "model"
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [2, 2, 2, 2], "width": 16, "head_width": 64},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
TOWERS: dict[str, dict[str, Any]] = {
    "resnet": CONFIG["model_cfg"]["vision_cfg"],
    "vit": {"image_size": 64, "layers": 4, "width": 96, "head_width": 32, "patch_size": 16},
}
SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", choices=TOWERS, default="resnet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    out = options.out or (MODEL_FOLDER if options.tower == "resnet" else None)
    if out is None:
        parser.error("--tower vit needs --out")

    seed_everything(options.seed)
    images_NSSC, captions = draw_pairs(options.seed, options.images)
    out.mkdir(parents=True, exist_ok=True)
    config = configuration(options.tower)
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = open_clip.CLIP(**config["model_cfg"])
    tokens_NL = open_clip.SimpleTokenizer(context_length=32)(captions)
    hide_unseen_tokens(model, tokens_NL)
    fit(model, images_NSSC, tokens_NL, options)
    save(model, out)


def configuration(tower: str) -> dict[str, Any]:
    """What goes into open_clip_config.json, for a name of TOWERS."""
    return {**CONFIG, "model_cfg": {**CONFIG["model_cfg"], "vision_cfg": TOWERS[tower]}}


def draw_pairs(seed: int, count: int) -> tuple[np.ndarray, list[str]]:
    """`count` images, uint8 (N, 64, 64, 3), and a caption of each."""
    jobs = [(seed, start, min(start + 500, count)) for start in range(0, count, 500)]
    with ProcessPoolExecutor(cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(_draw_some, jobs))
    return np.concatenate([pixels for pixels, _ in parts]), [text for _, texts in parts for text in texts]


def _draw_some(job: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    seed, start, stop = job
    pixels, captions = [], []
    for number in range(start, stop):
        scene, data = draw_jpeg(seed, STREAM, number)
        pixels.append(np.asarray(_middle_square(Image.open(io.BytesIO(data)))))
        captions.append(write_caption(scene, np.random.default_rng([seed, STREAM + 1, number])))
    return np.stack(pixels), captions


def _middle_square(image: Image.Image) -> Image.Image:
    """What open_clip's preprocessing makes of an image: short side to SIZE, the middle kept."""
    scale = SIZE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def hide_unseen_tokens(model: open_clip.CLIP, tokens_NL: torch.Tensor) -> None:
    """Zeroes the embeddings of words that no caption holds.

    They stay zero (no gradient reaches them), so an unknown word in a prompt is silent rather than random, and the 3 MB
    of them compress to nothing in a wheel.
    """
    seen = torch.zeros(model.vocab_size, dtype=torch.bool)
    seen[tokens_NL.unique()] = True
    with torch.no_grad():
        model.token_embedding.weight[~seen] = 0


def fit(model: open_clip.CLIP, images_NSSC: np.ndarray, tokens_NL: torch.Tensor, options: argparse.Namespace) -> None:
    pixel_N3SS = torch.from_numpy(images_NSSC).permute(0, 3, 1, 2).contiguous()
    steps = options.epochs * (len(pixel_N3SS) // options.batch_size)
    decayed = [p for p in model.parameters() if p.ndim > 1 and p is not model.token_embedding.weight]
    plain = [p for p in model.parameters() if not any(p is q for q in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps, pct_start=0.1)
    contrast = ClipLoss()
    model.train().to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    for epoch in range(options.epochs):
        losses = []
        for row_B in torch.randperm(len(pixel_N3SS)).split(options.batch_size)[: len(pixel_N3SS) // options.batch_size]:
            image_BD, text_BD, scale = model(jitter(pixel_N3SS[row_B]), tokens_NL[row_B])
            loss = contrast(image_BD, text_BD, scale)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, float(np.log(100)))
            losses.append(loss.item())
        sys.stderr.write(f"epoch {epoch + 1}/{options.epochs}  loss {np.mean(losses):.3f}\n")


def jitter(pixel_B3SS: torch.Tensor) -> torch.Tensor:
    """uint8 → normalised float32, mirrored and turned by quarter turns at random (one turn for a batch's half)."""
    image = pixel_B3SS.float().div_(255).sub_(0.5).div_(0.25)
    flip_B = torch.rand(len(image)) < 0.5
    image[flip_B] = image[flip_B].flip(3)
    turned = torch.rand(len(image)) < 0.5
    image[turned] = image[turned].rot90(int(torch.randint(1, 4, ()).item()), (2, 3))
    shift = torch.randint(-4, 5, (2,)).tolist()
    return torch.roll(image, shift, (2, 3)).contiguous(memory_format=torch.channels_last)


def save(model: open_clip.CLIP, folder: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(half, folder / "open_clip_model.safetensors")


if __name__ == "__main__":
    main()
