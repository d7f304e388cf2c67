"""Crops and flips against a plain loop over images, and the plan against the distributions it promises."""

from __future__ import annotations

import hashlib

import pytest
import torch
from scipy import stats
from torch import Tensor

from anchorloss.data.augmentation import EpochPlan, augment, normalize, pad_images, plan_epoch

MEAN, STD = (0.5070752, 0.4865489, 0.4409178), (0.2673343, 0.2564385, 0.2761505)


def pictures(count: int) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def slowly(image: Tensor, row: int, column: int, flip: bool) -> Tensor:
    """Pixel (y, x) of the crop is pixel (y + row − 4, x + column − 4) of the image, or black outside it."""
    crop = torch.zeros_like(image)
    for y in range(32):
        for x in range(32):
            source_y, source_x = y + row - 4, x + column - 4
            if 0 <= source_y < 32 and 0 <= source_x < 32:
                crop[:, y, 31 - x if flip else x] = image[:, source_y, source_x]
    return crop


def everything(plan: EpochPlan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return plan.order, plan.rows, plan.columns, plan.flip


def test_every_crop_and_flip_equals_the_plain_loop():
    images = pictures(7)
    places = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))[::3]
    rows, columns, flip = places[:, 0], places[:, 1], places[:, 2] == 1
    index = torch.arange(len(places)) % 7
    result = augment(pad_images(images), index, rows, columns, flip)
    assert result.dtype == torch.uint8
    for k, picture in enumerate(index.tolist()):
        expected = slowly(images[picture], int(rows[k]), int(columns[k]), bool(flip[k]))
        assert torch.equal(result[k], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_normalize_is_pixel_over_255_minus_mean_over_std(dtype, memory_format):
    images = pictures(6)
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (MEAN, STD))
    expected = (images.double() / 255 - mean) / std
    for layout in (torch.contiguous_format, torch.channels_last):
        result = normalize(images.contiguous(memory_format=layout), MEAN, STD, dtype, memory_format)
        assert result.dtype == dtype
        assert result.is_contiguous(memory_format=memory_format)
        # bf16 keeps 8 bits of a value, so half a unit in its last place.
        tolerance = 2e-6 if dtype == torch.float32 else 2**-8
        torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_padding_is_black_before_normalisation():
    zero = torch.zeros(1, dtype=torch.int64)
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    crop = normalize(augment(pad_images(white), zero, zero, zero, zero == 1), MEAN, STD)
    for channel in range(3):
        assert crop[0, channel, 0, 0].item() == pytest.approx(-MEAN[channel] / STD[channel], rel=1e-6)
        assert crop[0, channel, 4, 4].item() == pytest.approx((1 - MEAN[channel]) / STD[channel], rel=1e-6)


def test_a_plan_is_a_function_of_seed_and_epoch_alone():
    """The hash of it is that of every run that has been trained."""
    torch.manual_seed(1)
    plan_epoch(6, 7, 1000)
    parts = b"".join(part.numpy().tobytes() for part in everything(plan_epoch(5, 7, 1000)))
    assert hashlib.sha256(parts).hexdigest().startswith("cc5b14f4884a173d")


def test_plans_of_other_epochs_and_seeds_are_unrelated():
    plans = [plan_epoch(*at, 5000) for at in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))]
    for i, one in enumerate(plans):
        for other in plans[:i]:
            for a, b, chance in zip(
                everything(one), everything(other), (1 / 5000, 1 / 9, 1 / 9, 1 / 2), strict=True
            ):
                agreeing = int((a == b).sum())
                assert stats.binomtest(agreeing, 5000, chance).pvalue > 1e-6


def test_a_plan_visits_every_image_once_in_a_new_order():
    order = plan_epoch(0, 0, 5000).order
    assert torch.equal(order.sort().values, torch.arange(5000))
    assert abs(stats.spearmanr(order.numpy(), range(5000)).statistic) < 0.06


def test_row_column_and_flip_are_uniform_and_independent_of_one_another_and_of_the_order():
    plan = plan_epoch(11, 3, 50_000)
    together = (plan.rows * 9 + plan.columns) * 2 + plan.flip.long()
    assert stats.chisquare(torch.bincount(together, minlength=162)).pvalue > 1e-4
    for part in (plan.rows, plan.columns, plan.flip):
        assert abs(stats.spearmanr(plan.order, part).statistic) < 0.02
        # Of neighbours in the epoch, too: each image has its own draw.
        assert abs(stats.spearmanr(part[1:], part[:-1]).statistic) < 0.02
