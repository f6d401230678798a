"""Fully Convolutional Networks for Semantic Segmentation
(Jonathan Long, Evan Shelhamer, Trevor Darrell, CVPR 2015), arXiv 1411.4038; and its journal version (Evan
Shelhamer, Jonathan Long, Trevor Darrell, TPAMI 2017), arXiv 1605.06211, where the two differ.

Follows the authors' Caffe networks (shelhamer/fcn.berkeleyvision.org): the image is padded by 100 pixels, the
classifier becomes the convolutions fc6 and fc7, scores start at zero and are fused with those of pool4 and
pool3, pooling rounds up, and every crop is the one that aligns the pixels.

Deviates:
- ImageNet weights are torchvision's, not Caffe's. Their inputs, RGB of unit variance instead of BGR of 0 to
  255, are 57 times smaller; the paper's `skip_scales` were chosen for the activations of the latter.
- AlexNet is torchvision's single tower (arXiv 1404.5997) and GoogLeNet torchvision's too, both without local
  response normalisation. The batch normalisation of the latter's weights is folded into the convolutions,
  and the 3x3 kernels of the third branch stand at the centre of the 5x5 ones of the paper (arXiv 1409.4842).
- FCN-GoogLeNet has no published code. Keeping the final 7x7 average pool, at stride 1, is what gives the
  receptive field of Table 1.
- Upsampling is per class; Caffe's matrix between classes is zero, and stays so unless it is learned.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import alexnet, googlenet, vgg16

from segfolio.errors import SegfolioError
from segfolio.layers.geometry import receptive_field, trace_field
from segfolio.weights.files import load_weights, read_weights

PADDING = 100  # of the first convolution: room for fc6 on small images
POOLS = {32: "pool5", 16: "pool4", 8: "pool3"}  # of each stride
SKIPS = {32: (), 16: ("pool4",), 8: ("pool4", "pool3")}  # of each net, in the order of fusion
CLASSIFIERS = {
    "vgg16": partial(vgg16, init_weights=False),
    "alexnet": alexnet,
    "googlenet": partial(googlenet, init_weights=False),
}
INCEPTIONS = {  # channels: 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
CHANNELS = {"pool3": 256, "pool4": 512, "pool5": 512, "fc7": 4096, "avgpool": 1024}


class FCN(nn.Module):
    """A classification network made convolutional, its scores upsampled to the pixels of the input.

    Args:
        num_classes: channels of the logits.
        backbone: `alexnet` and `googlenet` exist at stride 32 only.
        stride: of the finest scores: FCN-32s, FCN-16s (pool4 added), FCN-8s (pool3 added too).
        truncated: score the pooling layer of `stride` and nothing else: FCN-pool5, -pool4, -pool3
            (TPAMI, Table 3).
        skip_scales: factors on pool4 and pool3 before they are scored. The default is FCN-8s at-once; staged
            training has (1, 1).
        learned_upsampling: learn the x2 upsampling between scores, as in the CVPR paper. The last upsampling
            is bilinear in both papers.
        frozen_backbone: learn the score layers (and upsampling) alone, as in the "fixed" rows.
        width: factor on the channels of every layer, a multiple of 1/16; for tests.
        weights: None, the name of torchvision's ImageNet weights, or a file: a classifier with torchvision's
            names, an FCN of the same stride, or one of the next coarser stride (staged training).

    Raises:
        SegfolioError: a stride that the backbone does not have, weights that do not fit.
    """

    paper: ClassVar[str] = "FCN (Long, Shelhamer & Darrell, 2015), arXiv 1411.4038"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "FCN-8s": {"stride": 8},
        "FCN-16s": {"stride": 16},
        "FCN-32s": {"stride": 32},
        "FCN-AlexNet": {"backbone": "alexnet", "stride": 32},
        "FCN-GoogLeNet": {"backbone": "googlenet", "stride": 32},
        "FCN-pool5": {"stride": 32, "truncated": True},
        "FCN-pool4": {"stride": 16, "truncated": True},
        "FCN-pool3": {"stride": 8, "truncated": True},
    }
    tiny: ClassVar[dict[str, Any]] = {"width": 1 / 16, "skip_scales": (1.0, 1.0)}

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: Literal["vgg16", "alexnet", "googlenet"] = "vgg16",
        stride: Literal[32, 16, 8] = 8,
        truncated: bool = False,
        skip_scales: tuple[float, float] = (1e-2, 1e-4),
        learned_upsampling: bool = False,
        frozen_backbone: bool = False,
        width: float = 1.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if stride not in POOLS or (backbone != "vgg16" and (stride != 32 or truncated)):
            raise SegfolioError(
                f"FCN: no {'truncated ' if truncated else ''}network of {backbone} with stride {stride}; "
                "vgg16 has 32, 16 and 8, alexnet and googlenet have 32, not truncated"
            )
        self.backbone = backbone
        self.stride = stride
        top = POOLS[stride] if truncated else "avgpool" if backbone == "googlenet" else "fc7"
        self.trunk = _trunk(backbone, width)
        names = [name for name, _ in self.trunk.named_children()]
        if truncated:
            self.trunk = self.trunk[: names.index(top) + 1]
        self.score = _score(round(CHANNELS[top] * width), num_classes)
        self.skips = nn.ModuleDict()

        # Score i lies at input pixel `centre + step i`. Upsampling by s with a kernel of k pixels puts it at
        # position s i + (k - 1) / 2 of its output; each crop takes off what this is too much.
        _, _, step = field = trace_field(self.trunk)
        centre = field.centre
        for name, scale in zip(() if truncated else SKIPS[stride], skip_scales, strict=False):
            step //= 2
            centre -= 1.5 * step
            crop = int((centre - trace_field(self.trunk[: names.index(name) + 1]).centre) / step)
            channels = round(CHANNELS[name] * width)
            self.skips[name] = Skip(channels, num_classes, scale, crop, learned_upsampling)
        kernel_size = 2 * step if centre % 1 else 2 * step - 1  # even or odd, so that the crop is whole
        self.upsample = BilinearUpsampling(num_classes, kernel_size, step)
        self.crop = int((kernel_size - 1) / 2 - centre)

        if weights is None:
            for p in self.trunk.parameters():
                (nn.init.zeros_ if p.ndim == 1 else nn.init.kaiming_normal_)(p)
        else:
            self._load(weights)
        self.trunk.requires_grad_(not frozen_backbone)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` images to `[B, num_classes, H, W]` logits."""
        pools, x = {}, images
        for name, layer in self.trunk.named_children():
            x = layer(x)
            if name in self.skips:
                pools[name] = x
        scores = self.score(x)
        for name, skip in self.skips.items():
            scores = skip(scores, pools[name])
        return _crop(self.upsample(scores), self.crop, images)

    def geometry(self) -> tuple[int, int]:
        """Receptive field of the coarsest scores, and stride of the finest, in input pixels."""
        return receptive_field(self.trunk)[0], self.stride

    def _load(self, weights: str) -> None:
        state = read_weights(weights, self.backbone)
        if "score.weight" in state:
            newest = [f"skips.{name}." for name in self.skips][-1:]
            load_weights(self, state, weights, new=tuple(newest))
        else:
            load_weights(self.trunk, _transplant(state, self.backbone, self.trunk), weights)


