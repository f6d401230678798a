"""SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation
(Vijay Badrinarayanan, Alex Kendall, Roberto Cipolla, TPAMI 2017), arXiv 1511.00561.

Follows section 3 and the authors' released networks (alexgkendall/SegNet-Tutorial, `segnet_train.prototxt`
and `segnet_basic_train.prototxt`): `SegNet` is the 13 convolutions of VGG-16 and their mirror image,
`SegNetBasic` four encoders and four decoders of 64 channels and 7x7 kernels. Poolings round up, as Caffe's do
(45 rows become 23), and each decoder puts its input back where the encoder's maxima were.

Deviates:
- ImageNet weights are torchvision's VGG-16 with batch normalisation; the authors' VGG-16 had none, and
  learnt it on the segmentation data.
- The convolutions of `SegNetBasic` have no biases (section 3.1); the released file has them, without effect
  ahead of batch normalisation. Table 1 gives 1.425 M parameters, these are 1.416 M.
- Batch normalisation has PyTorch's epsilon 1e-5 and a zero initial shift; the release has 1e-9 and 0.001.
- The authors replace its running averages by the statistics of the training set: `bn_mode: recompute`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights, read_weights


class SegNet(nn.Module):
    """VGG-16's convolutions and their mirror image, joined by pooling indices.

    Args:
        width: channels of the first stage; the five stages have 1, 2, 4, 8 and 8 times as many.
        weights: of the encoder: `IMAGENET1K_V1`, or a file with a state dict of torchvision's `vgg16_bn`.

    Raises:
        SegfolioError: weights that cannot be found or are no VGG-16 with batch normalisation.
    """

    paper: ClassVar[str] = "SegNet (Badrinarayanan et al., 2015), arXiv 1511.00561"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"SegNet": {}}
    tiny: ClassVar[dict[str, Any]] = {"width": 8}

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64, weights: str | None = None) -> None:
        super().__init__()
        stages = [[width] * 2, [2 * width] * 2, [4 * width] * 3, [8 * width] * 3, [8 * width] * 3]
        pairs = list(zip([[], *stages[:-1]], stages, strict=True))
        self.encoder = nn.ModuleList(_convs([*(before[-1:] or [in_channels]), *s]) for before, s in pairs)
        self.decoder = nn.ModuleList(_convs([*s, *before[-1:]]) for before, s in reversed(pairs))
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=1)
        self.apply(_initialise)
        if weights is not None:
            self._load_encoder(weights)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, num_classes, H, W]`, for any H and W."""
        return self.classifier(_encode_decode(images, self.encoder, self.decoder))

    def _load_encoder(self, weights: str) -> None:
        given = read_weights(weights, "vgg16_bn")
        values = [v for k, v in given.items() if k.startswith("features.") and not k.endswith("_tracked")]
        own = self.encoder.state_dict()
        names = [k for k in own if not k.endswith("_tracked")]  # a counter that older files lack
        if len(values) != len(names):
            raise SegfolioError(
                f"{weights} holds {len(values)} tensors under `features.`, but torchvision's vgg16_bn has "
                f"{len(names)}; give a state dict of that"
            )
        load_weights(self.encoder, {**own, **dict(zip(names, values, strict=True))}, weights)


class SegNetBasic(nn.Module):
    """The small SegNet of section 3.1: no ReLU in the decoder, a wide kernel throughout.

    Expects images in the range 0 to 255, which the response normalisation at the input is made for.
    """

    paper: ClassVar[str] = "SegNet-Basic (Badrinarayanan et al., 2015), arXiv 1511.00561"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"SegNet-Basic": {}}
    tiny: ClassVar[dict[str, Any]] = {"width": 8}

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.normalise = nn.LocalResponseNorm(5, alpha=1e-4)
        self.encoder = nn.ModuleList(_convs([i, width], 7, bias=False) for i in (in_channels, width, width, width))
        self.decoder = nn.ModuleList(_convs([width, width], 7, bias=False, relu=False) for _ in range(4))
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, num_classes, H, W]`, for any H and W."""
        normalised = self.normalise(images.float()).to(images.dtype)  # torch has no such layer of half a float
        return self.classifier(_encode_decode(normalised, self.encoder, self.decoder))


def _encode_decode(x: Tensor, encoder: Iterable[nn.Module], decoder: Iterable[nn.Module]) -> Tensor:
    poolings = []
    for stage in encoder:
        x = stage(x)
        size = x.shape[-2:]
        x, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        poolings.append((size, indices))
    for stage in decoder:
        size, indices = poolings.pop()
        x = stage(_unpool(x, indices, size))
    return x


def _unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """`max_unpool2d` in a form that is deterministic on CUDA too."""
    empty = x.new_zeros(*x.shape[:2], size[0] * size[1])
    return empty.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, size)


def _convs(widths: Sequence[int], kernel_size: int = 3, bias: bool = True, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=bias))
        layers.append(nn.BatchNorm2d(outputs))
        if relu:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
