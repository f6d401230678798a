"""DeepLab: Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs
(Liang-Chieh Chen, George Papandreou, Iasonas Kokkinos, Kevin Murphy, Alan L. Yuille, ICLR 2015), arXiv 1412.7062.

Follows section 3, and the authors' Caffe networks for what it leaves open: a VGG-16 of stride 8 whose poolings have 3x3
windows, the last two without stride, conv5 at rate 2, fc6 as a dilated convolution (Table 2 has its sizes), an average
pooling before it in LargeFOV; MSc adds to the scores those of the image and of four poolings, each by 128 channels.
Training is at stride 8, and scores are upsampled with corners aligned, by which they lie on the pixels they are of.

Deviates:
- ImageNet weights are torchvision's, not Caffe's. Of fc6 and fc7 a smaller network gets regularly spaced rows, columns
  and filters; how the authors chose theirs is not published.
- The CRF is a test protocol, no part of the network.
- Images are padded by their mean to 8 k + 1 pixels, the authors' to 513.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, dropout, pad

from segfolio.layers.geometry import receptive_field
from segfolio.layers.heads import resize_corners
from segfolio.weights.files import load_weights, read_weights

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions
BRANCH_WIDTH = 128
PARTS = ("weight", "bias")
OUTPUT_STRIDE = 8
BRANCHES = (1, 2, 4, 8, 8)  # strides of the image and of the first four poolings


class DeepLabV1(nn.Module):
    """VGG-16 at stride 8 with a dilated fc6. The defaults are LargeFOV.

    Args:
        kernel_size, rate, hidden: of fc6: window, dilation and channels.
        average: a 3x3 average pooling before fc6.
        multi_scale: scores of the image and of the first four poolings are added (MSc).
        frozen_trunk: learn the branches of `multi_scale` and the last layer alone, as the MSc rows do.
        width: factor on the channels of every layer, a multiple of 1/16; for tests.
        weights: None, the name of torchvision's weights for VGG-16, or a file: a VGG-16 with torchvision's names, or
            a DeepLabV1, which may lack the branches.

    Raises:
        SegfolioError: weights that do not fit.
    """

    paper: ClassVar[str] = "DeepLab v1 (Chen et al., 2015), arXiv 1412.7062"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DeepLab-LargeFOV": {},
        "DeepLab-MSc-LargeFOV": {"multi_scale": True},
        "DeepLab": {"kernel_size": 4, "rate": 4, "hidden": 4096, "average": False},
        "DeepLab-MSc": {"kernel_size": 4, "rate": 4, "hidden": 4096, "average": False, "multi_scale": True},
        "DeepLab-4x4": {"kernel_size": 4, "rate": 8, "hidden": 4096, "average": False},
        "DeepLab-7x7": {"kernel_size": 7, "rate": 4, "hidden": 4096, "average": False},
    }
    tiny: ClassVar[dict[str, Any]] = {"width": 1 / 16}

    def __init__(
        self,
        num_classes: int,
        kernel_size: int = 3,
        rate: int = 12,
        hidden: int = 1024,
        average: bool = True,
        multi_scale: bool = False,
        frozen_trunk: bool = False,
        width: float = 1.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk = vgg16(width)
        if average:
            self.trunk.append(nn.AvgPool2d(3, 1, 1))
        self.head = fully_connected(kernel_size, rate, hidden, num_classes, width)
        channels = [3, *(round(stage * width) for stage, _ in STAGES[:4])] if multi_scale else []
        self.branches = nn.ModuleList(Branch(c, round(BRANCH_WIDTH * width), num_classes) for c in channels)
        if weights is not None:
            self._load(weights)
        if frozen_trunk:
            self.trunk.requires_grad_(False)
            self.head[:-1].requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` to logits, `[B, C, H, W]` in evaluation.

        In training `[B, C, h, w]` of every eighth row and column, which are those of labels `[::8, ::8]`.
        """
        x = padded = pad_to_grid(images, OUTPUT_STRIDE)
        levels = [x]
        for name, layer in self.trunk.named_children():
            x = layer(x)
            if name.startswith("pool"):
                levels.append(x)
        scores = [self.head(x)]
        for branch, level, stride in zip(self.branches, levels, BRANCHES, strict=False):
            scores.append(branch(level, OUTPUT_STRIDE // stride if self.training else 1))
        return at_pixels(scores, images, padded, self.training)

    def geometry(self) -> tuple[int, int]:
        """Receptive field of fc6, and stride, in input pixels."""
        return receptive_field(nn.Sequential(self.trunk, self.head[0]))

    def _load(self, weights: str) -> None:
        state = read_weights(weights, "vgg16")
        if "head.fc8.weight" in state:
            load_weights(self, state, weights, new=("branches.",))
        else:
            load_weights(self.trunk, transplant_trunk(state, self.trunk), weights)
            load_weights(self.head, transplant_head(state, self.head), weights, new=("fc8.",))


class Branch(nn.Module):
    """Scores of early features: a 3x3 convolution and a 1x1 one, each with dropout, and the classifier (MSc)."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)
        self.fc = nn.Conv2d(width, width, 1)
        self.score = nn.Conv2d(width, num_classes, 1)
        for layer, std in ((self.conv, 0.001), (self.fc, 0.001), (self.score, 0.01)):
            _initialise(layer, std)

    def forward(self, x: Tensor, stride: int) -> Tensor:
        """The image, or features of it, to scores at every `stride`-th of their places."""
        x = conv2d(x, self.conv.weight, self.conv.bias, stride, padding=1)
        x = self.fc(dropout(x.relu(), training=self.training))
        return self.score(dropout(x.relu(), training=self.training))


def vgg16(width: float) -> nn.Sequential:
    """The convolutions and poolings of VGG-16 at stride 8, named as in Caffe."""
    layers: dict[str, nn.Module] = {}
    channels = 3
    for s, (stage, convs) in enumerate(STAGES, start=1):
        rate = 2 if s == 5 else 1
        for i in range(1, convs + 1):
            out = round(stage * width)
            layers[f"conv{s}_{i}"] = nn.Conv2d(channels, out, 3, padding=rate, dilation=rate)
            layers[f"relu{s}_{i}"] = nn.ReLU(inplace=True)
            channels = out
        layers[f"pool{s}"] = nn.MaxPool2d(3, stride=2 if s < 4 else 1, padding=1)
    return _he(nn.Sequential(OrderedDict(layers)))


def fully_connected(kernel_size: int, rate: int, hidden: int, num_classes: int, width: float) -> nn.Sequential:
    """VGG's three last layers as convolutions."""
    channels, hidden = round(STAGES[-1][0] * width), round(hidden * width)
    padding = (kernel_size - 1) * rate // 2
    layers = {
        "fc6": nn.Conv2d(channels, hidden, kernel_size, padding=padding, dilation=rate),
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(0.5),
        "fc7": nn.Conv2d(hidden, hidden, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(0.5),
    }
    head = _he(nn.Sequential(OrderedDict(layers)))
    head.add_module("fc8", _initialise(nn.Conv2d(hidden, num_classes, 1), 0.01))
    return head


def transplant_trunk(state: Mapping[str, Tensor], trunk: nn.Sequential) -> dict[str, Tensor]:
    """Of torchvision's state dict of a VGG-16, what is `trunk`'s."""
    own = [name for name, layer in trunk.named_children() if isinstance(layer, nn.Conv2d)]
    theirs = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
    names = {f"{a}.{part}": f"features.{b}.{part}" for a, b in zip(own, theirs, strict=False) for part in PARTS}
    return {name: state[key] for name, key in names.items() if key in state}


def transplant_head(state: Mapping[str, Tensor], head: nn.Sequential) -> dict[str, Tensor]:
    """Likewise of fc6 and fc7, thinned out to the size that they have in `head`."""
    if not all(f"classifier.{i}.{part}" in state for i in (0, 3) for part in PARTS):
        return {}  # reported as missing
    hidden, _, size, _ = head.get_parameter("fc6.weight").shape
    fc6, fc7 = state["classifier.0.weight"].unflatten(1, (-1, 7, 7)), state["classifier.3.weight"]
    places, step = torch.linspace(0, 6, size).round().long(), len(fc7) // hidden
    return {
        "fc6.weight": fc6[::step, :, places][..., places],
        "fc6.bias": state["classifier.0.bias"][::step],
        "fc7.weight": fc7[::step, ::step, None, None],
        "fc7.bias": state["classifier.3.bias"][::step],
    }


def pad_to_grid(images: Tensor, stride: int) -> Tensor:
    """Zeros, the mean of normalised images, on the right and below, up to `stride` k + 1 pixels."""
    height, width = images.shape[-2:]
    return pad(images, (0, (1 - width) % stride, 0, (1 - height) % stride))


def at_pixels(scores: list[Tensor], images: Tensor, padded: Tensor, training: bool) -> Tensor:
    """The sum of scores of several strides: at every eighth pixel of `images` in training, at every pixel else."""
    height, width = images.shape[-2:]
    if training:
        return reduce(torch.add, scores)[..., : -(-height // OUTPUT_STRIDE), : -(-width // OUTPUT_STRIDE)]
    return reduce(torch.add, [resize_corners(each, padded) for each in scores])[..., :height, :width]


def _he(layers: nn.Sequential) -> nn.Sequential:
    for p in layers.parameters():
        (nn.init.zeros_ if p.ndim == 1 else nn.init.kaiming_normal_)(p)
    return layers


def _initialise(layer: nn.Conv2d, std: float) -> nn.Conv2d:
    for p in layer.parameters():
        nn.init.normal_(p, std=std) if p.ndim > 1 else nn.init.zeros_(p)
    return layer
