"""DeepLabV3+: Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation
(Liang-Chieh Chen, Yukun Zhu, George Papandreou, Florian Schroff, Hartwig Adam, ECCV 2018), arXiv 1802.02611.

Follows sections 3 and 4 and the authors' release: pyramid and decoder of depthwise separable convolutions on the
aligned Xception, of plain ones on a ResNet; features of stride 4 reduced to 48 channels, joined with the pyramid, and
two 3x3 convolutions of 256 channels. Rates 6, 12, 18 at output stride 16, doubled at 8.

Deviates:
- On MobileNetV2 pyramid and decoder are those of the Xception; the release's fast variant has neither.
- The Xception's features of stride 4 are taken behind a ReLU, as timm does; the release takes them before it.
- Upsampling does not align corners, in the release it does.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.aspp import ASPP, conv3x3
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.outputs import PixelOutput


class DeepLabV3Plus(DilatedNetwork):
    """Dilated backbone, pyramid of rates, decoder at stride 4.

    Args:
        backbone: timm's name of a network that `DilatedNetwork` takes.
        output_stride: in training.
        eval_output_stride: in evaluation, on the same weights; as in training if None.
        rates: of the pyramid at output stride 16; doubled at 8.
        grid: multi-grid of a ResNet's last stage, one unit rate per block (1, 2, 4 in the paper).
        separable: depthwise separable convolutions in pyramid and decoder.
        auxiliary: a second head on the stage before the last, in training: `auxiliary["aux"]`. Not in the paper, but in
            mmsegmentation's models.
        width: channels of the pyramid and of the decoder; 512 in mmsegmentation.
        dropout: after the pyramid.
        projection: size of the kernel behind the branches of the pyramid; 3 in mmsegmentation.
        weights: of the backbone or of all, see `DilatedNetwork.load`.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that cannot be dilated so, weights that do not fit.
    """

    paper: ClassVar[str] = "DeepLabV3+ (Chen et al., 2018), arXiv 1802.02611"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLabV3+, Xception-65": {},
        "DeepLabV3+, MobileNetV2": {"backbone": "mobilenetv2_100"},
        "DeepLabV3+, ResNet-50": {"backbone": "resnet50", "separable": False, "grid": (1, 2, 4)},
        "DeepLabV3+, ResNet-101": {"backbone": "resnet101", "separable": False, "grid": (1, 2, 4)},
        "DeepLabV3+, ResNet-50c": {"backbone": "resnet50c", "separable": False, "grid": (1, 2, 4)},
        "DeepLabV3+, ResNet-101c": {"backbone": "resnet101c", "separable": False, "grid": (1, 2, 4)},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "grid": None, "width": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "xception65",
        output_stride: int = 16,
        eval_output_stride: int | None = 8,
        rates: Sequence[int] = (6, 12, 18),
        grid: Sequence[int] | None = None,
        separable: bool = True,
        auxiliary: bool = False,
        width: int = 256,
        dropout: float = 0.1,
        projection: int = 1,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, [1, 3, 4], output_stride, eval_output_stride, grid, in_channels=in_channels)
        low, middle, top = self.channels
        self.rates = rates
        self.pyramid = self.make_pyramid(top, width, dropout, separable, projection)
        self.reduce = Conv2dNormActivation(low, 48, 1)
        self.decoder = nn.Sequential(
            conv3x3(width + 48, width, separable=separable), conv3x3(width, width, separable=separable)
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.aux_classifier = FCNHead(middle, num_classes) if auxiliary else None
        if weights is not None:
            self.load(weights)
        self.train()

    def make_pyramid(self, channels: int, width: int, dropout: float, separable: bool, projection: int) -> ASPP:
        return ASPP(channels, self.rates, width, dropout, separable, projection)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.pyramid.set_rates([rate * 16 // self.output_stride for rate in self.rates])
        return self

    def forward(self, images: Tensor) -> Tensor | PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, h and w a quarter of H and W, rounded up."""
        low, middle, top = self.features(images)
        context = interpolate(self.pyramid(top), low.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.classifier(self.decoder(torch.cat([context, self.reduce(low)], 1)))
        if self.training and self.aux_classifier is not None:
            return PixelOutput(logits, {"aux": self.aux_classifier(middle)})
        return logits
