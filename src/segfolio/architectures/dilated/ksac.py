"""KSAC: See More Than Once -- Kernel-Sharing Atrous Convolution for Semantic Segmentation
(Ye Huang, Qingqing Wang, Wenjing Jia, Xiangjian He, 2019), arXiv 1908.09443.

Follows section 3: DeepLabV3+ whose pyramid has one 3x3 kernel for all rates, each with a batch normalisation of its
own, beside the 1x1 convolution and the pooled image. At rates 6, 12, 18 the branches have 11 C x 256 weights for
ASPP's 29: 62 % fewer.

Deviates: the branches are concatenated and projected as in DeepLabV3+, and the rest is `DeepLabV3Plus`, with its
deviations; the shared kernel is a plain convolution on every backbone, for a separable one has little left to share.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from segfolio.architectures.dilated.deeplab_v3_plus import DeepLabV3Plus
from segfolio.layers.aspp import ASPP


class SharedASPP(ASPP):
    """`ASPP` with one kernel for all rates; arguments as there."""

    def __init__(
        self, channels: int, rates: Sequence[int], width: int = 256, dropout: float = 0.5, projection: int = 1
    ) -> None:
        super().__init__(channels, rates, width, dropout, projection=projection)
        self.set_rates(rates)
        branches: list[Any] = list(self.convs[1:-1])
        self.kernel = branches[0][0].weight
        for branch in branches:
            del branch[0]  # leaves batch normalisation and ReLU

    def set_rates(self, rates: Sequence[int]) -> None:
        self.rates = list(rates)

    def forward(self, x: Tensor) -> Tensor:
        point, *norms, image = self.convs
        atrous = [
            norm(conv2d(x, self.kernel, padding=rate, dilation=rate))
            for norm, rate in zip(norms, self.rates, strict=True)
        ]
        return self.project(torch.cat([point(x), *atrous, image(x)], 1))


class KSAC(DeepLabV3Plus):
    """`DeepLabV3Plus` with a shared kernel; arguments as there, `separable` of the decoder."""

    paper: ClassVar[str] = "KSAC (Huang et al., 2019), arXiv 1908.09443"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "KSAC, Xception-65": {},
        "KSAC, MobileNetV2": {"backbone": "mobilenetv2_100"},
        "KSAC, ResNet-101": {"backbone": "resnet101", "separable": False},
    }

    def make_pyramid(self, channels: int, width: int, dropout: float, separable: bool, projection: int) -> ASPP:
        return SharedASPP(channels, self.rates, width, dropout, projection)
