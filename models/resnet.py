"""Residual networks for 32x32 images: He et al., Deep Residual Learning for Image Recognition (2015).

Two families share one class. The CIFAR ResNets of section 4.2 have depth 6n+2: a 3x3 convolution, three stages of n
basic blocks with 16, 32 and 64 channels, and a linear layer. ResNet-18, 34 and 50 are those of table 1 with a stem for
small images: a 3x3 convolution of stride 1 and no max pooling instead of the 7x7 convolution of stride 2. 50 is also
6*8+2; `resnet50` means the bottleneck network of table 1.

A shortcut whose shape changes is one of section 3.3's options, in either family:
A, parameter-free: every second pixel of every second row, new channels filled with zeros at the end;
B: a 1x1 convolution and batch normalisation.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
SHORTCUTS = ("A", "B")


def build(name: str, num_classes: int, shortcut: str = "A", prior_bias: bool = False) -> ResNet:
    """Build a freshly initialised network.

    Args:
        name: `resnet18`, `resnet34` or `resnet50` for the ImageNet ResNets with a CIFAR stem; any other `resnetD` with
            D = 6n+2 >= 8 for the CIFAR ResNets.
        num_classes: Number of classes C, at least 2.
        shortcut: `A` or `B`. The reference implementations use A for the CIFAR ResNets and B for the others.
        prior_bias: Start the last bias at -log((1 - pi) / pi), pi = 1 / C, instead of at 0, so that every sigmoid
            starts near 1 / C.

    Returns:
        The network on the CPU, in float32. Its weights are drawn from torch's global CPU generator alone.

    Raises:
        ValueError: An argument is out of range; the message names the choices.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut={shortcut!r}: must be one of {', '.join(SHORTCUTS)}")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: must be at least 2")
    depth = re.fullmatch(r"resnet([1-9][0-9]*)", name)
    with torch.device("cpu"):
        if name in IMAGENET_STAGES:
            block = Bottleneck if name == "resnet50" else BasicBlock
            network = ResNet(block, (64, 128, 256, 512), IMAGENET_STAGES[name], num_classes, shortcut)
        elif depth and int(depth[1]) >= 8 and int(depth[1]) % 6 == 2:
            network = ResNet(BasicBlock, (16, 32, 64), 3 * (int(depth[1]) // 6,), num_classes, shortcut)
        else:
            choices = (
                f"{', '.join(IMAGENET_STAGES)} or resnetD with D = 6n+2 >= 8 (resnet8, resnet20, resnet110)"
            )
            raise ValueError(f"name={name!r}: must be {choices}")
        if prior_bias:
            # pi = 1 / C, so (1 - pi) / pi = C - 1.
            nn.init.constant_(network.classifier.bias, -math.log(num_classes - 1))
    return network


class ResNet(nn.Module):
    """Stem, stages of residual blocks, mean over all pixels, linear layer.

    Every stage after the first halves the resolution. Convolutions start Kaiming-normal (fan out), batch normalisation at
    scale 1 and shift 0. The last linear layer starts as in fb.resnet.torch, the authors' later code: weights uniform in
    +-1/sqrt(features), which is also PyTorch's default, and bias 0.
    """

    def __init__(
        self,
        block: type[BasicBlock],
        widths: tuple[int, ...],
        counts: tuple[int, ...],
        num_classes: int,
        shortcut: str,
    ) -> None:
        """`widths` are the channels of the stages, before a bottleneck's expansion; `counts` their numbers of blocks."""
        super().__init__()
        channels = widths[0]
        self.stem = _layers((3, channels, 3, 1), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(channels, width, stride, shortcut))
                channels = width * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, C) from normalised float images (N, 3, H, W)."""
        features = self.blocks(self.stem(images))
        return self.classifier(features.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: figure 5, left."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, shortcut: str) -> None:
        """Convolve in `width` channels and return `width * expansion`; a `stride` of 2 halves the resolution."""
        super().__init__()
        self.residual = self.layers(channels, width, stride)
        self.shortcut = _shortcut(channels, width * self.expansion, stride, shortcut)

    def layers(self, channels: int, width: int, stride: int) -> nn.Sequential:
        """The convolutions of the block, each with its normalisation."""
        return _layers((channels, width, 3, stride), nn.ReLU(inplace=True), (width, width, 3, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, width * expansion, H / stride, W / stride)."""
        return F.relu(self.residual(features) + self.shortcut(features), inplace=True)


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 convolutions: figure 5, right. The 3x3 convolution carries the stride, as is now usual."""

    expansion = 4

    def layers(self, channels: int, width: int, stride: int) -> nn.Sequential:
        """The convolutions of the block, each with its normalisation."""
        first, second = (channels, width, 1, 1), (width, width, 3, stride)
        third = (width, width * self.expansion, 1, 1)
        return _layers(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), third)


class PaddedShortcut(nn.Module):
    """Option A: every `stride`-th pixel of every `stride`-th row, and channels of zeros; no parameters."""

    def __init__(self, new_channels: int, stride: int) -> None:
        """Append `new_channels` channels; `stride` is the ratio of the resolutions."""
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, c, H, W) to (N, c + new_channels, H / stride, W / stride)."""
        # The same pixels as a strided slice, whose backward pass is slower on a CPU.
        subsampled = F.avg_pool2d(features, 1, self.stride)
        return F.pad(subsampled, (0, 0, 0, 0, 0, self.new_channels))


def _shortcut(channels: int, new_channels: int, stride: int, option: str) -> nn.Module:
    if stride == 1 and channels == new_channels:
        return nn.Identity()
    if option == "A":
        return PaddedShortcut(new_channels - channels, stride)
    return _layers((channels, new_channels, 1, stride))


def _layers(*parts: tuple[int, int, int, int] | nn.Module) -> nn.Sequential:
    """Convolutions, given as (channels, new channels, size, stride), each with batch normalisation, and other layers."""
    layers: list[nn.Module] = []
    for part in parts:
        if isinstance(part, nn.Module):
            layers.append(part)
        else:
            channels, new_channels, size, stride = part
            layers.append(nn.Conv2d(channels, new_channels, size, stride, padding=size // 2, bias=False))
            layers.append(nn.BatchNorm2d(new_channels))
    return nn.Sequential(*layers)
