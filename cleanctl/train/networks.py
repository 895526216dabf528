"""Networks by name: the paper's PreAct-ResNet-18 and VGG19-BN, a small one for processors, and whatever timm knows.

In: a name, the number of classes. Out: a `torch.nn.Module` that takes (B, 3, S, S) normalised float images and gives
(B, C) logits. Nothing is downloaded unless `weights="download"` says so; nothing is left on disk.

    preact-resnet18[-wW]   docs/method.md B.4; W is the width of the first stage (64 in the paper)
    fastconv[-wW]          eight convolutions that shrink the image early: a fit for a few processor cores
    vgg19-bn               torchvision's layout with the paper's head
    clip:MODEL[ TAG]       CLIP's image tower with a fresh head (clip_network.py)
    anything else          timm, e.g. resnet50, inception_resnet_v2, convnext_tiny
"""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from cleanctl.errors import InputError, UsageError
from cleanctl.train.clip_network import MODELS_WEIGHTS, build_clip_classifier, is_clip

# What "download" means for a name where timm's default is not what the released code starts from.
PUBLISHED_WEIGHTS = {"resnet50": "resnet50.tv_in1k"}


def build_network(
    name: str, num_classes: int, *, weights: str | None = None, image_size: int | None = None
) -> nn.Module:
    """A network with a head for `num_classes`: that of the weights where it has as many classes, else a fresh one.

    weights: None (from scratch), a file with a state dict (.safetensors, or a .pt that loads with weights_only),
    "download" (timm fetches ImageNet weights), or for a tower of CLIP's "model" (the weights of its name). image_size:
    what it must take, in pixels. Raises UsageError for an unknown name or a size that the network does not take,
    InputError for weights that cannot be had or do not fit.
    """
    network = _named_network(name, num_classes, weights)
    if weights not in (None, "download", MODELS_WEIGHTS):
        load_weights(network, Path(str(weights)))
    if image_size is not None:
        _require_size(network, name, image_size)
    return network


def _named_network(name: str, num_classes: int, weights: str | None) -> nn.Module:
    if is_clip(name):
        return build_clip_classifier(name, num_classes, weights)
    if name == "vgg19-bn":
        network: nn.Module = vgg19_bn(num_classes)
    elif match := re.fullmatch(r"preact-resnet18(?:-w([1-9]\d{0,3}))?", name):
        network = PreActResNet18(num_classes, width=int(match[1] or 64))
    elif match := re.fullmatch(r"fastconv(?:-w([1-9]\d{0,3}))?", name):
        network = FastConv(num_classes, width=int(match[1] or 32))
    else:
        return _timm_network(name, num_classes, download=weights == "download")
    if weights == "download":
        raise UsageError(
            f"There are no published weights to download for {name}.",
            do="Train it from scratch, give a file of weights, or take a timm network.",
        )
    return network


def _require_size(network: nn.Module, name: str, image_size: int) -> None:
    """One forward pass in evaluation mode, which changes nothing."""
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as exc:
        raise UsageError(
            f"The network {name} cannot take images of {image_size} pixels: {exc}.",
            do="Give a size that it takes, e.g. --image-size 224, or another --network.",
        ) from exc
    network.train()


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice. The shortcut carries the activated ReLU(BN(x)), not x: a quirk of the release
    (docs/method.md F.24)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same_shape else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        residual = self.conv2(F.relu(self.bn2(self.conv1(active))))
        out: Tensor = residual + self.shortcut(active)
        return out


class PreActResNet18(nn.Module):
    """docs/method.md B.4: a BN-ReLU stem, blocks [2, 2, 2, 2], average pool, no final BN or ReLU, default init."""

    def __init__(self, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks += [
                PreActBlock(inputs, outputs, stride=1 if stage == 0 else 2),
                PreActBlock(outputs, outputs, stride=1),
            ]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))
        return out


