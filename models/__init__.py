"""The networks: residual networks for 32x32 images."""

from __future__ import annotations

from models.resnet import ResNet, build

__all__ = ["ResNet", "build"]
