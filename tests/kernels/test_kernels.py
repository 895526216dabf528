"""Each kernel and each twin, in numpy and in torch, computes what its reference does, at odd shapes, in every dtype."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
import torch
from cleanctl_kernels.mixture import Mixtures, Ragged, mixture_em_reference, mixture_em_tiles
from cleanctl_kernels.pixels import Window, pixels_to_input_cpu, pixels_to_input_reference
from cleanctl_kernels.prompts import PromptBank, prompt_bank
from cleanctl_kernels.softmax import softmax_residual_in_place, softmax_residual_reference
from cleanctl_kernels.zeroshot import (
    class_logits,
    pooled_and_nearest,
    zeroshot_stats_blocked,
    zeroshot_stats_reference,
)


def triton_of(module, name):
    """The kernel's entry; machines without triton skip."""
    pytest.importorskip("triton")
    import importlib

    return getattr(importlib.import_module(f"cleanctl_kernels.{module}"), name)


def in_numpy(values):
    """Tensors of a tuple, or a prompt bank, as numpy arrays of the same memory."""
    if isinstance(values, PromptBank):
        return replace(values, scaled_PD=values.scaled_PD.numpy(), spare=[])
    if hasattr(values, "_fields"):
        return type(values)(*map(in_numpy, values))
    return values.numpy() if isinstance(values, torch.Tensor) else values


def in_torch(values):
    return type(values)(*(one if isinstance(one, torch.Tensor) else torch.from_numpy(one) for one in values))


def twin(path, function, *arguments, **options):
    """What a twin computes in numpy or in torch, as tensors."""
    if path == "numpy":
        arguments = map(in_numpy, arguments)
        options = {key: in_numpy(value) for key, value in options.items()}
    return in_torch(function(*arguments, **options))


def unit(*shape, generator):
    rows = torch.randn(*shape, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture
def generator(request):
    seed = zlib.crc32(request.node.name.encode()) % 2**31
    print("seed", seed)  # noqa: T201  shown when a test fails
    return torch.Generator().manual_seed(seed)


# ---- zeroshot_stats

COUNTS = {
    "equal": [4] * 7,
    "one class": [3],
    "one prompt": [1] * 33,
    "unequal": [1, 8, 5, 2, 7, 8, 1, 3, 6],
    "many": [20, 1, 17],
}
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 5e-4}  # 16 bits: two halves of the text


def case(counts, *, rows, dim, generator, temperature=0.07, pooling="sum", dtype=torch.float32):
    class_P = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    shuffle = torch.randperm(len(class_P), generator=generator)
    text_PD = unit(len(class_P), dim, generator=generator)
    bank = prompt_bank(text_PD, class_P[shuffle], num_classes=len(counts), temperature=temperature, pooling=pooling)
    image_BD = unit(rows, dim, generator=generator).to(dtype)
    label_B = torch.randint(0, len(counts), (rows,), generator=generator)
    return image_BD, label_B, bank


def assert_same(found, expected, tolerance):
    for name in ("p_label", "p_max", "p_second"):
        torch.testing.assert_close(
            getattr(found, name).cpu(), getattr(expected, name), atol=tolerance, rtol=10 * tolerance
        )
    log_tolerance = (10 if tolerance < 1e-3 else 1) * tolerance
    torch.testing.assert_close(found.log_p_label.cpu(), expected.log_p_label, atol=log_tolerance, rtol=log_tolerance)
    torch.testing.assert_close(found.entropy.cpu(), expected.entropy, atol=10 * tolerance, rtol=10 * tolerance)
    sure = expected.p_max - expected.p_second > 2 * tolerance
    assert (found.suggested.cpu()[sure] == expected.suggested[sure]).all()


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.07, 0.005])
@pytest.mark.parametrize("path", ["numpy", "torch"])
def test_the_twin_of_zeroshot_stats_is_exact(path, counts, pooling, temperature, generator, monkeypatch):
    import cleanctl_kernels.prompts as module

    monkeypatch.setattr(module, "TILE_BYTES", 4 * sum(counts) * 10)  # tiles of 10 rows, the last one short
    data = case(counts, rows=37, dim=19, generator=generator, temperature=temperature, pooling=pooling)
    found, expected = twin(path, zeroshot_stats_blocked, *data), zeroshot_stats_reference(*data)
    assert_same(found, expected, 1e-5 if temperature > 0.01 else 1e-4)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.07, 0.001])
