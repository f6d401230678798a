"""MaX-DeepLab: End-to-End Panoptic Segmentation with Mask Transformers
(Huiyu Wang, Yukun Zhu, Hartwig Adam, Alan Yuille, Liang-Chieh Chen, CVPR 2021), arXiv 2012.00759.

Follows section 3 and, where the paper leaves it open, the authors' release (deeplab2, google-research): a residual
network whose stages of stride 16 attend along the axes, a memory of N slots that pixels and memory read in both
directions (dual path), a decoder that is stacked L times, and masks as the softmax over slots of the product of a
slot's embedding with a pixel's, of unit length. The semantic logits and the pixels' embeddings are supervised, too, see
`losses.MaXDeepLabLoss`.

Deviates:
- A mask's logit is that of its probability among all slots, so that its sigmoid is the softmax over slots.
- Stochastic depth grows with the stage, as in the release; in the paper it is constant.
- The semantic head of S, whose features have stride 16, is DeepLabV3+'s without depthwise convolutions, as there.
- Weights of the release, which are TensorFlow's, are not read.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, relu

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.aspp import ASPP
from segfolio.layers.axial import DualPath, Pointwise, ResidualBlock, conv
from segfolio.layers.outputs import MaskOutput
from segfolio.weights.files import load_weights, read_file

STAGES = 4  # over which stochastic depth grows
FEEDFORWARD = 2048  # of the memory
VOID = 0.9  # probability of "no object" at first
LEAST = 1e-6  # below it, one less a probability is none


class MaXDeepLab(nn.Module):
    """N slots, each with a class and a mask; masks do not overlap.

    Args:
        wide: the Wide-ResNet of L, whose first three stages have blocks of two 3x3 convolutions; else a ResNet whose
            stem is Inception's.
        blocks: of the stages with strides 4, 8, 16 and 16.
        slots: of the memory.
        memory: its channels.
        width: of the ResNet, 1 of the paper's.
        bottleneck, keys, values: of a block with axial attention, of its base width.
        dual_stride: 32 has the dual path in the last stage and after it, 16 in all blocks of stride 16.
        dual_filters: of the dual path's keys in the last stage.
        stacks: of the decoder before the semantic head, and of those behind, L in all.
        decoder_blocks: of a decoder's stage before the semantic head and behind.
        drop_path: stochastic depth at the last stage.
        span: positions of axial attention along an axis, at stride 16.
        embedding: channels of a pixel's and a slot's.
        mask_scale: standard deviation of the mask logits at first, which is learned.
        checkpointing: in training, keep the inputs alone of each block, each exchange with the memory and each head,
            and compute these again in the backward pass.
        weights: None, or a file with a state dict of this network, or of its backbone alone: `stem` and the blocks of
            `stages`.

    Raises:
        SegfolioError: weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "MaX-DeepLab (Wang et al., 2021), arXiv 2012.00759"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "MaX-DeepLab-S": {},
        "MaX-DeepLab-L": {
            "wide": True,
            "blocks": (3, 6, 3, 3),
            "memory": 512,
            "bottleneck": 4,
            "keys": 2,
            "values": 4,
            "dual_stride": 16,
            "dual_filters": 256,
            "stacks": (1, 1),
            "decoder_blocks": (1, 3),
        },
    }
    queries_argument: ClassVar[str] = "slots"
    tiny: ClassVar[dict[str, Any]] = {
        "blocks": (1, 1, 2, 1),
        "slots": 8,
        "memory": 32,
        "width": 0.25,
        "drop_path": 0.0,
        "mask_scale": 2.0,
    }
    beside: ClassVar[tuple[str, ...]] = ("semantic", "features")

    def __init__(
        self,
        num_classes: int,
        wide: bool = False,
        blocks: Sequence[int] = (3, 4, 6, 3),
        slots: int = 128,
        memory: int = 256,
        width: float = 1.0,
        bottleneck: int = 2,
        keys: int = 1,
        values: int = 2,
        dual_stride: int = 32,
        dual_filters: int = 128,
        stacks: Sequence[int] = (0, 0),
        decoder_blocks: Sequence[int] = (1, 1),
        drop_path: float = 0.2,
        span: int = 255,
        embedding: int = 128,
        mask_scale: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        stem, attention = int(64 * width), (bottleneck, keys, values)
        self.shape = Shape(width, wide, attention, span, drop_path, memory, dual_stride, dual_filters, checkpointing)
        self.checkpointing = checkpointing
        layers = [conv(3, stem, 3, 2)]
        if not wide:
            layers += [nn.ReLU(), conv(stem, stem, 3), nn.ReLU(), conv(stem, 2 * stem, 3)]
        self.stem, channels = nn.Sequential(*layers), stem if wide else 2 * stem
        self.num_queries = slots
        self.memory = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, slots, memory)))
        self.stages = nn.ModuleList()
        stages = [(2, 3, 1), (2, blocks[0], 2)] if wide else [(2, blocks[0], 2)]
        stages += [(4, blocks[1], 2), (8, blocks[2], 2), (16, blocks[3], 2)]
        widths: list[int] = []
        for place, (stride, number, step) in enumerate(stages):
            filters = (16 if wide and not place else 16 * stride) * width * 2
            group = Group(self.shape, channels, int(filters), number, stride, step, stride)
            self.stages.append(group)
            channels, widths = group.channels, [*widths, group.channels]
        kept = {4: [widths[-4]], 8: [widths[-3]], 16: [channels]}
        self.low_level = (kept[4][0], kept[8][0])
        self.behind = None if stacks[0] else Group(self.shape, channels, channels // 4, decoder_blocks[1], 32, 1, 16)
        self.path, self.stacks = decoder_path(*stacks), tuple(stacks)
        self.decoder, semantic = nn.ModuleList(), channels
        for stride, parts in self.path:
            original = 32 if stride == 16 else stride
            outputs = int(64 * original * width)
            fuse = Fuse([channels, *kept[stride][-2:]], outputs)
            groups = [
                Group(self.shape, outputs, outputs // 4, decoder_blocks[part], original, 1, stride) for part in parts
            ]
            self.decoder.append(nn.ModuleList([fuse, *groups]))
            kept[stride].append(outputs)
            channels = outputs
        head = int(256 * width)
        self.semantic: Any = SemanticDecoder(semantic, self.low_level, head) if not sum(stacks) else None
        self.semantic_head = separable(head if self.semantic else int(256 * width), head, num_classes)
        self.pixel_head = separable(channels, head, embedding)
        self.pixel_norm, self.mask_norm = nn.BatchNorm2d(embedding), nn.BatchNorm2d(1)
        self.to_class, self.to_mask = Pointwise(memory, memory), Pointwise(memory, memory)
        self.mask_embedding = Pointwise(memory, embedding)
        self.class_predictor = nn.Linear(memory, num_classes + 1)
        nn.init.trunc_normal_(self.class_predictor.weight, std=0.01)
        with torch.no_grad():  # nearly every slot says "no object" at first
            self.class_predictor.bias.zero_()
            self.class_predictor.bias[-1] = math.log(num_classes * VOID / (1 - VOID))
            self.mask_norm.weight.fill_(mask_scale)
        if checkpointing:
            see_once(self)
        if weights is not None:
            if not Path(weights).is_file():
                raise SegfolioError(f"{weights} is not a file; expected a state dict of MaXDeepLab")
            backbone = re.compile(r"stem\.|stages\.\d+\.blocks\.")
            beside = tuple(key for key in self.state_dict() if not backbone.match(key))
            load_weights(self, read_file(Path(weights)), weights, new=beside)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size, to class logits and masks of a quarter of it; in training with `semantic` logits
        `[B, C, h, w]` and the `features` `[B, E, h, w]` of pixels, of unit length."""
        maps, memory = through(self, self.stem, images), self.memory.expand(len(images), -1, -1)
        found = []
        for stage in self.stages:
            maps, memory = stage(maps, memory)
            found.append(maps)
        kept = {4: [found[-4]], 8: [found[-3]], 16: [maps]}
        last = maps
        if self.behind is not None:
            maps, memory = self.behind(maps, memory)
            kept[16] = [maps]
        fine = []
        for (stride, _), stage in zip(self.path, self.decoder, strict=True):
            fuse, *groups = stage.children()
            maps = through(self, fuse, [maps, *kept[stride][-2:]], kept[stride][0].shape[-2:])
            for group in groups:
                maps, memory = group(maps, memory)
            kept[stride].append(maps)
            fine += [maps] if stride == 4 else []
        features = normalize(self.pixel_norm(through(self, self.pixel_head, relu(maps))), dim=1)
        embeddings = self.mask_embedding(relu(self.to_mask(memory)))
        logits = torch.einsum("bne,behw->bnhw", embeddings, features)
        logits = self.mask_norm(logits.flatten(0, 1)[:, None])[:, 0].view_as(logits)
        classes = self.class_predictor(relu(self.to_class(memory)))
        dense = None
        if self.training:
            if self.semantic is not None:
                seen = through(self, self.semantic, relu(last), relu(found[-3]), relu(found[-4]))
            else:
                seen = relu(fine[self.stacks[0]])
            dense = {"semantic": through(self, self.semantic_head, seen), "features": features}
        return MaskOutput(classes, through(self, exclusive, logits), [], dense=dense)


class Shape(NamedTuple):
    """What the blocks of a network have in common; see `MaXDeepLab`."""

    width: float
    wide: bool
    attention: tuple[int, int, int]
    span: int
    drop_path: float
    memory: int
    dual_stride: int
    dual_filters: int
    checkpointing: bool


class Group(nn.Module):
    """Residual blocks, and behind each the exchange with the memory where its stride asks for it.

    Args:
        filters: base width of a block, which has four times as many channels.
        original: the stride by which the kind of block is chosen: that of its input in a ResNet of stride 32.
        step: by which the original stride grows in the first block; pixels go no further than to stride 16.
        stride: of the pixels that come in.
    """

    def __init__(
        self, shape: Shape, inputs: int, filters: int, number: int, original: int, step: int, stride: int
    ) -> None:
        super().__init__()
        self.channels, self.checkpointing = 4 * filters, shape.checkpointing
        self.blocks, self.exchanges = nn.ModuleList(), nn.ModuleList()
        bottleneck, keys, values = shape.attention
        now, least = original, 4 if shape.wide else 16
        for index in range(number):
            rate = shape.drop_path * (math.log2(now) - 1) / STAGES if now >= least else 0.0
            attention = None
            if now >= 16:
                widths, attention = [filters * bottleneck, filters, 4 * filters], (filters * keys, filters * values)
            else:
                widths = [4 * filters] * 2 if shape.wide else [filters, filters, 4 * filters]
            moved = step if index == 0 and original < 16 else 1
            self.blocks.append(
                ResidualBlock(inputs if index == 0 else 4 * filters, widths, moved, attention, shape.span, rate)
            )
            now *= step if index == 0 else 1
            exchange: Any = nn.Identity()
            if now >= shape.dual_stride:
                keep = int(shape.dual_filters * stride / 16)
                exchange = DualPath(4 * filters, shape.memory, keep, int(FEEDFORWARD * min(1, shape.width)), rate)
            self.exchanges.append(exchange)

    def forward(self, maps: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        for block, exchange in zip(self.blocks, self.exchanges, strict=True):
            maps = through(self, block, maps)
            if isinstance(exchange, DualPath):
                maps, memory = through(self, exchange, maps, memory)
        return maps, memory


class Fuse(nn.Module):
    """Maps of several sizes and widths, added up at one."""

    def __init__(self, inputs: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Identity() if c == outputs else conv(c, outputs) for c in inputs)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The sum, of `size`; a map of more pixels is read at every second one."""
        total = []
        for each, projection in zip(maps, self.projections, strict=True):
            projected: Any = projection
            if not isinstance(projection, nn.Identity):
                finer = each.shape[-2] > size[0] or each.shape[-1] > size[1]
                projected = projection(relu(each[..., ::2, ::2] if finer else each))
            else:
                projected = each
            total.append(interpolate(projected, tuple(size), mode="bilinear", align_corners=True))
        return torch.stack(total).sum(0)


class SemanticDecoder(nn.Module):
    """From features of stride 16 to those of stride 4, as in Panoptic-DeepLab (Cheng et al., 2020)."""

    def __init__(self, channels: int, low_level: tuple[int, int], width: int) -> None:
        super().__init__()
        self.pool = ASPP(channels, (6, 12, 18), width, dropout=0.0)
        side = (width // 4, width // 8)
        fine, middle = low_level
        self.project = nn.ModuleList(
            [nn.Sequential(conv(c, s), nn.ReLU()) for c, s in zip((middle, fine), side, strict=True)]
        )
        self.fuse = nn.ModuleList(nn.Sequential(*separable(width + s, width, None)) for s in side)

    def forward(self, coarse: Tensor, *finer: Tensor) -> Tensor:
        maps = self.pool(coarse)
        for level, project, fuse in zip(finer, self.project, self.fuse, strict=True):
            maps = interpolate(maps, level.shape[-2:], mode="bilinear", align_corners=True)
            maps = fuse(torch.cat([maps, project(level)], 1))
        return maps


def separable(inputs: int, width: int, outputs: int | None) -> Any:
    """5x5 of each channel, then of each pixel, and the last layer if there are `outputs`."""
    depthwise = nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs, bias=False)
    layers = [depthwise, nn.BatchNorm2d(inputs), nn.ReLU(), conv(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Conv2d(width, outputs, 1)] if outputs else []))


def exclusive(logits: Tensor) -> Tensor:
    """Logits whose sigmoid is the softmax of `logits` `[B, N, h, w]` over N."""
    log = logits.float().log_softmax(1).clamp(max=-LEAST)
    return (log - torch.log(-torch.expm1(log))).to(logits.dtype)


def decoder_path(before: int, behind: int) -> list[tuple[int, tuple[int, ...]]]:
    """The strides of the decoder's stages, up to 4 and down to 16, and whose blocks a stage has: 0 of the part before
    the semantic head, 1 of the one behind."""
    stride, down, stack, path = 16, False, 0, []
    part = 0 if before else 1
    while stack < before + behind or stride > 4:
        stride = 2 * stride if down else stride // 2
        parts = [part] if part == 0 else []
        if stride == 16:
            stack, down = stack + 1, False
            part = 1 if stack == before else part
        path.append((stride, tuple(parts + [1] * (part == 1))))
        down = stride == 4 or (down and stride != 16)
    return path
