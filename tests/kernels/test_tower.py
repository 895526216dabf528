"""Promises about the towers' elementwise steps: open_clip's own numbers, rounded once."""

from __future__ import annotations

import pytest
import torch
from cleanctl_kernels.tower import layer_norm_reference, quick_gelu_reference

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def triton_kernels():
    pytest.importorskip("triton")
    from cleanctl_kernels import tower_triton

    return tower_triton


@DTYPES
def test_layer_norm_is_open_clips(triton_kernels, dtype, generator, device):
    """Of a width that is no power of two, far from zero, with a row of one value."""
    from open_clip.transformer import LayerNormFp32

    x = (torch.randn(2, 3, 37, generator=generator) * 3 + 20).to(dtype)
    x[1, 2] = 4.0
    norm = LayerNormFp32(37, eps=1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(37, generator=generator))
        norm.bias.copy_(torch.randn(37, generator=generator))
        expected = norm(x)
        weight, bias = norm.weight.to(device), norm.bias.to(device)
        found = triton_kernels.layer_norm_triton(x.to(device), weight, bias, eps=1e-5)
    assert found.dtype == dtype
    torch.testing.assert_close(found.cpu(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    torch.testing.assert_close(layer_norm_reference(x, norm.weight, norm.bias, eps=1e-5), expected)


@DTYPES
def test_quick_gelu_is_open_clips_and_finite_far_out(triton_kernels, dtype, generator, device):
    from open_clip.transformer import QuickGELU

    x = torch.cat([torch.randn(1100, generator=generator) * 4, torch.tensor([-60000.0, -100.0, 0.0, 60000.0])])
    x = x.to(dtype)
    expected = QuickGELU()(x.double()).to(dtype)
    for found in (triton_kernels.quick_gelu_triton(x.to(device)).cpu(), quick_gelu_reference(x)):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