class Skip(nn.Module):
    """Adds the scores of a finer layer to the scores so far, upsampled by 2."""

    def __init__(self, channels: int, num_classes: int, scale: float, crop: int, learned: bool) -> None:
        super().__init__()
        self.scale = scale
        self.crop = crop
        self.upsample = BilinearUpsampling(num_classes, 4, 2, learned)
        self.score = _score(channels, num_classes)

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        upsampled = self.upsample(scores)
        return upsampled + self.score(self.scale * _crop(features, self.crop, upsampled))


class BilinearUpsampling(nn.Module):
    """Transposed convolution of each channel with a bilinear kernel; no padding, no crop."""

    def __init__(self, channels: int, kernel_size: int, stride: int, learned: bool = False) -> None:
        super().__init__()
        self.stride = stride
        distance = (torch.arange(kernel_size) - (kernel_size - 1) / 2).abs()
        line = 1 - distance / stride
        kernel = torch.outer(line, line).repeat(channels, 1, 1, 1)
        if learned:
            self.weight = nn.Parameter(kernel)
        else:
            self.register_buffer("weight", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, stride=self.stride, groups=x.shape[1])


class Inception(nn.Module):
    """GoogLeNet's module (Szegedy et al., 2015, arXiv 1409.4842, Figure 2b): four branches, concatenated."""

    def __init__(self, channels: int, one: int, to3: int, three: int, to5: int, five: int, pool: int) -> None:
        super().__init__()

        def conv(inputs: int, out: int, kernel_size: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, out, kernel_size, padding=kernel_size // 2), nn.ReLU(inplace=True)]

        self.branch1 = nn.Sequential(*conv(channels, one, 1))
        self.branch2 = nn.Sequential(*conv(channels, to3, 1), *conv(to3, three, 3))
        self.branch3 = nn.Sequential(*conv(channels, to5, 1), *conv(to5, five, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv(channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


def _score(channels: int, num_classes: int) -> nn.Conv2d:
    score = nn.Conv2d(channels, num_classes, 1)
    for p in score.parameters():
        nn.init.zeros_(p)
    return score


def _crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]


def _trunk(backbone: str, width: float) -> nn.Sequential:
    """The classifier without its last layer, convolutional; VGG's layers are named as in Caffe."""
    if backbone == "vgg16":
        stages = [[(64, 3)] * 2, [(128, 3)] * 2, [(256, 3)] * 3, [(512, 3)] * 3, [(512, 3)] * 3]
        layers = _features(stages, width, stride=1, pool=2) | _classifier(512, 7, width)
    elif backbone == "alexnet":
        stages = [[(64, 11)], [(192, 5)], [(384, 3), (256, 3), (256, 3)]]
        layers = _features(stages, width, stride=4, pool=3) | _classifier(256, 6, width)
    else:
        layers = _features([[(64, 7)], [(64, 1), (192, 3)]], width, stride=2, pool=3)
        channels = 192
        for name, sizes in INCEPTIONS.items():
            if name in ("4a", "5a"):
                layers[f"pool{int(name[0]) - 1}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
            layers[f"inception{name}"] = Inception(*(round(n * width) for n in (channels, *sizes)))
            one, _, three, _, five, pool = sizes
            channels = one + three + five + pool
        layers |= {"avgpool": nn.AvgPool2d(7, stride=1), "drop": nn.Dropout(0.4)}
    return nn.Sequential(OrderedDict(layers))


def _features(stages: list[list[tuple[int, int]]], width: float, stride: int, pool: int) -> dict[str, nn.Module]:
    """Stages of convolutions (channels, kernel size), each closed by a pool; `stride` is the first one's."""
    layers: dict[str, nn.Module] = {"pad": nn.ZeroPad2d(PADDING)}
    channels = 3
    for s, convs in enumerate(stages, start=1):
        for i, (out, kernel_size) in enumerate(convs, start=1):
            out = round(out * width)
            step, padding = (stride, 0) if s == i == 1 else (1, kernel_size // 2)
            layers[f"conv{s}_{i}"] = nn.Conv2d(channels, out, kernel_size, step, padding)
            layers[f"relu{s}_{i}"] = nn.ReLU(inplace=True)
            channels = out
        layers[f"pool{s}"] = nn.MaxPool2d(pool, stride=2, ceil_mode=True)
    return layers


def _classifier(channels: int, kernel_size: int, width: float) -> dict[str, nn.Module]:
    hidden = round(4096 * width)
    return {
        "fc6": nn.Conv2d(round(channels * width), hidden, kernel_size),
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(0.5),
        "fc7": nn.Conv2d(hidden, hidden, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(0.5),
    }


def _transplant(state: Mapping[str, Tensor], backbone: str, trunk: nn.Sequential) -> dict[str, Tensor]:
    """A torchvision classifier's state dict under the names and in the shapes of `trunk`."""
    with torch.device("meta"):
        classifier = CLASSIFIERS[backbone]()
    names = [name for name, module in classifier.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    convs = [(name, module) for name, module in trunk.named_modules() if isinstance(module, nn.Conv2d)]
    result: dict[str, Tensor] = {}
    for (own, conv), name in zip(convs, names, strict=False):  # same order; the classifier has more layers
        if f"{name}.weight" not in state:
            continue  # reported as missing
        weight = state[f"{name}.weight"]
        if weight.ndim == 2:
            weight = weight.unflatten(1, (-1, *conv.kernel_size))
        if backbone == "googlenet":
            weight, bias = _fold(weight, state, name)
            weight = F.pad(weight, [(conv.kernel_size[0] - weight.shape[-1]) // 2] * 4)
        else:
            bias = state[f"{name}.bias"]
        result |= {f"{own}.weight": weight, f"{own}.bias": bias}
    return result


def _fold(weight: Tensor, state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution without bias and the batch normalisation after it, as one convolution.

    The first one also takes the input that torchvision's GoogLeNet makes of ImageNet-normalised images: in
    [-1, 1] instead of with unit variance.
    """
    gamma, beta, mean, var = (
        state[f"{name.removesuffix('conv')}bn.{k}"] for k in ("weight", "bias", "running_mean", "running_var")
    )
    if name == "conv1.conv":
        factor = torch.tensor([0.229, 0.224, 0.225]) / 0.5
        shift = (torch.tensor([0.485, 0.456, 0.406]) - 0.5) / 0.5
        mean = mean - torch.einsum("oihw,i->o", weight, shift)
        weight = weight * factor[:, None, None]
    scale = gamma / (var + 1e-3).sqrt()
    return weight * scale[:, None, None, None], beta - mean * scale
