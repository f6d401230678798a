"""Tiny networks, as protocols see them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from segfolio.inference.tiles import Network, resized

CLASSES = 5


def image(height: int = 50, width: int = 70, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def network(logits_of: Callable[[Tensor], Tensor], logits: bool = True) -> Network:
    """Of a function from `[B, 3, h, w]` in 0 to 255 to scores `[B, C, h', w']`."""

    def scores(images: Tensor) -> list:
        with torch.no_grad():
            return [partial(resized, one) for one in logits_of(images.float())]

    return Network(scores, logits, torch.full((3, 1, 1), 120.0))


def convolution(stride: int = 2, symmetric: bool = False) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, CLASSES, 3, stride, padding=1)
    if symmetric:
        layer.weight.data = (layer.weight + layer.weight.flip(-1)) / 2
    return lambda images: layer(images / 100)


def per_pixel(images: Tensor) -> Tensor:
    """Logits of a pixel's own colour: no window can matter."""
    mixing = torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(1))
    return torch.einsum("ck,bkhw->bchw", mixing, images / 50)
