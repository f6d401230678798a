"""SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers
(Enze Xie, Wenhai Wang, Zhiding Yu, Anima Anandkumar, Jose M. Alvarez, Ping Luo, NeurIPS 2021), arXiv 2105.15203.

Follows section 3 and its table of encoders: four stages of overlapping patches, attention to keys and values of a
reduced grid, a feed-forward network that learns positions by a depthwise convolution (Mix-FFN), and a decoder of linear
layers alone. State dicts of transformers' `SegformerForSemanticSegmentation` and of segmentation_models.pytorch's
`Segformer`, or of their encoders, load as `weights`.

Fast, with the same logits and gradients: tokens stay `[B, h, w, C]`, which convolutions read without a copy. A level's
projection and its part of the fusion are composed into one matrix, and the level is fused at its own resolution before
it is enlarged, for all three are linear. Where the batch normalisation behind them is fixed, it is part of that matrix.

Deviates:
- The normalisations within stages have the release's epsilon of 1e-6; transformers' class has 1e-5.
- Dropout before the classifier drops channels, as mmsegmentation's heads do; transformers' class drops single values.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, scaled_dot_product_attention

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.stochastic_depth import rates_of
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.hub import read_repository
from segfolio.weights.licences import NVIDIA, tell_licence

HEADS, REDUCTIONS = (1, 2, 5, 8), (8, 4, 2, 1)
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # kernel and stride of each stage
KEYS = (  # of transformers today and on the hub, and of segmentation_models.pytorch, to ours
    (r"^segformer\.encoder\.(patch_embeddings|block|layer_norm)\.(\d)", r"encoder.stages.\2.\1"),
    (r"^segformer\.stages", "encoder.stages"),
    (r"^(?:encoder\.)?(patch_embed|block|norm)([1-4])\.", lambda m: f"encoder.stages.{int(m[2]) - 1}.{m[1]}."),
    (r"\.blocks?\.(\d+)", r".blocks.\1"),
    (r"\.patch_embed(dings)?\.proj\.", ".embed."),
    (r"\.patch_embed(dings)?\.(layer_)?norm\.", ".embed_norm."),
    (r"(\.stages\.\d)\.layer_norm\.", r"\1.norm."),
    (r"\.(layer_norm_1|layernorm_before)\.", ".norm1."),
    (r"\.(layer_norm_2|layernorm_after)\.", ".norm2."),
    (r"\.attn\.", ".attention."),
    (r"\.attention\.(self\.query|q_proj|q)\.", ".attention.query."),
    (r"\.attention\.(self\.key|k_proj)\.", ".attention.key."),
    (r"\.attention\.(self\.value|v_proj)\.", ".attention.value."),
    (r"\.attention\.kv\.", ".attention.key_value."),
    (r"\.attention\.(output\.dense|o_proj|proj)\.", ".attention.output."),
    (r"\.attention\.(self\.|sequence_reduction\.)?(layer_)?norm\.", ".attention.norm."),
    (r"\.attention\.(self\.|sequence_reduction\.)?(sr|sequence_reduction)\.", ".attention.reduce."),
    (r"\.mlp\.(dense|fc)(\d)\.", r".feedforward.linear\2."),
    (r"\.mlp\.dwconv\.dwconv\.", ".feedforward.depthwise."),
    (r"^decode_head\.linear_(?:c|projections)\.(\d)\.proj", r"head.projections.\1"),
    (r"^decoder\.mlp_stage\.(\d)\.linear", lambda m: f"head.projections.{3 - int(m[1])}"),
    (r"^(decode_head\.linear_fuse|decoder\.fuse_stage\.0)\.", "head.fuse."),
    (r"^(decode_head\.batch_norm|decoder\.fuse_stage\.1)\.", "head.norm."),
    (r"^(decode_head\.classifier|segmentation_head\.0)\.", "head.classifier."),
)


class SegFormer(nn.Module):
    """A Mix Transformer (MiT) and a decoder of linear layers, logits at stride 4.

    Args:
        channels: of each stage's tokens.
        blocks: of each stage.
        width: channels of the decoder (256 of B0 and B1, 768 of B2 to B5).
        drop_path: stochastic depth of the last block; that of the first is 0.
        dropout: of the decoder's channels.
        checkpointing: in training, keep the inputs alone of each block and of each step of the head, and compute them
            again in the backward pass.
        weights: None; a released model of the hub, e.g. `nvidia/segformer-b0-finetuned-ade-512-512`, or an encoder,
            `nvidia/mit-b0`; or a file with a state dict of such a model, of segmentation_models.pytorch's or of this
            network.
        in_channels: of the images.

    Raises:
        SegfolioError: channels that the heads do not divide, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "SegFormer (Xie et al., 2021), arXiv 2105.15203"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "SegFormer-B0": {},
        "SegFormer-B1": {"channels": (64, 128, 320, 512)},
        "SegFormer-B2": {"channels": (64, 128, 320, 512), "blocks": (3, 4, 6, 3), "width": 768},
        "SegFormer-B3": {"channels": (64, 128, 320, 512), "blocks": (3, 4, 18, 3), "width": 768},
        "SegFormer-B4": {"channels": (64, 128, 320, 512), "blocks": (3, 8, 27, 3), "width": 768},
        "SegFormer-B5": {"channels": (64, 128, 320, 512), "blocks": (3, 6, 40, 3), "width": 768},
    }
    tiny: ClassVar[dict[str, Any]] = {"channels": (8, 16, 40, 64), "blocks": (1, 1, 1, 1), "width": 16}

    def __init__(
        self,
        num_classes: int,
        channels: Sequence[int] = (32, 64, 160, 256),
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 256,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(channels) != 4 or len(blocks) != 4 or any(c % h for c, h in zip(channels, HEADS, strict=True)):
            raise SegfolioError(
                f"SegFormer: channels {list(channels)}, blocks {list(blocks)}; give four of each, the channels "
                f"multiples of the stages' {', '.join(map(str, HEADS))} heads"
            )
        self.checkpointing = checkpointing
        self.encoder = MixTransformer(in_channels, channels, blocks, drop_path, checkpointing)
        self.head = LinearHead(channels, width, num_classes, dropout)
        self.apply(_initialise)
        if checkpointing:
            see_once(self)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up.

        Raises:
            SegfolioError: images that are smaller than the patch to which keys and values are reduced.
        """
        return through(self, self.head, self.encoder(images))

    def load(self, weights: str) -> None:
        """Load weights of all, or of the encoder alone, and say the licence of those that are not this network's own.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        if Path(weights).is_file():
            state = read_file(Path(weights))
        elif Path(weights).is_dir() or "/" in weights:
            state = read_repository(weights)
        else:
            raise SegfolioError(f"{weights} is neither a file nor a repository of the hub, such as nvidia/mit-b0")
        own = of_ours(state)
        new = () if any(key.startswith("head.") for key in own) else ("head.",)
        load_weights(self, own, weights, new)
        if not self.state_dict().keys() & state.keys():
            tell_licence(weights, NVIDIA)


class MixTransformer(nn.Module):
    """Four stages, strides 4, 8, 16 and 32."""

    def __init__(
        self, in_channels: int, channels: Sequence[int], blocks: Sequence[int], drop_path: float, checkpointing: bool
    ) -> None:
        super().__init__()
        inputs = [in_channels, *channels[:-1]]
        self.stages = nn.ModuleList()
        for stage, rates in enumerate(rates_of(drop_path, blocks)):
            self.stages.append(Stage(stage, inputs[stage], channels[stage], rates, checkpointing))

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C_in, H, W]` to the tokens `[B, h, w, C]` of each stage."""
        least = PATCHES[0][1] * (REDUCTIONS[0] - 1) + 1
        if min(images.shape[-2:]) < least:
            height, width = images.shape[-2:]
            raise SegfolioError(
                f"SegFormer got images of {height}x{width} pixels; its attention needs at least {least} on each side: "
                "enlarge or pad them"
            )
        tokens, levels = images, []
        for stage in self.stages:
            tokens = stage(tokens if stage is self.stages[0] else tokens.permute(0, 3, 1, 2))
            levels.append(tokens)
        return levels


class Stage(nn.Module):
    """Overlapping patches and the blocks on them."""

    def __init__(
        self, stage: int, in_channels: int, channels: int, drop_path: Sequence[float], checkpointing: bool
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        kernel, stride = PATCHES[stage]
        self.embed = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.embed_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(Block(channels, HEADS[stage], REDUCTIONS[stage], rate) for rate in drop_path)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to tokens `[B, h, w, C]`."""
        tokens = self.embed_norm(self.embed(images).permute(0, 2, 3, 1))
        for block in self.blocks:
            tokens = through(self, block, tokens)
        return self.norm(tokens)


class Block(nn.Module):
    """Attention and Mix-FFN, on tokens `[B, h, w, C]`."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.attention = ReducedAttention(channels, heads, reduction)
        self.feedforward = MixFeedForward(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)))
        return tokens + self.drop_path(self.feedforward(self.norm2(tokens)))


class ReducedAttention(nn.Module):
    """Every token attends to a grid that is coarser by `reduction` along each axis."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        self.reduce = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels) if reduction > 1 else None

    def forward(self, tokens: Tensor) -> Tensor:
        coarse = tokens
        if self.reduce is not None and self.norm is not None:
            coarse = self.norm(self.reduce(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        query, (key, value) = self.query(tokens), self.key_value(coarse).chunk(2, dim=-1)
        attended = scaled_dot_product_attention(self._of_heads(query), self._of_heads(key), self._of_heads(value))
        return self.output(attended.transpose(1, 2).reshape(tokens.shape))

    def _of_heads(self, tokens: Tensor) -> Tensor:
        """`[B, h, w, C]` to `[B, heads, h w, C / heads]`."""
        return tokens.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MixFeedForward(nn.Module):
    """Two linear layers, a 3x3 depthwise convolution between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.depthwise(self.linear1(tokens).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.linear2(self.activation(hidden))


class LinearHead(nn.Module):
    """All levels projected, enlarged and fused: each fused at its own resolution, and then enlarged."""

    def __init__(self, channels: Sequence[int], width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(each, width) for each in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)  # of the coarsest level first
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier: Any = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Tokens `[B, h, w, C_i]` of each level, the finest first, to logits `[B, C, h, w]`."""
        norm: Any = self.norm
        parts = self.fuse.weight.flatten(1).chunk(len(levels), dim=1)[::-1]
        pairs: list[tuple[Tensor, Any]] = list(zip(parts, self.projections, strict=True))
        weights = [part @ projection.weight for part, projection in pairs]
        bias = torch.stack([part @ projection.bias for part, projection in pairs]).sum(0)
        if not norm.training:  # it is linear, too
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weights = [scale[:, None] * weight for weight in weights]
            bias = scale * (bias - norm.running_mean) + norm.bias
        fused = linear(levels[0], weights[0], bias).permute(0, 3, 1, 2)
        for level, weight in zip(levels[1:], weights[1:], strict=True):
            coarse = linear(level, weight).permute(0, 3, 1, 2)
            fused = fused + interpolate(coarse, fused.shape[-2:], mode="bilinear", align_corners=False)
        return self._classify((norm(fused) if norm.training else fused).relu_())

    def _classify(self, features: Tensor) -> Tensor:
        """`[B, D, h, w]` to logits; the channels that dropout takes from an image are taken from its weights."""
        batch, width, *size = features.shape
        kept = self.dropout(features.new_ones(batch, 1, width))
        weights, bias = self.classifier.weight.flatten(1) * kept, self.classifier.bias[:, None]
        return torch.baddbmm(bias, weights, features.flatten(2)).unflatten(2, size)


def of_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers or segmentation_models.pytorch under our names; ours as it is.

    An encoder's classifier of whole images is left out.
    """
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in KEYS:
            key = re.sub(pattern, name, key)
        own[key] = value
    for key in [key for key in own if ".attention.key." in key]:  # apart in transformers
        keys, values = own.pop(key), own.pop(key.replace(".key.", ".value."), torch.empty(0))
        own[key.replace(".key.", ".key_value.")] = torch.cat([keys, values])
    return {key: value for key, value in own.items() if not key.startswith("classifier.")}


def _initialise(module: nn.Module) -> None:
    """Linear layers of a standard deviation of 0.02, convolutions by their fan-out."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
