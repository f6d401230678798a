"""DeepLabV3: Rethinking Atrous Convolution for Semantic Image Segmentation
(Liang-Chieh Chen, George Papandreou, Florian Schroff, Hartwig Adam, 2017), arXiv 1706.05587.

Follows sections 3.2, 3.3 and 4.1: multi-grid in the last stage of the ResNet, atrous spatial pyramid pooling with the
pooled image, output stride 16 in training and 8 in evaluation, where all rates are doubled. Parameters are named as in
torchvision, whose `deeplabv3_resnet50` and `deeplabv3_resnet101` are two of the variants.

Deviates:
- The ResNets are torchvision's and timm's, whose stride is in the 3x3 convolution of a block; in the authors' release
  it is at the end of the stage before. Without `grid` the first block of a dilated stage keeps the dilation before it.
- As in torchvision, a 3x3 convolution and dropout follow the pyramid.
- Logits are for bilinear upsampling without aligned corners, as in torchvision; the release aligns them.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from segfolio.layers.aspp import ASPP, conv3x3
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.outputs import PixelOutput

TORCHVISION = {"output_stride": 8, "eval_output_stride": None, "grid": None, "auxiliary": True}


class DeepLabV3(DilatedNetwork):
    """Dilated backbone, pyramid of rates, logits at the stride of the backbone.

    Args:
        backbone: timm's name of a network that `DilatedNetwork` takes.
        output_stride: in training.
        eval_output_stride: in evaluation, on the same weights; as in training if None.
        rates: of the pyramid at output stride 16; doubled at 8.
        grid: multi-grid of the last stage, one unit rate per block.
        auxiliary: a second head on the stage before the last, in training: `auxiliary["aux"]`.
        width: channels of the pyramid.
        weights: of the backbone or of all, see `DilatedNetwork.load`; of torchvision's for `deeplabv3_<backbone>`
            e.g. `COCO_WITH_VOC_LABELS_V1`.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that cannot be dilated so, weights that do not fit.
    """

    paper: ClassVar[str] = "DeepLabV3 (Chen et al., 2017), arXiv 1706.05587"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLabV3, ResNet-50": {"backbone": "resnet50"},
        "DeepLabV3, ResNet-101": {},
        "DeepLabV3, ResNet-50, torchvision": {"backbone": "resnet50", **TORCHVISION},
        "DeepLabV3, ResNet-101, torchvision": TORCHVISION,
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "grid": None, "width": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        output_stride: int = 16,
        eval_output_stride: int | None = 8,
        rates: Sequence[int] = (6, 12, 18),
        grid: Sequence[int] | None = (1, 2, 4),
        auxiliary: bool = False,
        width: int = 256,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, [3, 4], output_stride, eval_output_stride, grid, in_channels=in_channels)
        middle, top = self.channels
        self.rates = rates
        self.classifier = nn.Sequential(
            ASPP(top, rates, width), *conv3x3(width, width), nn.Conv2d(width, num_classes, 1)
        )
        self.aux_classifier = FCNHead(middle, num_classes) if auxiliary else None
        if weights is not None:
            self.load(weights, torchvision=f"deeplabv3_{backbone}")
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        pyramid: Any = self.classifier[0]
        pyramid.set_rates([rate * 16 // self.output_stride for rate in self.rates])
        return self

    def forward(self, images: Tensor) -> Tensor | PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, h and w a 16th or an 8th of H and W, rounded up."""
        middle, top = self.features(images)
        logits = self.classifier(top)
        if self.training and self.aux_classifier is not None:
            return PixelOutput(logits, {"aux": self.aux_classifier(middle)})
        return logits