class FastConv(nn.Module):
    """A plain convolutional network whose first layer already halves the image.

    Processors spend their time where the maps are large; after a 4×4 stride-2 patch layer the rest runs on 16×16 maps
    and smaller for a 32-px input. Widths are W, 2W, 4W, 8W over four resolutions, with one residual pair at the last
    two, where depth is cheap.
    """

    def __init__(self, num_classes: int, *, width: int = 32) -> None:
        super().__init__()
        w1, w2, w3, w4 = width, 2 * width, 4 * width, 8 * width
        self.body = nn.Sequential(
            _conv_bn_relu(3, w1, kernel=4, stride=2, padding=1),
            _conv_bn_relu(w1, w2),
            nn.MaxPool2d(2),
            _conv_bn_relu(w2, w3),
            _Residual(w3),
            nn.MaxPool2d(2),
            _conv_bn_relu(w3, w4),
            _Residual(w4),
        )
        self.head = nn.Linear(w4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.adaptive_max_pool2d(self.body(x), 1).flatten(1))
        return out


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pair = nn.Sequential(_conv_bn_relu(width, width), _conv_bn_relu(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.pair(x)
        return out


def _conv_bn_relu(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, padding: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def vgg19_bn(num_classes: int) -> nn.Module:
    """torchvision's VGG19-BN, head as in docs/method.md B.4: dropout 0.2, weights N(0, 0.001²), default last layer."""
    from torchvision.models import vgg19_bn as torchvision_vgg19_bn

    network = torchvision_vgg19_bn(weights=None, dropout=0.2, init_weights=True)
    hidden = [layer for layer in network.classifier if isinstance(layer, nn.Linear)][:2]
    for layer in hidden:
        nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(layer.bias)
    network.classifier[-1] = nn.Linear(4096, num_classes)
    return network


def _timm_network(name: str, num_classes: int, *, download: bool) -> nn.Module:
    import timm

    base, tag, _ = name.partition(".")
    if not timm.is_model(base) or (tag and name not in timm.list_pretrained(f"{base}.*")):
        near = timm.list_models(f"*{base}*")[:5] if not tag else timm.list_pretrained(f"{base}.*")[:5]
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise UsageError(
            f"There is no network named {name!r}.",
            do=f"Use preact-resnet18, fastconv, vgg19-bn (add -wN for a width) or any timm name.{hint}",
        )
    published = PUBLISHED_WEIGHTS.get(name, name)
    try:
        network: nn.Module = timm.create_model(
            published if download else name, num_classes=num_classes, pretrained=download
        )
    except (OSError, RuntimeError, ValueError) as exc:
        if not download:
            raise UsageError(f"timm cannot build {name!r} as a classifier of images: {exc}.") from exc
        raise InputError(
            f"The weights of {published} cannot be downloaded: {exc}", do="Give a file: --network-weights FILE"
        ) from exc
    head = getattr(network, "fc", None)
    fresh = not download or num_classes != network.pretrained_cfg["num_classes"]  # type: ignore[index]
    if fresh and name.startswith("resnet") and isinstance(head, nn.Linear):
        nn.init.normal_(head.weight, std=0.001)  # docs/method.md B.4: ResNet-50's head is N(0, 0.001²)
        nn.init.zeros_(head.bias)
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """Fills `network` from a file of tensors, the classification head left out where its shape differs."""
    if not path.is_file():
        raise InputError(f"There is no file of weights at {path}.", do="Give an existing file.")
    given = _read_state_dict(path)
    own = network.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    unknown = [key for key in own if key not in fitting and not _is_head(key)]
    if unknown:
        raise InputError(
            f"{path} does not fit the network: {len(unknown)} of {len(own)} tensors are missing or differ in "
            f"shape, the first is {unknown[0]!r}.",
            do="Give weights of the same network.",
        )
    network.load_state_dict(fitting, strict=False)


# torch's unpickler meets any byte as an instruction, so that a file of another kind ends in almost any of these.
_UNREADABLE = (
    *(RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, pickle.UnpicklingError, SafetensorError),
)


def _is_head(key: str) -> bool:
    return key.split(".")[0] in ("head", "fc", "classifier", "classif", "last_linear")


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise InputError(
            f"{path} cannot be read as weights: {reason if len(reason) <= 200 else reason[:197] + '...'}",
            do="Give a state dict as .safetensors, or as a .pt that holds tensors only.",
        ) from exc
    state = loaded.get("state_dict", loaded.get("model", loaded)) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds a {type(state).__name__} without tensors, not a state dict.")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}
