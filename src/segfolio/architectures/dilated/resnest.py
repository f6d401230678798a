"""ResNeSt: Split-Attention Networks
(Hang Zhang, Chongruo Wu, Zhongyue Zhang, Yi Zhu, Haibin Lin, Zhi Zhang, Yue Sun, Tong He, Jonas Mueller, R. Manmatha,
Mu Li, Alexander Smola, CVPR workshops 2022), arXiv 2004.08955: the backbones of section 5.3, under a DeepLabV3 head.

Follows the authors' code (zhanghang1989/PyTorch-Encoding, `deeplab.py`, `resnest.py`): output stride 8, atrous
spatial pyramid pooling at rates 12, 24 and 36 (arXiv 1706.05587) with channel-wise dropout, an auxiliary head on the
fourth stage (weight 0.2), logits upsampled with corners aligned. Where a stride becomes a dilation, the average
pooling of the main branch stays, that of the shortcut goes.

Deviates:
- Dropout in the last convolution is of single values, as in the code since April 2020; before, of channels.
- ImageNet weights are timm's `in1k`, converted from the authors'; of the plain ResNets `gluon_in1k`.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from segfolio.layers.aspp import ASPP
from segfolio.layers.dilation import DilatedNetwork, PooledBatchNorm
from segfolio.layers.heads import fcn_head, resize_corners
from segfolio.layers.outputs import PixelOutput


class ResNeStDeepLab(DilatedNetwork):
    """A dilated ResNeSt, or ResNet, and DeepLabV3's head.

    Args:
        backbone: timm's name; the paper's plain ResNets are `resnet50s` and `resnet101s`.
        channels: of the head's layers.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "ResNeSt (Zhang et al., 2020), arXiv 2004.08955"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLabV3, ResNeSt-50": {},
        "DeepLabV3, ResNeSt-101": {"backbone": "resnest101e"},
        "DeepLabV3, ResNeSt-200": {"backbone": "resnest200e"},
        "DeepLabV3, ResNeSt-269": {"backbone": "resnest269e"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 32}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnest50d",
        channels: int = 256,
        output_stride: int = 8,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        # a block's attention is normalised, and a lone image has one value of each of its channels
        super().__init__(backbone, (3, 4), output_stride, norm_layer=PooledBatchNorm, in_channels=in_channels)
        middle, last = self.channels
        self.aspp = ASPP(last, (12, 24, 36), channels)
        self.aspp.project[-1] = nn.Dropout2d(0.5)
        self.head = fcn_head(channels, channels, num_classes, nn.Dropout(0.1))
        self.auxiliary = fcn_head(middle, middle // 4, num_classes, nn.Dropout(0.1))
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, H, W]`; in training also those of the fourth stage, `aux`."""
        middle, last = self.features(images)
        auxiliary = {"aux": resize_corners(self.auxiliary(middle), images)} if self.training else {}
        return PixelOutput(resize_corners(self.head(self.aspp(last)), images), auxiliary)
