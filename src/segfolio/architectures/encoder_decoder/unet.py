"""U-Net: Convolutional Networks for Biomedical Image Segmentation
(Olaf Ronneberger, Philipp Fischer, Thomas Brox, MICCAI 2015), arXiv 1505.04597.

Follows figure 1 and section 2: pairs of valid 3x3 convolutions, four 2x2 poolings, 2x2 up-convolutions that
halve the channels, centre-cropped skips, dropout at the end of the contracting path, weights drawn with
standard deviation sqrt(2 / N) (section 3), and the missing context at the border mirrored (figure 2).

Deviates:
- `forward` extrapolates by itself, so that logits have the size of the image; `forward_tile` is the network
  of figure 1, 572 x 572 to 388 x 388.
- Where the paper says "at the end of the contracting path" and no more, dropout of 0.5 follows the last two
  levels, before their skip, as in the authors' release (phseg_v5). The release also has a ReLU after each
  up-convolution and 128 channels after the last; figure 1 does not, and is followed.
- `padding="same"` with `batch_norm=True` is the variant that lectures and most later work mean by U-Net.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

Padding = Literal["valid", "same"]


class UNet(nn.Module):
    """U-Net, as published or padded.

    Args:
        width: channels of the first level; each level below has twice as many.
        depth: number of poolings.
        padding: `valid` loses a pixel on each side at every 3x3 convolution, as in the paper.
        batch_norm: normalise after every 3x3 convolution, which then has no bias.
        dropout: probability after the two lowest levels.
    """

    paper: ClassVar[str] = "U-Net (Ronneberger et al., 2015), arXiv 1505.04597"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "U-Net": {"in_channels": 1},
        "U-Net, padded, batch norm": {"padding": "same", "batch_norm": True, "dropout": 0.0},
    }
    tiny: ClassVar[dict[str, Any]] = {"width": 8, "depth": 2}

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        depth: int = 4,
        padding: Padding = "valid",
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.padding, self.depth = padding, depth
        widths = [width * 2**level for level in range(depth + 1)]
        inputs = [in_channels, *widths[:-1]]
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(_two_convs(a, b, padding, batch_norm) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upwards)
        self.merge = nn.ModuleList(_two_convs(a, b, padding, batch_norm) for a, b in upwards)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, num_classes, H, W]`, for any H and W."""
        height, width = images.shape[-2:]
        tile = self._extrapolate(self._extrapolate(images, -2), -1)
        return self.forward_tile(tile)[..., :height, :width]

    def forward_tile(self, tile: Tensor) -> Tensor:
        """The bare network: `[B, C_in, h, w]` to logits that are smaller by the lost border if `valid`.

        Every pooling must halve an even size, as with 572 pixels, which become 388.
        """
        x, skips = tile, []
        for level, block in enumerate(self.down):
            x = block(max_pool2d(x, 2) if level else x)
            if level >= self.depth - 1:
                x = self.dropout(x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([_centre(skips.pop(), x), x], 1))
        return self.classifier(x)

    def _extrapolate(self, images: Tensor, dim: int) -> Tensor:
        """Continue the image by mirroring to the smallest tile whose logits cover it; both start together."""
        scale, lost = 2**self.depth, 4 if self.padding == "valid" else 0  # by two convolutions
        side = lost * (scale - 1)  # by all levels but the lowest, in pixels of the tile, both ways alike
        lowest = -(-(images.shape[dim] + side) // scale)
        size, before = (lowest + lost) * scale + side, lost * scale // 2 + side
        period = max(2 * images.shape[dim] - 2, 1)
        index = (torch.arange(size, device=images.device) - before) % period
        return images.index_select(dim, torch.minimum(index, period - index))


def _two_convs(in_channels: int, channels: int, padding: Padding, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (in_channels, channels):
        layers.append(nn.Conv2d(inputs, channels, 3, padding=padding, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _centre(skip: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    border = (skip.shape[-1] - width) // 2
    return skip[..., border : border + height, border : border + width]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # N incoming values; of a 2x2 up-convolution of stride 2 each output sees one pixel
        n = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
        nn.init.normal_(module.weight, std=(2 / n) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
