"""torchvision's fully convolutional network on a dilated ResNet, after Fully Convolutional Networks for Semantic
Segmentation (Jonathan Long, Evan Shelhamer, Trevor Darrell, CVPR 2015), arXiv 1411.4038.

Follows torchvision's `fcn_resnet50` and `fcn_resnet101`, parameters and all: a ResNet of output stride 8, a 3x3
convolution to a quarter of the channels, batch normalisation, dropout, a classifier, and the same on the stage before
in training.

Deviates from the paper in all but the idea: no skips, no transposed convolutions, a dilated ResNet instead of a VGG.
"""

from typing import Any, ClassVar

from torch import Tensor
from torchvision.models.segmentation.fcn import FCNHead

from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.outputs import PixelOutput


class FCNResNet(DilatedNetwork):
    """Dilated backbone and a head of two convolutions, logits at stride 8.

    Args:
        backbone: timm's name of a network that `DilatedNetwork` takes.
        auxiliary: a second head on the stage before the last, in training: `auxiliary["aux"]`.
        weights: of the backbone or of all, see `DilatedNetwork.load`; of torchvision's for `fcn_<backbone>` e.g.
            `COCO_WITH_VOC_LABELS_V1`, which are with `auxiliary`.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "FCN on a dilated ResNet (torchvision), after arXiv 1411.4038"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "FCN, ResNet-50, torchvision": {},
        "FCN, ResNet-101, torchvision": {"backbone": "resnet101"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet"}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        output_stride: int = 8,
        auxiliary: bool = True,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, [3, 4], output_stride, in_channels=in_channels)
        middle, top = self.channels
        self.classifier = FCNHead(top, num_classes)
        self.aux_classifier = FCNHead(middle, num_classes) if auxiliary else None
        if weights is not None:
            self.load(weights, torchvision=f"fcn_{backbone}")

    def forward(self, images: Tensor) -> Tensor | PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, h and w an 8th of H and W, rounded up."""
        middle, top = self.features(images)
        logits = self.classifier(top)
        if self.training and self.aux_classifier is not None:
            return PixelOutput(logits, {"aux": self.aux_classifier(middle)})
        return logits
