"""Dilation8: Multi-Scale Context Aggregation by Dilated Convolutions
(Fisher Yu, Vladlen Koltun, ICLR 2016), arXiv 1511.07122.

Follows sections 3 and 4 and the authors' code (fyu/dilation, `network.py` and the released networks): VGG-16 without
its last two poolings, whose later kernels are dilated by 2 and 4 (the front end), and a context module that starts as
the identity. The front end has no padding: the image is continued by its mirror image, 186 pixels on every side.

Deviates:
- ImageNet weights are torchvision's VGG-16, not Caffe's.
- Crops are continued by their own mirror image; the authors crop continued images and supervise the part inside.
- Sizes are rounded up to multiples of 8, in the same way.
- Logits are of stride 8 and are upsampled bilinearly outside, also where the authors' network does so inside.
- In the basic context module nothing is added to the identity, as in equation 4; the code adds noise of 0.01.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights, read_weights

MARGIN = 186  # pixels that the front end loses on every side: half of the receptive field, less half of the stride
LARGE = (2, 2, 4, 8, 16, 32, 32)  # channels of the large context module over the number of classes (Table 1)
NOISE = 0.01  # deviation of what makes equal channels differ, over the weight of the identity


class Dilation8(nn.Module):
    """Front end and context module.

    Args:
        context: the module of Table 1, or none for the front end alone.
        rates: dilations of the context module's 3x3 kernels; a 1x1 layer follows them, the eighth.
        width: factor on the channels of the front end; for tests.
        weights: of the front end, `IMAGENET1K_V1` or a file with a state dict of torchvision's `vgg16`; or a file with
            a state dict of this network, without context module too.

    Raises:
        SegfolioError: a large context module with another number of rates, weights that cannot be found or do not fit.
    """

    paper: ClassVar[str] = "Dilation8 (Yu & Koltun, 2016), arXiv 1511.07122"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Dilation8": {},
        "Dilation8, large context": {"context": "large"},
        "Dilation10": {"rates": (1, 1, 2, 4, 8, 16, 32, 64, 1)},
        "Dilation8, front end": {"context": None},
    }
    tiny: ClassVar[dict[str, Any]] = {"width": 1 / 16}

    def __init__(
        self,
        num_classes: int,
        context: Literal["basic", "large"] | None = "basic",
        rates: Sequence[int] = (1, 1, 2, 4, 8, 16, 1),
        width: float = 1.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.front_end = vgg_front_end(num_classes, width)
        self.context = nn.Identity() if context is None else ContextModule(num_classes, rates, context == "large")
        if weights is not None:
            self._load(weights)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to logits `[B, C, h, w]`, of an eighth of the size, rounded up."""
        rows, columns = (mirror(length, MARGIN, MARGIN + -length % 8, images.device) for length in images.shape[-2:])
        return self.context(self.front_end(images[..., rows, :][..., columns]))

    def _load(self, weights: str) -> None:
        state = read_weights(weights, "vgg16")
        if any(key.startswith("front_end.") for key in state):
            load_weights(self, state, weights, new=("context.",))
        else:
            load_vgg(self.front_end, weights)


class ContextModule(nn.Sequential):
    """3x3 convolutions of growing dilation between maps of classes, each cut off at 0, and a 1x1 convolution.

    What comes in is what goes out at first, where it is not negative: equations 4 and 5.

    Args:
        large: with more channels than classes, see `LARGE`; and with all of its zeros ahead of the first layer, as
            the released one of VOC has them, where every layer of the basic one (of CamVid) has its own.
        noise: see `NOISE`; of the large module alone.
    """

    def __init__(self, num_classes: int, rates: Sequence[int], large: bool = False, noise: float = NOISE) -> None:
        multiples = LARGE if large else (1,) * len(rates)
        if len(multiples) != len(rates):
            raise SegfolioError(
                f"Dilation8: the large context module has 7 rates before its last layer, not {len(rates)}"
            )
        channels = [num_classes * m for m in (1, *multiples)]
        paddings = [sum(rates), *[0] * (len(rates) - 1)] if large else rates
        layers: list[nn.Module] = []
        for (inputs, outputs), rate, padding in zip(pairwise(channels), rates, paddings, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=padding, dilation=rate), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(channels[-1], num_classes, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                _identity(layer, num_classes, noise if large else 0.0)


def vgg_front_end(num_classes: int, width: float = 1.0, padded: bool = False) -> nn.Sequential:
    """VGG-16 at stride 8, its layers named as in Caffe.

    Args:
        width: factor on the channels.
        padded: with zeros, so that an eighth of the size, rounded up, comes out.
    """
    layers: dict[str, nn.Module] = {}
    channels = 3

    def add(name: str, out: int, kernel_size: int, dilation: int) -> None:
        nonlocal channels
        padding = dilation * (kernel_size // 2) if padded else 0
        layers[f"conv{name}" if "_" in name else f"fc{name}"] = nn.Conv2d(
            channels, channels := round(out * width), kernel_size, padding=padding, dilation=dilation
        )
        layers[f"relu{name}"] = nn.ReLU(inplace=True)

    for stage, (out, convs) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for i in range(1, convs + 1):
            add(f"{stage}_{i}", out, 3, dilation=2 if stage == 5 else 1)
        if stage <= 3:
            layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    for name, kernel_size, dilation in (("6", 7, 4), ("7", 1, 1)):
        add(name, 4096, kernel_size, dilation)
        layers[f"drop{name}"] = nn.Dropout(0.5)
    for layer in layers.values():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    layers["final"] = final = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(final.weight, std=0.001)
    nn.init.zeros_(final.bias)  # type: ignore[arg-type]
    return nn.Sequential(OrderedDict(layers))


def load_vgg(front_end: nn.Sequential, weights: str) -> None:
    """Load torchvision's `vgg16` that `weights` names into all layers but the last.

    Raises:
        SegfolioError: weights that cannot be found or are no VGG-16.
    """
    state = read_weights(weights, "vgg16")
    with torch.device("meta"):
        vgg = vgg16()
    names = [name for name, module in vgg.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    own = [(name, layer) for name, layer in front_end.named_children() if isinstance(layer, nn.Conv2d)]
    found = {}
    for (name, layer), theirs in zip(own[:-1], names, strict=False):  # in the same order, apart from the last ones
        for kind in ("weight", "bias"):
            if (value := state.get(f"{theirs}.{kind}")) is not None:
                linear = value.ndim == 2  # a classifier's layer sees all of the last pooling
                found[f"{name}.{kind}"] = value.unflatten(1, (-1, *layer.kernel_size)) if linear else value
    load_weights(front_end, found, weights, new=("final.",))


def mirror(length: int, before: int, after: int, device: torch.device | None = None) -> Tensor:
    """`[before + length + after]`: indices along an axis that is continued by its mirror image, again and again.

    The pixels at the border are not repeated, as in OpenCV's `BORDER_REFLECT_101`.
    """
    period = max(1, 2 * (length - 1))
    places = torch.arange(-before, length + after, device=device) % period
    return torch.minimum(places, period - places)


@torch.no_grad()
def _identity(layer: nn.Conv2d, num_classes: int, noise: float) -> None:
    """Each output takes the mean of the inputs of its class, so that all of a class add up to what came in."""
    outputs, inputs = layer.weight.shape[:2]
    weight = num_classes / outputs
    nn.init.normal_(layer.weight, std=noise * weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    classes = torch.arange(outputs) * num_classes // outputs
    same = classes[:, None] == torch.arange(inputs) * num_classes // inputs
    middle = layer.kernel_size[0] // 2
    layer.weight[:, :, middle, middle] += weight * same.to(layer.weight)
