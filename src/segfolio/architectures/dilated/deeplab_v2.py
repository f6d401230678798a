"""DeepLab v2: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs
(Liang-Chieh Chen, George Papandreou, Iasonas Kokkinos, Kevin Murphy, Alan L. Yuille, TPAMI 2017), arXiv 1606.00915.

Follows sections 3 and 4 and the authors' Caffe networks: atrous spatial pyramid pooling is the sum of branches of
several rates, on VGG-16 each with its own fc6, fc7 and fc8, on ResNet-101 a single 3x3 convolution; the ResNet sees the
image at 1, 0.75 and 0.5 of its size, the maximum of the three scores is taken, and each is supervised beside it.
Training is at stride 8, and scores are upsampled with corners aligned, by which they lie on the pixels they are of.

Deviates:
- ImageNet weights are torchvision's and timm's, not Caffe's, and those on COCO are not published for them. In their
  ResNet the stride is in the 3x3 convolution, and the first block of a dilated stage keeps the dilation before it.
- Scores of the smaller images are upsampled before their loss; the authors shrink the labels.
- The CRF is a test protocol, no part of the network.
- Images are padded by their mean to 8 k + 1 pixels, with several scales 32 k + 1.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.architectures.dilated.deeplab_v1 import (
    at_pixels,
    fully_connected,
    pad_to_grid,
    transplant_head,
    transplant_trunk,
    vgg16,
)
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import resize_corners
from segfolio.layers.outputs import PixelOutput
from segfolio.weights.files import load_weights, read_weights

ASPP_L = (6, 12, 18, 24)


class DeepLabV2(DilatedNetwork):
    """ResNet of stride 8 and branches of several rates.

    Args:
        backbone: timm's name of a network that `DilatedNetwork` takes.
        rates: of the branches (ASPP-L).
        scales: of the image, beside 1; none for the rows without MSC. In training there is then
            `auxiliary["scale_100"]` and, of scale 0.75, `auxiliary["scale_75"]`.
        weights: of the backbone or of all, see `DilatedNetwork.load`.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "DeepLab v2 (Chen et al., 2017), arXiv 1606.00915"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLab v2, ResNet-101, ASPP, MSC": {},
        "DeepLab v2, ResNet-101, ASPP": {"scales": ()},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet"}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        rates: Sequence[int] = ASPP_L,
        scales: Sequence[float] = (0.75, 0.5),
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, [4], output_stride=8, in_channels=in_channels)
        self.scales = scales
        self.classifier = nn.ModuleList(
            nn.Conv2d(self.channels[0], num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for p in self.classifier.parameters():
            nn.init.normal_(p, std=0.01) if p.ndim > 1 else nn.init.zeros_(p)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> Tensor | PixelOutput:
        """Images `[B, C_in, H, W]` to logits, `[B, C, H, W]` in evaluation.

        In training `[B, C, h, w]` of every eighth row and column, which are those of labels `[::8, ::8]`.
        """
        padded = pad_to_grid(images, 32 if self.scales else 8)
        found = {"scale_100": self._scores(padded)}
        for scale in self.scales:
            smaller = [round((side - 1) * scale) + 1 for side in padded.shape[-2:]]
            scores = self._scores(interpolate(padded, smaller, mode="bilinear", align_corners=True))
            found[f"scale_{round(100 * scale)}"] = resize_corners(scores, found["scale_100"])
        fused = torch.stack(list(found.values())).amax(0)
        logits = at_pixels([fused], images, padded, self.training)
        if self.training and self.scales:
            return PixelOutput(
                logits, {name: at_pixels([each], images, padded, self.training) for name, each in found.items()}
            )
        return logits

    def _scores(self, images: Tensor) -> Tensor:
        (features,) = self.features(images)
        return torch.stack([branch(features) for branch in self.classifier]).sum(0)


class DeepLabV2VGG(nn.Module):
    """VGG-16 of stride 8 and branches of several rates, each of three layers. The defaults are ASPP-L.

    Args:
        rates: of the branches: (12,) is LargeFOV, (2, 4, 8, 12) ASPP-S.
        width: factor on the channels of every layer, a multiple of 1/16; for tests.
        weights: None, the name of torchvision's weights for VGG-16, or a file: a VGG-16 with torchvision's names, or
            a DeepLabV2VGG.

    Raises:
        SegfolioError: weights that do not fit.
    """

    paper: ClassVar[str] = DeepLabV2.paper
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLab v2, VGG-16, LargeFOV": {"rates": (12,)},
        "DeepLab v2, VGG-16, ASPP-S": {"rates": (2, 4, 8, 12)},
        "DeepLab v2, VGG-16, ASPP-L": {},
    }
    tiny: ClassVar[dict[str, Any]] = {"width": 1 / 16}

    def __init__(
        self, num_classes: int, rates: Sequence[int] = ASPP_L, width: float = 1.0, weights: str | None = None
    ) -> None:
        super().__init__()
        self.trunk = vgg16(width)
        self.heads = nn.ModuleList(fully_connected(3, rate, 1024, num_classes, width) for rate in rates)
        if weights is not None:
            self._load(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, C_in, H, W]` to logits, at every pixel or every eighth, see `DeepLabV2`."""
        padded = pad_to_grid(images, 8)
        features = self.trunk(padded)
        scores = torch.stack([head(features) for head in self.heads]).sum(0)
        return at_pixels([scores], images, padded, self.training)

    def _load(self, weights: str) -> None:
        state = read_weights(weights, "vgg16")
        if "heads.0.fc8.weight" in state:
            load_weights(self, state, weights)
            return
        load_weights(self.trunk, transplant_trunk(state, self.trunk), weights)
        for head in self.heads:
            assert isinstance(head, nn.Sequential)
            load_weights(head, transplant_head(state, head), weights, new=("fc8.",))
