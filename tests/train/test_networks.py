"""Networks by name, exactly as published where they are."""

from __future__ import annotations

import random
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


@pytest.mark.parametrize("name", ["fastconv-w4", "resnet10t"])
def test_a_head_that_fits_is_kept(tmp_path: Path, name: str) -> None:
    donor = build_network(name, 7)
    head = "fc" if name == "resnet10t" else "head"
    nn.init.uniform_(getattr(donor, head).weight)
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    network = build_network(name, 7, weights=str(tmp_path / "w.pt"))
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in donor.state_dict().items())
    other = build_network("resnet10t", 5) if name == "resnet10t" else None
    if other is not None:
        torch.save(other.state_dict(), tmp_path / "o.pt")
        fresh = build_network(name, 7, weights=str(tmp_path / "o.pt"))
        assert fresh.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)


def test_resnet50s_head_and_the_weights_that_download_means(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    fresh = build_network("resnet50", 14)
    assert fresh.fc.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert fresh.fc.bias.abs().max() == 0
    asked = []
    original = timm.create_model

    def create(name: str, *, num_classes: int, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return original(name, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", create)
    fetched = build_network("resnet50", 14, weights="download")
    assert asked == [("resnet50.tv_in1k", True)]
    assert fetched.fc.bias.abs().max() == 0
    # With as many classes as the weights have, their head is kept (timm's own init here, whose bias is not zero).
    assert build_network("resnet50", 1000, weights="download").fc.bias.abs().max() > 0


def test_weights_that_cannot_be_fetched_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"resnet50\.tv_in1k cannot be downloaded"):
        build_network("resnet50", 10, weights="download")  # the tests run with HF_HUB_OFFLINE


ODD = [b"", b"root:x:0:0:root:/root:/bin/bash\n", b"\x80\x02]q\x00.", b"PK\x03\x04", b"[1]", b"\x93NUMPY"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
@pytest.mark.parametrize("content", ODD)
def test_any_other_file_is_no_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"odd{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=r"weights|state dict"):
        build_network("fastconv-w4", 7, weights=str(tmp_path / f"odd{suffix}"))


def test_random_bytes_are_no_weights(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(300):
        (tmp_path / "odd.pt").write_bytes(rng.randbytes(rng.randint(1, 60)))
        with pytest.raises(InputError):
            build_network("fastconv-w4", 7, weights=str(tmp_path / "odd.pt"))


@pytest.mark.parametrize("name", ["resnet18d..", "resnet18d.nobody", "resnet18d.", ".", "fastconv-w0"])
def test_a_name_that_nothing_has_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="network"):
        build_network(name, 10)


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", 32), ("inception_resnet_v2", 32)])
def test_a_network_that_does_not_take_the_size_says_so(name: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot take images of {size} pixels"):
        build_network(name, 10, image_size=size)


def test_asking_whether_a_size_fits_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    plain = build_network("fastconv-w4", 7)
    torch.manual_seed(0)
    asked = build_network("fastconv-w4", 7, image_size=32)
    assert asked.training
    assert all(torch.equal(value, asked.state_dict()[key]) for key, value in plain.state_dict().items())


def test_weights_of_another_network_or_with_code_inside_are_refused(tmp_path: Path) -> None:
    torch.save(build_network("fastconv-w8", 7).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match="does not fit"):
        build_network("fastconv-w4", 7, weights=str(tmp_path / "other.pt"))

    torch.save({"state_dict": nn.Linear(1, 1)}, tmp_path / "code.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_network("fastconv-w4", 7, weights=str(tmp_path / "code.pt"))
