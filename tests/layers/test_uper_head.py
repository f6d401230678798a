"""The head of UPerNet: convolutions of enlarged maps without enlarging them, and the head by the paper's steps."""

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate

from segfolio.layers.uper_head import BINS, UPerHead, convolve_enlarged


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (7, 9), (24, 31), (2, 4)], ids=str)
@pytest.mark.parametrize("small", [(3, 4), (1, 1), (2, 1)], ids=str)
def test_a_map_is_convolved_as_if_it_were_enlarged(small: tuple[int, int], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *small, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    found = convolve_enlarged(x, weight, size)
    enlarged = interpolate(x, size, mode="bilinear", align_corners=False)
    expected = conv2d(enlarged, weight, padding=1)
    torch.testing.assert_close(found, expected)
    outside = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y * outside).sum(), (x, weight)) for y in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_head_is_that_of_the_paper(training: bool) -> None:
    torch.manual_seed(0)
    head = UPerHead((3, 5, 6, 7), 8, 4, dropout=0.0).double().train(training)
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # the two passes see the same statistics
            nn.init.uniform_(module.running_var, 0.5, 2)
    sizes = ((24, 32), (12, 16), (6, 8), (3, 4))
    levels = [torch.randn(2, c, *size, dtype=torch.float64) for c, size in zip((3, 5, 6, 7), sizes, strict=True)]

    def up(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    last = levels[-1]
    pooled = [up(block(adaptive_avg_pool2d(last, bins)), last) for block, bins in zip(head.pooled, BINS, strict=True)]
    maps = [lateral(level) for lateral, level in zip(head.lateral, levels[:-1], strict=True)]
    maps.append(nn.Sequential.forward(head.bottleneck, torch.cat([last, *pooled], 1)))
    for index in (2, 1, 0):
        maps[index] = maps[index] + up(maps[index + 1], maps[index])
    smooth = [block(each) for block, each in zip(head.smooth, maps[:3], strict=True)] + maps[3:]
    joined = torch.cat([up(each, smooth[0]) for each in smooth], 1)
    expected = head.classifier(nn.Sequential.forward(head.fuse, joined))
    torch.testing.assert_close(head(levels), expected)
