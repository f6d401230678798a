"""PSPNet: Pyramid Scene Parsing Network
(Hengshuang Zhao, Jianping Shi, Xiaojuan Qi, Xiaogang Wang, Jiaya Jia, CVPR 2017), arXiv 1612.01105.

Follows section 3 and the authors' PyTorch code (hszhao/semseg): a ResNet with a stem of three convolutions and output
stride 8, in which every 3x3 kernel of the two dilated stages is dilated, the first ones too; means over 1, 4, 9 and 36
parts of the image; an auxiliary head on the fourth stage (weight 0.4); logits upsampled with corners aligned, for
which crops have 8 k + 1 pixels.

Deviates:
- ImageNet weights of the ResNet-50, -101 and -152 are timm's `gluon_in1k`; of the same layers, but not the authors'.
- Stride 2 lies in the 3x3 kernels, as in the PyTorch code; in the paper's Caffe networks it is in the 1x1 before.
- Sizes other than 8 k + 1 are taken too.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import fcn_head, resize_corners
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.ppm import PyramidPooling


class PSPNet(DilatedNetwork):
    """A dilated ResNet and pyramid pooling.

    Args:
        backbone: timm's name of a ResNet; `resnet50s` has the paper's stem.
        blocks: of each stage, where they are not those of `backbone`: (3, 30, 48, 8) is ResNet-269.
        bins: of the pyramid's levels; none gives the dilated FCN of the ablations.
        channels: of the head.
        auxiliary: whether the fourth stage is supervised.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "PSPNet (Zhao et al., 2017), arXiv 1612.01105"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "PSPNet, R50": {},
        "PSPNet, R101": {"backbone": "resnet101s"},
        "PSPNet, R152": {"backbone": "resnet152s"},
        "PSPNet, R269": {"backbone": "resnet152s", "blocks": (3, 30, 48, 8)},
        "dilated FCN, R50": {"bins": ()},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "blocks": None, "channels": 32}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50s",
        blocks: Sequence[int] | None = None,
        bins: Sequence[int] = (1, 2, 3, 6),
        channels: int = 512,
        auxiliary: bool = True,
        output_stride: int = 8,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        depth: dict[str, Any] = {"layers": tuple(blocks)} if blocks else {}
        super().__init__(backbone, (3, 4), output_stride, in_channels=in_channels, **depth)
        first = getattr(self.backbone, "layer4", [None])[0]
        if not isinstance(getattr(first, "conv2", None), nn.Conv2d):
            raise SegfolioError(f"PSPNet: backbone {backbone} is no plain ResNet; take one, such as resnet50s")
        middle, last = self.channels
        self.pyramid = PyramidPooling(last, last // max(1, len(bins)), bins, align_corners=True)
        self.head = fcn_head(self.pyramid.out_channels, channels, num_classes, nn.Dropout2d(0.1))
        self.auxiliary = fcn_head(middle, channels // 2, num_classes, nn.Dropout2d(0.1)) if auxiliary else None
        if weights is not None:
            self.load(weights)
        self.train()

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, H, W]`; in training also those of the fourth stage, `aux`."""
        middle, last = self.features(images)
        logits = resize_corners(self.head(self.pyramid(last)), images)
        if not self.training or self.auxiliary is None:
            return PixelOutput(logits, {})
        return PixelOutput(logits, {"aux": resize_corners(self.auxiliary(middle), images)})

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for stage, stride in ((self.backbone.layer3, 16), (self.backbone.layer4, 32)):
            dilation = max(1, stride // self.output_stride)  # the first block's is that of the stage before
            stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)
        return self
