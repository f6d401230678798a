"""Backbones whose output stride is chosen, on the same weights: strides become dilations ("à trous", DeepLab, arXiv
1606.00915, section 3.1)."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import timm
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torchvision.models import get_model_weights, list_models

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name
from segfolio.weights.backbones import load_pretrained
from segfolio.weights.files import load_weights, read_weights


class DilatedNetwork(nn.Module):
    """What the networks on a dilated backbone share; a subclass adds head and `forward`.

    Args:
        backbone: timm's name of a ResNet or ResNeSt, or of an Xception, MobileNetV2 or EfficientNet. A ResNet's
            parameters are named as torchvision's.
        indices: which of timm's features `features` returns: 0 to 4, of strides 2, 4, 8, 16 and 32 undilated.
        output_stride: of the last features.
        eval_output_stride: in evaluation, if another.
        grid: see `OutputStride`.
        in_channels: of the images.
        arguments: of timm's constructor.

    Attributes:
        backbone: without classifier.
        channels: of each feature.

    Raises:
        SegfolioError: an unknown backbone, or one that cannot be dilated so.
    """

    def __init__(
        self,
        backbone: str,
        indices: Sequence[int],
        output_stride: int,
        eval_output_stride: int | None = None,
        grid: Sequence[int] | None = None,
        in_channels: int = 3,
        **arguments: Any,
    ) -> None:
        super().__init__()
        check_timm_name(backbone)
        self.name, self.indices = backbone, list(indices)
        try:
            self.backbone = timm.create_model(backbone, num_classes=0, in_chans=in_channels, **arguments)
        except TypeError:
            raise SegfolioError(f"timm's {backbone} does not take {', '.join(arguments)}; take a ResNet") from None
        stages, stride = _stages(self.backbone, backbone)
        self.backbone.prune_intermediate_layers(self.indices, prune_head=True)  # what gets no gradient
        self.channels = [self.backbone.feature_info[i]["num_chs"] for i in indices]
        self.strides = OutputStride(stages, stride, grid)
        self.output_strides = {True: output_stride, False: eval_output_stride or output_stride}
        for stride in (self.output_strides[False], output_stride):
            self.strides.set(stride)

    @property
    def output_stride(self) -> int:
        """In the present mode."""
        return self.output_strides[self.training]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.strides.set(self.output_stride)
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """`[B, C_in, H, W]` to one `[B, C, h, w]` per index."""
        return self.backbone.forward_intermediates(images, indices=self.indices, intermediates_only=True)

    def load(self, weights: str, torchvision: str = "") -> None:
        """Load weights of the backbone or of all.

        Args:
            weights: a tag of timm's weights for the backbone, e.g. `tv_in1k`; a file with a state dict of timm's
                backbone or of this network; or the name of torchvision's weights for the model `torchvision`.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        if torchvision in list_models() and weights in get_model_weights(torchvision).__members__:
            load_weights(self, read_weights(weights, torchvision), weights)
        else:
            load_pretrained(self, weights, self.name, None, lambda state: self._load_backbone(state, weights))

    def _load_backbone(self, state: dict[str, Tensor], weights: str) -> None:
        own = self.backbone.state_dict()
        load_weights(self.backbone, {key: value for key, value in state.items() if key in own}, weights)


class OutputStride:
    """Sets the stride of the last of `stages`, as often as asked.

    A window that gives up its stride keeps its dilation, and those after it have twice as much: what the undilated
    network computes, at more places, and what torchvision's `replace_stride_with_dilation` does.

    Args:
        stages: in their order; each has one stride at most, in its first windows or in its last.
        stride: of the input of the first stage.
        grid: dilations of the blocks of the last stage over that of the stage, in place of the rule above
            (multi-grid, DeepLabV3, arXiv 1706.05587, section 3.2).
    """

    def __init__(self, stages: Iterable[nn.Module], stride: int, grid: Sequence[int] | None = None) -> None:
        self.stages, self.stride, self.grid = list(stages), stride, grid
        self.own = {  # of each layer that has a stride by nature: stride and kernel size
            layer: (_rows(layer.stride), _rows(layer.kernel_size))
            for stage in self.stages
            for layer in stage.modules()
            if isinstance(layer, nn.Conv2d | nn.AvgPool2d) and _rows(layer.stride) > 1
        }

    def set(self, output_stride: int) -> None:
        """Change strides, dilations and paddings in place.

        Raises:
            SegfolioError: a stride that the stages cannot have, a grid of another number of blocks.
        """
        stride, dilation, possible = self.stride, 1, [self.stride]
        for stage in self.stages:
            own = max((self.own[layer][0] for layer in stage.modules() if layer in self.own), default=1)
            if own > 1:
                possible.append(possible[-1] * own)
            before = dilation
            if keep := stride * own <= output_stride:
                stride *= own
            else:
                dilation *= own
            self._set_stage(stage, keep, before, dilation)
        if stride != output_stride:
            raise SegfolioError(f"output_stride is {output_stride}; this backbone can have {possible}")
        if self.grid is not None:
            self._set_grid(self.grid, dilation)

    def _set_grid(self, grid: Sequence[int], dilation: int) -> None:
        blocks = list(self.stages[-1].children())
        if len(blocks) != len(grid):
            raise SegfolioError(
                f"grid has {len(grid)} values for the {len(blocks)} blocks of the last stage; give one each"
            )
        for block, unit in zip(blocks, grid, strict=True):
            for layer in _windows(block):
                _dilate(layer, unit * dilation)

    def _set_stage(self, stage: nn.Module, keep: bool, before: int, after: int) -> None:
        for layer in stage.modules():
            if layer in self.own:
                stride, kernel_size = self.own[layer]
                layer.stride = (stride, stride) if keep else (1, 1)
                if isinstance(layer, nn.AvgPool2d) and kernel_size == stride:  # of a shortcut
                    layer.kernel_size = kernel_size if keep else 1
        dilation = before
        windows = _windows(stage)
        if not any(layer in self.own for layer in windows):
            dilation = after
        for layer in windows:
            _dilate(layer, dilation)
            if layer in self.own:
                dilation = after


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of globally pooled features: a lone image, which has no variance, is normalised by the
    running statistics in training too, where torch refuses it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def _stages(backbone: Any, name: str) -> tuple[list[nn.Module], int]:
    """Stages of a timm model, and the stride of their input."""
    if hasattr(backbone, "layer4"):
        return [backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4], 4
    if hasattr(backbone, "blocks") and (hasattr(backbone, "stem") or hasattr(backbone, "conv_stem")):
        return list(backbone.blocks), 2
    raise SegfolioError(f"backbone {name} cannot be dilated; take a ResNet, ResNeSt, Xception or MobileNetV2")


def _windows(module: nn.Module) -> list[nn.Module]:
    """Layers that see more than a pixel, but for poolings that only shrink a shortcut."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d)
        and _rows(layer.kernel_size) > (1 if isinstance(layer, nn.Conv2d) else 2)
    ]


def _dilate(layer: nn.Module, dilation: int) -> None:
    if isinstance(layer, nn.Conv2d):
        layer.dilation = (dilation, dilation)
        layer.padding = (dilation * (_rows(layer.kernel_size) // 2),) * 2


def _rows(value: Any) -> int:
    return value if isinstance(value, int) else value[0]
