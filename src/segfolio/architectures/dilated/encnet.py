"""EncNet: Context Encoding for Semantic Segmentation
(Hang Zhang, Kristin Dana, Jianping Shi, Zhongyue Zhang, Xiaogang Wang, Ambrish Tyagi, Amit Agrawal, CVPR 2018),
arXiv 1803.08904.

Follows section 3 and the authors' code (zhanghang1989/PyTorch-Encoding, `encnet.py`): a ResNet with a stem of three
convolutions and output stride 8; 32 codewords of 512 channels; attention to channels; the classes that are in the
image predicted from the encoding (SE-loss, weight 0.2); an auxiliary head on the fourth stage (weight 0.2); logits
upsampled with corners aligned.

Deviates:
- ImageNet weights are timm's `gluon_in1k`, of the same layers.
- Dropout is of single values, as in the code since April 2020; before, of channels.
- The lateral connections that the authors' code has for Pascal Context alone are not here.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import fcn_head, resize_corners
from segfolio.layers.outputs import PixelOutput
from segfolio.precision import full_float32


class EncNet(DilatedNetwork):
    """A dilated ResNet whose channels are weighted by an encoding of the whole image.

    Args:
        backbone: timm's name of a ResNet; `resnet50s` has the authors' stem.
        channels: D, of the features that are encoded.
        num_codes: K, codewords.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "EncNet (Zhang et al., 2018), arXiv 1803.08904"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"EncNet, R50": {}, "EncNet, R101": {"backbone": "resnet101s"}}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 32, "num_codes": 8}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50s",
        channels: int = 512,
        num_codes: int = 32,
        output_stride: int = 8,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, (3, 4), output_stride, in_channels=in_channels)
        middle, last = self.channels
        self.reduce = Conv2dNormActivation(last, channels, 3)
        self.context = ContextEncoding(channels, num_codes)
        self.presence = nn.Linear(channels, num_classes)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(channels, num_classes, 1))
        self.auxiliary = fcn_head(middle, middle // 4, num_classes, nn.Dropout(0.1))
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, H, W]`; in training also those of the fourth stage, `aux`, and `se`, the
        logits `[B, C]` of classes that are in the image."""
        middle, last = self.features(images)
        weighted, encoding = self.context(self.reduce(last))
        logits = resize_corners(self.head(weighted), images)
        if not self.training:
            return PixelOutput(logits, {})
        aux = resize_corners(self.auxiliary(middle), images)
        return PixelOutput(logits, {"aux": aux, "se": self.presence(encoding)})


class ContextEncoding(nn.Module):
    """Encodes an image and weights its channels by what the encoding says (Figure 2)."""

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        self.project = Conv2dNormActivation(channels, channels, 1)
        self.encoding = Encoding(channels, num_codes)
        self.norm = nn.BatchNorm1d(num_codes)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, D, h, w]` to the same, weighted, and the encoding `[B, D]`."""
        encoding = self.norm(self.encoding(self.project(x).flatten(2).transpose(1, 2))).relu().mean(1)
        gamma = self.gate(encoding).sigmoid()[:, :, None, None]
        return (x + x * gamma).relu(), encoding


class Encoding(nn.Module):
    """Residuals from K codewords, each pixel's shared out by softmax of its scaled distances (equation 1)."""

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        bound = (num_codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))  # of squared distances, thus negative

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, N, D]` of N pixels to `[B, K, D]`."""
        with full_float32(x.device):  # differences of large numbers
            wide = torch.promote_types(x.dtype, torch.float32)
            x, words = x.to(wide), self.codewords.to(wide)
            distances = x.square().sum(-1, keepdim=True) - 2 * x @ words.T + words.square().sum(-1)
            shares = (self.scale * distances).softmax(-1).transpose(1, 2)  # [B, K, N]
            return (shares @ x - shares.sum(-1, keepdim=True) * words).to(self.codewords.dtype)
