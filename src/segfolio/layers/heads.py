"""What decoders of dilated networks share."""

from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation


def fcn_head(in_channels: int, channels: int, num_classes: int, dropout: nn.Module) -> nn.Sequential:
    """A 3x3 convolution with normalisation and ReLU, dropout, and the classifier of each pixel."""
    return nn.Sequential(*Conv2dNormActivation(in_channels, channels, 3), dropout, nn.Conv2d(channels, num_classes, 1))


def resize_corners(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, bilinearly, its corner pixels on those of `like`.

    At the sizes 8 k + 1 of the papers that do so, the features of stride 8 lie on every eighth pixel exactly.
    """
    return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


def initialise(module: nn.Module) -> None:
    """Initial values of a decoder in CSAIL's code: Gaussian convolutions of He et al., a small shift."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 1e-4)
