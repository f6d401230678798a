"""InternImage: Exploring Large-Scale Vision Foundation Models with Deformable Convolutions
(Wenhai Wang, Jifeng Dai, Zhe Chen, Zhenhang Huang, Zhiqi Li, Xizhou Zhu, Xiaowei Hu, Tong Lu, Lewei Lu, Hongsheng Li,
Xiaogang Wang, Yu Qiao, CVPR 2023), arXiv 2211.05778.

Follows section 3 and the authors' release for segmentation (OpenGVLab/InternImage): four stages of blocks like those of
transformers, whose attention is a deformable convolution (DCNv3) that samples nine points for each group of channels,
at offsets and with weights that the pixel's surroundings say; the head of UPerNet on all stages, and an auxiliary head
on the third. The convolution is plain torch, with no operator to compile. State dicts of the authors' networks and
classifiers load as `weights`.

Fast, with the same logits and gradients: see `layers.uper_head`.

Deviates:
- InternImage-H is not here, whose blocks are normalised otherwise.
- Gradients of sampling are not deterministic on CUDA.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.stochastic_depth import rates_of
from segfolio.layers.uper_head import HEAD_KEYS, UPerHead, auxiliary_head
from segfolio.layers.vit import check_at_least_a_patch
from segfolio.weights.files import load_weights, read_file

STAGES, PATCH, POINTS = 4, 4, 9
KEYS = (  # of the authors', to ours
    *HEAD_KEYS,
    (r"^(backbone\.)?(patch_embed|levels)\.", r"encoder.\2."),
    (r"^(encoder\..*)\.norm(\d?)\.[01]\.", r"\1.norm\2."),
    (r"\.downsample\.conv\.", ".downsample."),
    (r"\.downsample\.norm\.", ".downsample_norm."),
    (r"\.dcn\.dw_conv\.0\.", ".dcn.depthwise."),
    (r"\.dcn\.dw_conv\.1\.1\.", ".dcn.norm."),
    (r"\.mlp\.fc(\d)\.", r".fc\1."),
)
CLASSIFIER = re.compile(r"^(conv_head|head|avgpool|backbone\.conv_head|backbone\.head)\.")


class InternImage(nn.Module):
    """Four stages of deformable convolutions and the head of UPerNet, logits at stride 4.

    Args:
        channels: of the first stage; each stage has twice those of the one before.
        blocks: of each stage.
        groups: of each stage's deformable convolutions.
        post_norm: normalise what a branch gives, not what it gets.
        offset_scale: factor of the points' places around their pixel.
        layer_scale: at which the branches of a block begin.
        width: channels of the head.
        auxiliary: whether the third stage is supervised, too, as `auxiliary["aux"]`.
        drop_path: stochastic depth of the last block; that of the first is 0.
        dropout: of the heads' channels.
        checkpointing: in training, keep the inputs alone of each block and of each step of the heads, and compute them
            again in the backward pass.
        weights: None; or a file with a state dict of the authors' network or classifier, or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: channels that the groups do not divide, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "InternImage (Wang et al., 2023), arXiv 2211.05778"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "InternImage-T": {},
        "InternImage-S": {
            **{"channels": 80, "blocks": (4, 4, 21, 4), "groups": (5, 10, 20, 40), "post_norm": True},
            "drop_path": 0.3,
        },
        "InternImage-B": {
            **{"channels": 112, "blocks": (4, 4, 21, 4), "groups": (7, 14, 28, 56), "post_norm": True},
            "drop_path": 0.4,
        },
        "InternImage-L": {
            **{"channels": 160, "blocks": (5, 5, 22, 5), "groups": (10, 20, 40, 80), "post_norm": True},
            **{"offset_scale": 2.0, "drop_path": 0.4},
        },
        "InternImage-XL": {
            **{"channels": 192, "blocks": (5, 5, 24, 5), "groups": (12, 24, 48, 96), "post_norm": True},
            **{"offset_scale": 2.0, "drop_path": 0.4},
        },
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"channels": 8, "blocks": (1, 1, 2, 1), "groups": (1, 2, 2, 4), "width": 16},
        **{"drop_path": 0.0, "dropout": 0.0},
    }

    def __init__(
        self,
        num_classes: int,
        channels: int = 64,
        blocks: Sequence[int] = (4, 4, 18, 4),
        groups: Sequence[int] = (4, 8, 16, 32),
        post_norm: bool = False,
        offset_scale: float = 1.0,
        layer_scale: float = 1.0,
        width: int = 512,
        auxiliary: bool = True,
        drop_path: float = 0.2,
        dropout: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        stages = [channels * 2**stage for stage in range(STAGES)]
        if len(blocks) != STAGES or len(groups) != STAGES or any(c % g for c, g in zip(stages, groups, strict=True)):
            raise SegfolioError(
                f"InternImage: blocks {list(blocks)}, groups {list(groups)}; give four of each, the groups divisors of "
                f"the stages' {', '.join(map(str, stages))} channels"
            )
        levels = []
        for stage, rates in enumerate(rates_of(drop_path, blocks)):
            arguments = (stages[stage], groups[stage], post_norm, offset_scale, layer_scale)
            levels.append(Stage(arguments, rates, stage == STAGES - 1, checkpointing))
        self.checkpointing = checkpointing
        self.encoder = nn.Module()
        self.encoder.patch_embed = Stem(in_channels, channels)
        self.encoder.levels = nn.ModuleList(levels)
        self.head = UPerHead(stages, width, num_classes, dropout, checkpointing)
        self.auxiliary = auxiliary_head(stages[2], max(1, width // 2), num_classes, dropout) if auxiliary else None
        if checkpointing:
            see_once(self)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up; in training also those of
        the auxiliary head, of a sixteenth.

        Raises:
            SegfolioError: images smaller than four pixels, of which a first feature is.
        """
        check_at_least_a_patch("InternImage", images, PATCH)
        encoder: Any = self.encoder
        tokens, maps = encoder.patch_embed(images), []
        for stage in encoder.levels:
            found = stage(tokens)
            maps.append(found.permute(0, 3, 1, 2))
            tokens = stage.smaller(found)
        auxiliary = {}
        if self.training and self.auxiliary is not None:
            auxiliary["aux"] = through(self, self.auxiliary, maps[2])
        return PixelOutput(self.head(maps), auxiliary)

    def load(self, weights: str) -> None:
        """Load weights of all, or of the encoder alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        if not Path(weights).is_file():
            raise SegfolioError(
                f"{weights} is no file; expected a state dict of InternImage, such as internimage_t_1k_224.pth of the "
                "authors' release"
            )
        own = of_ours(read_file(Path(weights)))
        new = () if any(key.startswith("head.") for key in own) else ("head.", "auxiliary.")
        if self.auxiliary is None:
            own = {key: value for key, value in own.items() if not key.startswith("auxiliary.")}
        load_weights(self, own, weights, new)


class Stem(nn.Module):
    """Two convolutions of stride 2, each normalised over the channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, 2, 1)
        self.norm1 = nn.LayerNorm(channels // 2, eps=1e-6)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, 2, 1)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to `[B, h, w, C]`, of a quarter of the size, rounded up."""
        first = gelu(self.norm1(self.conv1(images).permute(0, 2, 3, 1)))
        return self.norm2(self.conv2(first.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """Blocks on tokens `[B, h, w, C]`, and what makes of them those of the next stage."""

    def __init__(
        self,
        arguments: tuple[int, int, bool, float, float],
        drop_path: Sequence[float],
        last: bool,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        channels, post_norm = arguments[0], arguments[2]
        self.blocks = nn.ModuleList(Block(*arguments, rate) for rate in drop_path)
        self.norm = None if post_norm else nn.LayerNorm(channels, eps=1e-6)
        self.downsample = None if last else nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False)
        self.downsample_norm = None if last else nn.LayerNorm(2 * channels, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = through(self, block, tokens)
        return tokens if self.norm is None else self.norm(tokens)

    def smaller(self, tokens: Tensor) -> Tensor:
        if self.downsample is None or self.downsample_norm is None:
            return tokens
        return self.downsample_norm(self.downsample(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """A deformable convolution and a feed-forward network, each scaled by channel."""

    def __init__(
        self,
        channels: int,
        groups: int,
        post_norm: bool,
        offset_scale: float,
        layer_scale: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.dcn = DeformableConvolution(channels, groups, offset_scale)
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.gamma2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.post_norm:
            tokens = tokens + self.drop_path(self.gamma1 * self.norm1(self.dcn(tokens)))
            return tokens + self.drop_path(self.gamma2 * self.norm2(self._feedforward(tokens)))
        tokens = tokens + self.drop_path(self.gamma1 * self.dcn(self.norm1(tokens)))
        return tokens + self.drop_path(self.gamma2 * self._feedforward(self.norm2(tokens)))

    def _feedforward(self, tokens: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(tokens)))


class DeformableConvolution(nn.Module):
    """DCNv3 (section 3.1): each group of channels is the weighted sum of nine points around a pixel.

    A depthwise convolution says by how much the points are moved, and what each of them weighs.
    """

    def __init__(self, channels: int, groups: int, offset_scale: float) -> None:
        super().__init__()
        self.groups, self.offset_scale = groups, offset_scale
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.offset, self.mask = nn.Linear(channels, groups * POINTS * 2), nn.Linear(channels, groups * POINTS)
        self.input_proj, self.output_proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for layer in (self.offset, self.mask):  # a mean of the pixel and its neighbours
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, h, w, C]` to the same."""
        around = self.depthwise(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        around = gelu(self.norm(around))
        offsets = self.offset(around).unflatten(-1, (self.groups, POINTS, 2))
        weights = self.mask(around).unflatten(-1, (self.groups, POINTS)).softmax(-1)
        return self.output_proj(sample(self.input_proj(tokens), offsets, weights, self.offset_scale))


def sample(values: Tensor, offsets: Tensor, weights: Tensor, scale: float) -> Tensor:
    """At each pixel, the weighted sum of nine points of `values`, read bilinearly; outside of the map there are zeros.

    Args:
        values: `[B, h, w, C]`, of G groups of channels.
        offsets: `[B, h, w, G, 9, 2]`, x and y in pixels, of points that lie on a square of 3 x 3, column by column.
        weights: `[B, h, w, G, 9]`.
        scale: factor of the places of the square and of the offsets.

    Returns:
        `[B, h, w, C]`.
    """
    batch, height, width, groups = offsets.shape[:4]
    exact = torch.promote_types(values.dtype, torch.float32)  # of which bfloat16 has no places beyond 256
    steps = torch.arange(3, dtype=exact, device=values.device) - 1
    square = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)  # [9, 2], x before y
    rows, columns = (torch.arange(side, dtype=exact, device=values.device) for side in (height, width))
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[:, :, None, None]
    size = torch.tensor([width, height], dtype=exact, device=values.device)
    places = (2 * (pixels + scale * (square + offsets.to(exact))) + 1) / size - 1  # as grid_sample counts, -1 to 1
    maps = values.unflatten(-1, (groups, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1).to(exact)
    grid = places.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, height * width, POINTS, 2)
    points = grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weighed = points * weights.permute(0, 3, 1, 2, 4).reshape(batch * groups, 1, height * width, POINTS)
    return weighed.sum(-1).to(values.dtype).view(batch, -1, height, width).permute(0, 2, 3, 1)


def of_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' under our names, without a classifier of whole images; ours as it is."""
    if any(key.startswith("encoder.levels.") for key in state):
        return dict(state)
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        if CLASSIFIER.match(key):
            continue
        for pattern, name in KEYS:
            key = re.sub(pattern, name, key)
        own[key] = value
    return own
