"""Image operations on batches of bytes, each image with its own strength, on whatever device the batch lives.

All take uint8 (B, 3, H, W) and float32 (B,) strengths and give uint8 of the same shape. They repeat Pillow's
arithmetic, so that an augmentation means here what it means in the published code; where pixels come from outside the
image they are grey 128.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 128


def _blend(base: Tensor, image: Tensor, factor_B: Tensor) -> Tensor:
    """base + factor·(image − base), clipped and cut to whole numbers as Pillow's ImageEnhance does."""
    mixed = torch.lerp(base.expand_as(image), image, factor_B.view(-1, 1, 1, 1))
    return mixed.clamp_(0, 255).to(torch.uint8)


def _luma(image: Tensor) -> Tensor:
    """Pillow's conversion to L, as whole numbers in float32 (B, 1, H, W)."""
    red, green, blue = image.to(torch.int32).split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).float()


def color(image: Tensor, factor_B: Tensor) -> Tensor:
    return _blend(_luma(image), image.float(), factor_B)


def contrast(image: Tensor, factor_B: Tensor) -> Tensor:
    mean = (_luma(image).mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    return _blend(mean, image.float(), factor_B)


def brightness(image: Tensor, factor_B: Tensor) -> Tensor:
    return _blend(torch.zeros_like(image[:, :1], dtype=torch.float32), image.float(), factor_B)


def sharpness(image: Tensor, factor_B: Tensor) -> Tensor:
    exact = image.float()
    kernel = torch.ones(3, 1, 3, 3, device=image.device)
    kernel[:, :, 1, 1] = 5.0
    smooth = exact.clone()
    smooth[:, :, 1:-1, 1:-1] = (F.conv2d(exact, kernel, groups=3) / 13 + 0.5).floor()
    return _blend(smooth, exact, factor_B)


def posterize(image: Tensor, bits_B: Tensor) -> Tensor:
    mask = (256 - torch.exp2(8 - bits_B)).to(torch.uint8)
    return image & mask.view(-1, 1, 1, 1)


def solarize(image: Tensor, threshold_B: Tensor) -> Tensor:
    return torch.where(image.float() < threshold_B.view(-1, 1, 1, 1), image, 255 - image)


def invert(image: Tensor, _unused_B: Tensor) -> Tensor:
    return 255 - image


def autocontrast(image: Tensor, _unused_B: Tensor) -> Tensor:
    low = image.amin(dim=(2, 3), keepdim=True).float()
    span = image.amax(dim=(2, 3), keepdim=True).float() - low
    stretched = ((image.float() - low) * (255 / span.clamp(min=1))).clamp_(0, 255).to(torch.uint8)
    return torch.where(span > 0, stretched, image)


def equalize(image: Tensor, _unused_B: Tensor) -> Tensor:
    """Each channel's values spread evenly; channels of one value, or of too few pixels to spread, stay."""
    flat = image.flatten(2).flatten(0, 1).long()
    count = torch.zeros(len(flat), 256, dtype=torch.long, device=image.device)
    count.scatter_add_(1, flat, torch.ones_like(flat))
    last = count.gather(1, flat.amax(dim=1, keepdim=True))
    step = (flat.shape[1] - last) // 255
    below = count.cumsum(dim=1) - count
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=image.device))
    return table.gather(1, flat).to(torch.uint8).view(image.shape)


def cutout(image: Tensor, size_B: Tensor, center_B2: Tensor) -> Tensor:
    """A square of `size` pixels in ImageNet's mean colour, cut at the borders; center_B2 in [0, 1) of the sides."""
    height, width = image.shape[-2:]
    half = (size_B / 2).floor().view(-1, 1)
    y, x = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
    center_y, center_x = (center_B2[:, :1] * height).floor(), (center_B2[:, 1:] * width).floor()
    rows = (y >= center_y - half) & (y < center_y + half)
    columns = (x >= center_x - half) & (x < center_x + half)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    # Filled channel by channel: a small tensor of the colour would have to be copied to the device.
    return torch.cat([torch.where(inside, value, image[:, k : k + 1]) for k, value in enumerate((125, 122, 113))], 1)


def shear_x(image: Tensor, strength_B: Tensor) -> Tensor:
    """Row y is read `strength·(y + ½)` pixels further right, by Pillow's cubic (a = −1)."""
    height, width = image.shape[-2:]
    device = image.device
    y = torch.arange(height, device=device) + 0.5
    x = torch.arange(width, device=device) + 0.5
    source_BHW = x.view(1, 1, -1) + (strength_B.view(-1, 1) * y).unsqueeze(2)
    inside_BHW = (source_BHW >= 0) & (source_BHW < width)
    left_BHW = (source_BHW - 0.5).floor()
    d = source_BHW - 0.5 - left_BHW
    weights = (-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) + d**3)
    exact = image.float()
    total = torch.zeros_like(exact)
    for step, weight in enumerate(weights, start=-1):
        at = (left_BHW + step).clamp(0, width - 1).long().unsqueeze(1).expand_as(image)
        total += weight.unsqueeze(1) * exact.gather(3, at)
    sheared = (total + 0.5).floor().clamp_(0, 255).to(torch.uint8)
    return torch.where(inside_BHW.unsqueeze(1), sheared, GREY)


def shear_y(image: Tensor, strength_B: Tensor) -> Tensor:
    return shear_x(image.transpose(2, 3), strength_B).transpose(2, 3)


def translate_x(image: Tensor, share_B: Tensor) -> Tensor:
    """Reads `share` of the width further right, nearest pixel."""
    width = image.shape[3]
    x = torch.arange(width, device=image.device) + 0.5
    source_BW = (x + (share_B * width).view(-1, 1)).floor()
    inside = ((source_BW >= 0) & (source_BW < width)).view(-1, 1, 1, width)
    at = source_BW.clamp(0, width - 1).long().view(-1, 1, 1, width).expand_as(image)
    return torch.where(inside, image.gather(3, at), GREY)


def translate_y(image: Tensor, share_B: Tensor) -> Tensor:
    return translate_x(image.transpose(2, 3), share_B).transpose(2, 3)


def rotate(image: Tensor, degrees_B: Tensor) -> Tensor:
    """Counter-clockwise about the centre, nearest pixel."""
    height, width = image.shape[-2:]
    angle = torch.deg2rad(degrees_B).view(-1, 1, 1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    y = (torch.arange(height, device=image.device) + 0.5 - height / 2).view(1, -1, 1)
    x = (torch.arange(width, device=image.device) + 0.5 - width / 2).view(1, 1, -1)
    source_x = (cos * x - sin * y + width / 2).floor()
    source_y = (sin * x + cos * y + height / 2).floor()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    at = (source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)).long()
    turned = image.flatten(2).gather(2, at.flatten(1).unsqueeze(1).expand(-1, 3, -1)).view_as(image)
    return torch.where(inside.unsqueeze(1), turned, GREY)
