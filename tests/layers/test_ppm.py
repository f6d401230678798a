"""Pyramid pooling: torch's adaptive means, and what a constant image becomes."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from segfolio.layers.ppm import PyramidPooling, average_pool


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 12), (7, 5), (4, 9)], ids=str)
def test_means_and_their_gradients_are_torchs(bins: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, bins, bins, dtype=torch.float64)
    found, expected = average_pool(x, bins), adaptive_avg_pool2d(x, bins)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)))


@pytest.mark.parametrize("upsample_first", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_constant_map_stays_constant(align_corners: bool, upsample_first: bool) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(4, 2, align_corners=align_corners, upsample_first=upsample_first).eval()
    x = torch.randn(2, 4, 1, 1).expand(-1, -1, 7, 9)
    pooled = pyramid(x)
    assert pooled.shape == (2, pyramid.out_channels, 7, 9)
    torch.testing.assert_close(pooled, pooled[..., :1, :1].expand_as(pooled))
    assert pooled[:, 4:].std() > 0


@pytest.mark.parametrize("upsample_first", [False, True])
def test_levels_lie_behind_the_features_in_the_order_of_the_bins(upsample_first: bool) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(4, 2, bins=(1, 3), upsample_first=upsample_first).eval()
    x = torch.randn(1, 4, 8, 10)
    expected = [x]
    for project, bins in zip(pyramid.levels, (1, 3), strict=True):
        level = adaptive_avg_pool2d(x, bins)
        level = project(interpolate(level, (8, 10), mode="bilinear")) if upsample_first else project(level)
        expected.append(level if upsample_first else interpolate(level, (8, 10), mode="bilinear"))
    torch.testing.assert_close(pyramid(x), torch.cat(expected, 1))


def test_no_bins_are_no_pyramid() -> None:
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(PyramidPooling(4, 2, bins=())(x), x)
