"""The dilated baselines of SceneParse150: Semantic Understanding of Scenes through the ADE20K Dataset
(Bolei Zhou, Hang Zhao, Xavier Puig, Tete Xiao, Sanja Fidler, Adela Barriuso, Antonio Torralba, IJCV 2019),
arXiv 1608.05442.

Follows the authors' code. `DilatedVGG` is the DilatedNet of CSAILVision/sceneparsing (`train_DilatedNet.prototxt`):
the front end of arXiv 1511.07122 with zeros around. `DilatedResNet` is of CSAILVision/semantic-segmentation-pytorch: a
ResNet with a stem of three convolutions and output stride 8, a head of one convolution (C1) or of pyramid pooling
(arXiv 1612.01105), and the same of one convolution on the fourth stage (deep supervision, weight 0.4).

Deviates:
- ImageNet weights are torchvision's VGG-16 and timm's ResNets (`gluon_in1k` of `resnet50s` and `resnet101s`); of a
  ResNet-18 or -34 with this stem timm has none.
- `DilatedVGG` scores the classes alone; the authors' has a 151st score, of no class, that is never right.
- On a MobileNetV2 the fourth stage is timm's, of 96 channels; in the authors' code it is the first block of 160.
"""

from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from segfolio.architectures.dilated.dilation8 import load_vgg, vgg_front_end
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import fcn_head, initialise
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.ppm import PyramidPooling

DEEP_STEM: dict[str, Any] = {"stem_type": "deep", "stem_width": 64}


class DilatedVGG(nn.Module):
    """VGG-16 at stride 8.

    Args:
        width: factor on the channels of every layer; for tests.
        weights: of the classifier: `IMAGENET1K_V1`, or a file with a state dict of torchvision's `vgg16`.

    Raises:
        SegfolioError: weights that cannot be found or are no VGG-16.
    """

    paper: ClassVar[str] = "DilatedVGG (Zhou et al., 2017), arXiv 1608.05442"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"DilatedVGG": {}}
    tiny: ClassVar[dict[str, Any]] = {"width": 1 / 16}

    def __init__(self, num_classes: int, width: float = 1.0, weights: str | None = None) -> None:
        super().__init__()
        self.front_end = vgg_front_end(num_classes, width, padded=True)
        if weights is not None:
            load_vgg(self.front_end, weights)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of an eighth of the size, rounded up."""
        return self.front_end(images)


class DilatedResNet(DilatedNetwork):
    """A dilated ResNet with one of two heads.

    Args:
        backbone: timm's name; `resnet50s` and `resnet101s` have the authors' stem of three convolutions.
        head: `c1`, a 3x3 convolution, or `ppm`, pyramid pooling before it.
        deep_stem: give that stem to a ResNet that timm has with a plain one alone, such as ResNet-18 and -34.
        channels: of the levels of pyramid pooling and of the convolution after it.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "DilatedResNet (Zhou et al., 2017), arXiv 1608.05442"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DilatedResNet-18 + PPM": {"backbone": "resnet18", "deep_stem": True},
        "DilatedResNet-34 + C1": {"backbone": "resnet34", "head": "c1", "deep_stem": True},
        "DilatedResNet-50 + C1": {"head": "c1"},
        "DilatedResNet-50 + PPM": {},
        "DilatedResNet-101 + PPM": {"backbone": "resnet101s"},
        "DilatedMobileNetV2 + C1": {"backbone": "mobilenetv2_100", "head": "c1"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 16, "deep_stem": False}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50s",
        head: Literal["c1", "ppm"] = "ppm",
        channels: int = 512,
        deep_stem: bool = False,
        output_stride: int = 8,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, (3, 4), output_stride, in_channels=in_channels, **(DEEP_STEM if deep_stem else {}))
        middle, last = self.channels
        if head == "c1":
            self.head = nn.Sequential(*Conv2dNormActivation(last, last // 4, 3), nn.Conv2d(last // 4, num_classes, 1))
            self.auxiliary = nn.Sequential(
                *Conv2dNormActivation(middle, last // 4, 3), nn.Conv2d(last // 4, num_classes, 1)
            )
        else:
            pyramid = PyramidPooling(last, channels)
            fuse = fcn_head(pyramid.out_channels, channels, num_classes, nn.Dropout2d(0.1))
            self.head = nn.Sequential(pyramid, *fuse)
            self.auxiliary = fcn_head(middle, last // 4, num_classes, nn.Dropout2d(0.1))
        self.head.apply(initialise)
        self.auxiliary.apply(initialise)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of an eighth of the size, rounded up; in training also those of
        the fourth stage, `deep`."""
        middle, last = self.features(images)
        return PixelOutput(self.head(last), {"deep": self.auxiliary(middle)} if self.training else {})
