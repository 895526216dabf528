"""Networks by name, exactly as published where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cleanctl.errors import InputError, UsageError
from cleanctl.train.networks import PreActBlock, build_network


def test_preact_resnet18_has_the_published_size_and_shape() -> None:
    network = build_network("preact-resnet18", 10)
    # The well-known 11,171,146 of the plain PreAct-ResNet-18, and the stem's batch normalisation.
    assert sum(p.numel() for p in network.parameters()) == 11_171_146 + 2 * 64
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convolutions].count(2) == 6  # three stages, each with a shortcut
    assert all(c.bias is None for c in convolutions)


def test_the_identity_shortcut_carries_the_activated_tensor() -> None:
    block = PreActBlock(4, 4, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)  # the residual branch says nothing
    nn.init.uniform_(block.bn1.running_mean)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), F.relu(block.bn1(x)))
    assert not torch.equal(block(x), x)


def test_the_projection_reads_the_activated_tensor_and_has_no_batch_norm() -> None:
    block = PreActBlock(4, 8, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert isinstance(block.shortcut, nn.Conv2d)
    assert torch.equal(block(x), block.shortcut(F.relu(block.bn1(x))))


def test_a_width_scales_every_stage() -> None:
    narrow = build_network("preact-resnet18-w8", 3)
    assert narrow.head.in_features == 64
    assert narrow.stem[0].out_channels == 8


@pytest.mark.slow
def test_vgg19_bn_has_the_published_head() -> None:
    network = build_network("vgg19-bn", 10)
    first, second, last = (m for m in network.classifier if isinstance(m, nn.Linear))
    assert first.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert second.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert first.bias.abs().max() == 0
    assert last.weight.std().item() > 0.005
    assert {m.p for m in network.classifier if isinstance(m, nn.Dropout)} == {0.2}


def test_any_timm_network_by_name_with_resnets_small_head() -> None:
    network = build_network("resnet10t", 14)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 14)
    assert network.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)


def test_an_unknown_network_names_near_ones() -> None:
    with pytest.raises(UsageError, match="resnet50") as raised:
        build_network("esnet50", 10)
    assert "preact-resnet18" in str(raised.value)


def test_weights_of_a_file_are_taken_except_a_head_of_another_size(tmp_path: Path) -> None:
    donor = build_network("fastconv-w4", 100)
    torch.save({"state_dict": donor.state_dict(), "meta": {"epoch": 1}}, tmp_path / "w.pt")
    network = build_network("fastconv-w4", 7, weights=str(tmp_path / "w.pt"))
    assert torch.equal(network.body[0][0].weight, donor.body[0][0].weight)
    assert network.head.out_features == 7


def test_weights_of_another_network_or_with_code_inside_are_refused(tmp_path: Path) -> None:
    torch.save(build_network("fastconv-w8", 7).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="does not fit"):
        build_network("fastconv-w4", 7, weights=str(tmp_path / "other.pt"))

    torch.save({"state_dict": nn.Linear(1, 1)}, tmp_path / "code.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_network("fastconv-w4", 7, weights=str(tmp_path / "code.pt"))