@pytest.mark.parametrize("path", ["numpy", "torch"])
def test_pooled_and_nearest_logits_are_those_of_their_definitions(path, counts, pooling, temperature, generator):
    """At the lower temperature the exponentials of the logits themselves do not fit float32."""
    image, _, bank = case(counts, rows=37, dim=19, generator=generator, temperature=temperature, pooling=pooling)
    given = (in_numpy(image), in_numpy(bank)) if path == "numpy" else (image, bank)
    pooled, nearest = map(torch.as_tensor, pooled_and_nearest(*given))
    expected = class_logits(image, bank, dtype=torch.float64).float()
    torch.testing.assert_close(pooled, expected, atol=1e-5 / temperature, rtol=1e-5)
    logit_BP = image @ bank.scaled_PD.T
    of_class = [logit_BP[:, torch.as_tensor(bank.class_P == k)].amax(1) for k in range(bank.num_classes)]
    torch.testing.assert_close(nearest, torch.stack(of_class, 1), atol=1e-5 / temperature, rtol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_the_zeroshot_kernel_agrees_with_its_reference(counts, dtype, generator, device):
    kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
    image, label, bank = case(counts, rows=67, dim=37, generator=generator, dtype=dtype)
    found = kernel(image.to(device), label.to(device), bank_on(bank, device))
    tolerance = 1e-3 if device == "cuda" and dtype == torch.float32 else TOLERANCE[dtype]  # tf32 on the GPU
    assert_same(found, zeroshot_stats_reference(image, label, bank), tolerance)


def test_the_zeroshot_kernel_survives_small_temperatures_and_mean_pooling(generator, device):
    kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
    image, label, bank = case(
        COUNTS["unequal"], rows=65, dim=16, generator=generator, temperature=0.004, pooling="mean"
    )
    found = kernel(image.to(device), label.to(device), bank_on(bank, device))
    assert torch.isfinite(found.entropy).all()
    assert_same(found, zeroshot_stats_reference(image, label, bank), 2e-2 if device == "cuda" else 2e-4)


def test_two_halves_hold_what_float32_holds(generator):
    triton_of("zeroshot_triton", "in_halves")
    from cleanctl_kernels.zeroshot_triton import in_halves

    values = torch.randn(4096, generator=generator) * 10 ** (4 * torch.rand(4096, generator=generator) - 4)
    high, low = in_halves(values, torch.float16)
    error = (values.double() - high.double() - low.double()).abs()
    assert (error <= 2.0**-22 * values.abs() + 2.0**-25).all()
    assert in_halves(values, torch.float32)[0] is values


@pytest.mark.parametrize("dim", [512, 640, 1024])
def test_text_in_two_halves_gives_what_float64_gives(dim, generator, device):
    """The bound of zeroshot_triton's head; 16-bit text alone misses it tenfold and more."""
    kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
    image, label, bank = case(COUNTS["unequal"], rows=9, dim=dim, generator=generator)
    image = torch.nn.functional.normalize(image + bank.padded_QD[label * bank.slots] * 0.07).half()  # large logits
    label = (label + 1) % 9  # and of two classes that differ
    expected = zeroshot_stats_reference(image.double(), label, bank).log_p_label
    found = kernel(image.to(device), label.to(device), bank_on(bank, device)).log_p_label.cpu()
    split = 2 * (2.0**-22 / 0.07 + 2.0**-25 * dim**0.5)
    summed = 3e-4 if device == "cuda" else 1e-5  # tensor cores cut what they add up, the interpreter rounds
    assert (found - expected).abs().max() <= split + summed
    alone = replace(bank, scaled_PD=bank.scaled_PD.half().float(), spare=[])
    assert (zeroshot_stats_reference(image.double(), label, alone).log_p_label - expected).abs().max() > 10 * split


@pytest.mark.parametrize("tile", [(128, 256, 32), (128, 128, 64), (64, 128, 64)], ids=str)
def test_every_tile_gives_the_same(tile, generator, device):
    kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
    from cleanctl_kernels.zeroshot_triton import Tile

    image, label, bank = case([3] * 150, rows=131, dim=72, generator=generator, dtype=torch.float16)
    moved = image.to(device), label.to(device), bank_on(bank, device)
    found, usual = kernel(*moved, tile=Tile(*tile)), kernel(*moved)
    assert_same(found, type(usual)(*(column.cpu() for column in usual)), 2e-5)


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("path", ["numpy", "torch", "triton"])
def test_the_logarithm_is_right_where_the_probability_vanishes(path, pooling, generator, device):
    image, label, bank = case(
        COUNTS["unequal"], rows=65, dim=16, generator=generator, temperature=0.001, pooling=pooling
    )
    expected = zeroshot_stats_reference(image, label, bank)
    assert (expected.p_label == 0).any()
    if path != "triton":
        found = twin(path, zeroshot_stats_blocked, image, label, bank)
    else:
        kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
        found = kernel(image.to(device), label.to(device), bank_on(bank, device))
    tolerance = 1e-3 if device == "cpu" else 2  # tf32 on the GPU, of logits up to 1,000
    torch.testing.assert_close(found.log_p_label.cpu(), expected.log_p_label, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("path", ["numpy", "torch", "triton"])
def test_ties_go_to_the_lowest_class_index(path, device):
    text = torch.eye(4)[[1, 0, 0, 2, 2, 3]]  # class 4 repeats class 3, class 2 repeats class 1
    bank = prompt_bank(text, torch.arange(6), num_classes=6, temperature=0.5)
    image = torch.eye(4)[[0, 2, 3]]
    label = torch.tensor([2, 4, 5])
    if path != "triton":
        found = twin(path, zeroshot_stats_blocked, image, label, bank)
    else:
        kernel = triton_of("zeroshot_triton", "zeroshot_stats_triton")
        found = kernel(image.to(device), label.to(device), bank_on(bank, device))
    assert found.suggested.tolist() == [1, 3, 5]
    torch.testing.assert_close(found.p_label, found.p_max)
    assert found.p_second[0] == found.p_max[0]


def bank_on(bank, device):
    return replace(bank, scaled_PD=bank.scaled_PD.to(device), spare=[])


# ---- mixture_em


def ragged_of(sizes, generator, dtype=torch.float64):
    parts = []
    for size in sizes:
        clean = torch.rand(size, generator=generator) < 0.6
        low = 0.3 + 0.1 * torch.randn(size, generator=generator, dtype=torch.float64)
        high = 0.8 + 0.07 * torch.randn(size, generator=generator, dtype=torch.float64)
        parts.append(torch.where(clean, high, low))
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return Ragged(torch.cat(parts).to(dtype), offsets)


def ragged_on(ragged, device):
    return Ragged(*(item.to(device) for item in ragged))


SIZES = {"ragged": [5, 300, 0, 2, 41, 1, 1500], "equal": [64] * 9, "one class": [200], "pairs": [2, 2, 2]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("path", ["numpy", "torch", "triton"])
def test_mixtures_agree_with_their_reference(sizes, dtype, path, generator, device, monkeypatch):
    ragged = ragged_of(sizes, generator, dtype)
    expected = mixture_em_reference(ragged)
    if path != "triton":
        import cleanctl_kernels.mixture as module

        monkeypatch.setattr(module, "TILE_VALUES", {"cpu": 700})
        found = twin(path, mixture_em_tiles, ragged)
    else:
        kernel = triton_of("mixture_triton", "mixture_em_triton")
        found = kernel(ragged_on(ragged, device))
    # Where a component has no mass (a class of one), its mean and variance mean nothing.
    void_C2 = expected.weight < 1e-12
    for name in ("mean", "variance"):
        getattr(found, name)[void_C2] = getattr(expected, name)[void_C2] = 0.0
    for name in ("weight", "mean", "variance", "log_likelihood"):
        torch.testing.assert_close(
            getattr(found, name).cpu(), getattr(expected, name), atol=1e-8, rtol=1e-6, equal_nan=True
        )
    assert found.iterations.tolist() == expected.iterations.tolist()
    assert found.converged.tolist() == expected.converged.tolist()


def test_the_logarithm_of_products_is_that_of_all_values(generator, device, monkeypatch):
    """A thread's products are cut before they overflow, here after three values."""
    kernel = triton_of("mixture_triton", "mixture_em_triton")
    from cleanctl_kernels import mixture_triton

    assert mixture_triton.FACTORS < 1024  # 2¹⁰²⁴ is infinite
    monkeypatch.setattr(mixture_triton, "BLOCK", 16)
    monkeypatch.setattr(mixture_triton, "FACTORS", 3)
    ragged = ragged_of([0, 150, 33], generator)
    expected, found = mixture_em_reference(ragged, max_iter=2), kernel(ragged_on(ragged, device), max_iter=2)
    for name in ("log_likelihood", "variance"):
        values = getattr(found, name).cpu(), getattr(expected, name)
        torch.testing.assert_close(*values, atol=1e-9, rtol=1e-7, equal_nan=True)


@pytest.mark.parametrize("path", ["numpy", "torch", "triton"])
def test_mixtures_start_where_they_are_told(path, generator, device):
    ragged = ragged_of([120, 80], generator)
    start = mixture_em_reference(ragged, max_iter=2)
    expected = mixture_em_reference(ragged, start=start, max_iter=3, tol=0.0)
    if path != "triton":
        found = twin(path, mixture_em_tiles, ragged, start=start, max_iter=3, tol=0.0)
    else:
        kernel = triton_of("mixture_triton", "mixture_em_triton")
        moved = Mixtures(*(column.to(device) for column in start))
        found = kernel(ragged_on(ragged, device), start=moved, max_iter=3, tol=0.0)
    torch.testing.assert_close(found.mean.cpu(), expected.mean, atol=1e-9, rtol=1e-7)
    assert found.iterations.tolist() == [3, 3]
    assert not found.converged.any()


# ---- softmax_residual


@pytest.mark.parametrize(("classes", "rows"), [(1, 3), (2, 64), (65, 67), (130, 1)])
@pytest.mark.parametrize("path", ["numpy", "torch", "triton"])
def test_losses_and_residuals_agree_with_their_reference(path, classes, rows, generator, device):
    """Logits far from zero too, and rows of weight 0."""
    logit = 30 * torch.randn(classes, rows, generator=generator)
    intercept, weight = torch.randn(classes, generator=generator), torch.rand(rows, generator=generator)
    weight[0] = 0.0
    target = torch.randint(0, classes, (rows,), generator=generator)
    loss, residual = softmax_residual_reference(logit, intercept, target, weight)
    if path == "triton":
        found = logit.to(device)
        kernel = triton_of("softmax_triton", "softmax_residual_triton")
        found_loss = kernel(found, *(one.to(device) for one in (intercept, target, weight)))
    else:
        found = logit.clone()
        arguments = (found, intercept, target, weight)
        found_loss = softmax_residual_in_place(*(map(in_numpy, arguments) if path == "numpy" else arguments))
    torch.testing.assert_close(torch.as_tensor(found_loss).cpu().double(), loss, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.cpu().double(), residual, atol=1e-5, rtol=1e-4)


# ---- pixels_to_input

MEAN, STD = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("path", ["cpu", "triton"])
def test_pixels_are_cropped_flipped_and_normalised(path, dtype, generator, device):
    pixel = torch.randint(0, 256, (5, 13, 11, 3), dtype=torch.uint8, generator=generator)
    window = Window(
        top_B=torch.tensor([0, -3, 6, 2, -20]),
        left_B=torch.tensor([0, 4, -2, 1, 0]),
        flip_B=torch.tensor([False, True, False, True, False]),
        size=9,
        fill=77,
    )
    expected = pixels_to_input_reference(pixel, MEAN, STD, window, dtype=dtype)
    if path == "cpu":
        found = pixels_to_input_cpu(pixel, MEAN, STD, window, dtype=dtype)
    else:
        kernel = triton_of("pixels_triton", "pixels_to_input_triton")
        moved = Window(*(item.to(device) if isinstance(item, torch.Tensor) else item for item in window))
        found = kernel(pixel.to(device), MEAN.to(device), STD.to(device), moved, dtype=dtype)
    assert found.shape == (5, 3, 9, 9)
    assert found.is_contiguous(memory_format=torch.channels_last)
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=tolerance)
