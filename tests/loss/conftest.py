"""Every test of the loss runs twice: with a sample a block, and without blocks."""

from __future__ import annotations

import math

import pytest

import anchorloss.loss


@pytest.fixture(params=[1, math.inf], ids=["blocks", "whole"], autouse=True)
def block(request, monkeypatch):
    monkeypatch.setattr(anchorloss.loss, "BLOCK", request.param)
    return request.param
