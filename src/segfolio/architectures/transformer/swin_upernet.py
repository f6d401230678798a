"""Swin-UPerNet: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows
(Ze Liu, Yutong Lin, Yue Cao, Han Hu, Yixuan Wei, Zheng Zhang, Stephen Lin, Baining Guo, ICCV 2021), arXiv 2103.14030.

Follows section 3 and the authors' release for segmentation (SwinTransformer/Swin-Transformer-Semantic-Segmentation):
four stages of attention within windows that every second block shifts, with a learned bias of relative positions, the
head of UPerNet on all of them, and an auxiliary head on the third. State dicts of the authors', of mmsegmentation, of
transformers' `UperNetForSemanticSegmentation`, and of timm's or the authors' classifiers load as `weights`.

Fast, with the same logits and gradients: see `layers.uper_head`.

Deviates:
- Images of any size: their right and lower borders are padded to whole patches, and each stage's to whole windows, as
  in the release.
- Tables of relative positions of another window are interpolated bicubically, those of a whole network as well.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, scaled_dot_product_attention

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.backbones import pad_to
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.stochastic_depth import rates_of
from segfolio.layers.uper_head import HEAD_KEYS, UPerHead, auxiliary_head
from segfolio.weights.backbones import published_state
from segfolio.weights.files import load_weights

PATCH, STAGES = 4, 4
KEYS = (  # of the authors, timm, mmsegmentation and transformers, of today and on the hub, to ours
    *HEAD_KEYS,
    (r"^(backbone\.|model\.)?(swin\.)?(encoder\.)?(layers|stages)\.(?=\d)", "encoder.stages."),
    (
        r"^(backbone\.|model\.)?(swin\.)?(embeddings\.)?(patch_embed|patch_embeddings)\.proj(ection)?\.",
        "encoder.embed.",
    ),
    (r"^(backbone\.|model\.)?(swin\.)?(patch_embed|embeddings)\.norm\.", "encoder.embed_norm."),
    (r"^backbone\.norm(\d)\.", r"encoder.stages.\1.norm."),
    (r"^backbone\.hidden_states_norms\.stage(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.norm."),
    (r"\.downsample\.reduction\.", ".merge."),
    (r"\.downsample\.norm\.", ".merge_norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (
        r"\.(attn|attention)\.((w_msa|self|relative_position_bias)\.)?relative_position_bias_table",
        ".attention.position_bias",
    ),
    (r"\.attn\.(w_msa\.)?qkv\.", ".attention.qkv."),
    (r"\.(attn\.w_msa\.proj|attn\.proj|attention\.output\.dense|attention\.o_proj)\.", ".attention.output."),
    (r"\.attention\.(?:self\.)?(q|k|v)(?:uery|ey|alue|_proj)\.", r".attention.\1."),
    (r"\.(ffn\.layers\.0\.0|mlp\.fc1|intermediate\.dense)\.", ".linear1."),
    (r"\.(ffn\.layers\.1|mlp\.fc2|output\.dense)\.", ".linear2."),
)
NOT_WEIGHTS = ("relative_position_index", "attn_mask")


class SwinUPerNet(nn.Module):
    """A Swin Transformer and the head of UPerNet, logits at stride 4.

    Args:
        channels: of the first stage; each stage has twice those of the one before.
        blocks: of each stage.
        heads: of each stage's attention.
        window: side of a window, in tokens of the stage.
        width: channels of the head.
        auxiliary: whether the third stage is supervised, too, as `auxiliary["aux"]`.
        drop_path: stochastic depth of the last block; that of the first is 0.
        dropout: of the heads' channels.
        checkpointing: in training, keep the inputs alone of each block and of each step of the heads, and compute them
            again in the backward pass.
        weights: None; timm's name of a Swin with its tag, e.g. `swin_tiny_patch4_window7_224.ms_in1k`; a released model
            of the hub, e.g. `openmmlab/upernet-swin-tiny`; or a file with a state dict of such a model, of the authors'
            release or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: channels that the heads do not divide, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "Swin-UPerNet (Liu et al., 2021), arXiv 2103.14030"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Swin-UPerNet, T": {},
        "Swin-UPerNet, S": {"blocks": (2, 2, 18, 2)},
        "Swin-UPerNet, B": {"channels": 128, "blocks": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
        "Swin-UPerNet, B, 640": {"channels": 128, "blocks": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 12},
        "Swin-UPerNet, L, 640": {"channels": 192, "blocks": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "window": 12},
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"channels": 16, "blocks": (2, 2, 2, 1), "heads": (1, 2, 2, 4), "window": 3, "width": 16},
        **{"drop_path": 0.0, "dropout": 0.0},
    }

    def __init__(
        self,
        num_classes: int,
        channels: int = 96,
        blocks: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        width: int = 512,
        auxiliary: bool = True,
        drop_path: float = 0.3,
        dropout: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        stages = [channels * 2**stage for stage in range(STAGES)]
        if len(blocks) != STAGES or len(heads) != STAGES or any(c % h for c, h in zip(stages, heads, strict=True)):
            raise SegfolioError(
                f"SwinUPerNet: blocks {list(blocks)}, heads {list(heads)}; give four of each, the heads divisors of "
                f"the stages' {', '.join(map(str, stages))} channels"
            )
        if window < 1:
            raise SegfolioError(f"SwinUPerNet: window is {window}, expected 1 or more tokens, such as 7")
        self.checkpointing = checkpointing
        self.encoder = Swin(in_channels, channels, blocks, heads, window, drop_path, checkpointing)
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
            SegfolioError: images smaller than a window of the first stage.
        """
        levels = self.encoder(images)
        found = {}
        if self.training and self.auxiliary is not None:
            found["aux"] = through(self, self.auxiliary, levels[2])
        return PixelOutput(self.head(levels), found)

    def load(self, weights: str) -> None:
        """Load weights of all, or of the encoder alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        state = published_state(
            weights, "swin_*", "Swin", "swin_tiny_patch4_window7_224.ms_in1k", "openmmlab/upernet-swin-tiny"
        )
        own = self._of_our_window(of_ours(state))
        norms = tuple(f"encoder.stages.{stage}.norm." for stage in range(STAGES))  # which a classifier lacks
        new = () if any(key.startswith("head.") for key in own) else ("head.", "auxiliary.", *norms)
        if self.auxiliary is None:
            own = {key: value for key, value in own.items() if not key.startswith("auxiliary.")}
        load_weights(self, own, weights, new)

    def _of_our_window(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tables of relative positions `[(2 w - 1)², heads]` as those of this network's window."""
        side = 2 * self.encoder.window - 1
        return {key: _resized(value, side) if key.endswith(".position_bias") else value for key, value in state.items()}


class Swin(nn.Module):
    """Four stages, strides 4, 8, 16 and 32."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: Sequence[int],
        heads: Sequence[int],
        window: int,
        drop_path: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.embed, self.embed_norm = nn.Conv2d(in_channels, channels, PATCH, PATCH), nn.LayerNorm(channels)
        self.stages = nn.ModuleList()
        for stage, rates in enumerate(rates_of(drop_path, blocks)):
            self.stages.append(Stage(channels * 2**stage, heads[stage], window, rates, stage > 0, checkpointing))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C_in, H, W]` to the normalised maps `[B, C, h, w]` of each stage."""
        if min(images.shape[-2:]) < PATCH * self.window:
            raise SegfolioError(
                f"SwinUPerNet got images of {images.shape[-2]}x{images.shape[-1]} pixels, smaller than a window of "
                f"{PATCH * self.window}x{PATCH * self.window}: enlarge or pad them"
            )
        tokens, levels = self.embed_norm(self.embed(pad_to(images, PATCH)).permute(0, 2, 3, 1)), []
        for stage in self.stages:
            module: Any = stage
            tokens = module(tokens)
            levels.append(module.norm(tokens).permute(0, 3, 1, 2))
        return levels


class Stage(nn.Module):
    """Blocks on tokens `[B, h, w, C]`; before them, those of the stage before merged by fours."""

    def __init__(
        self, channels: int, heads: int, window: int, drop_path: Sequence[float], merge: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        self.window, self.checkpointing = window, checkpointing
        self.merge_norm = nn.LayerNorm(2 * channels) if merge else None
        self.merge = nn.Linear(2 * channels, channels, bias=False) if merge else None
        self.blocks = nn.ModuleList(Block(channels, heads, window, rate) for rate in drop_path)
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.merge is not None:
            tokens = through(self, self._merged, tokens)
        shift = self.window // 2
        apart = _apart(tokens, self.window, shift) if shift and len(self.blocks) > 1 else None
        for index, block in enumerate(self.blocks):
            given = (tokens, shift, apart) if index % 2 else (tokens, 0, None)
            tokens = through(self, block, *given)
        return tokens

    def _merged(self, tokens: Tensor) -> Tensor:
        assert self.merge is not None
        assert self.merge_norm is not None
        return self.merge(self.merge_norm(by_fours(tokens)))


class Block(nn.Module):
    """Attention within windows and a feed-forward network, on tokens `[B, h, w, C]`."""

    def __init__(self, channels: int, heads: int, window: int, drop_path: float) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.linear1, self.linear2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, shift: int, apart: Tensor | None) -> Tensor:
        """
        Args:
            shift: of the windows, in tokens.
            apart: `[windows, 1, N, N]` bool, which tokens of a window may see each other; None for all.
        """
        size = (tokens.shape[1], tokens.shape[2])
        padded = _padded(self.norm1(tokens), self.window)
        grid = (padded.shape[1] // self.window, padded.shape[2] // self.window)
        shifted = padded.roll((-shift, -shift), (1, 2)) if shift else padded
        windows = shifted.unflatten(2, (grid[1], self.window)).unflatten(1, (grid[0], self.window)).transpose(2, 3)
        attended = self.attention(windows.flatten(3, 4).flatten(0, 2), apart)
        whole = attended.view(windows.shape).transpose(2, 3).reshape(padded.shape)
        found = whole.roll((shift, shift), (1, 2)) if shift else whole
        tokens = tokens + self.drop_path(found[:, : size[0], : size[1]])
        return tokens + self.drop_path(self.linear2(gelu(self.linear1(self.norm2(tokens)))))


class WindowAttention(nn.Module):
    """Attention among the N tokens of a window, with a bias for each head and relative position."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("index", relative_positions(window), persistent=False)

    def forward(self, windows: Tensor, apart: Tensor | None) -> Tensor:
        """`[B, N, C]`, of B all windows of all images, to the same."""
        number, length, _ = windows.shape
        query, key, value = self.qkv(windows).view(number, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        index: Any = self.index
        bias = self.position_bias[index].view(length, length, self.heads).permute(2, 0, 1)[None].to(query.dtype)
        if apart is not None:
            bias = bias.masked_fill(~apart, -math.inf)
            bias = bias.repeat(number // len(bias), 1, 1, 1) if len(bias) < number else bias
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.output(attended.transpose(1, 2).reshape(windows.shape))


def relative_positions(window: int) -> Tensor:
    """`[N²]`: which row of a table is of the second of two tokens as the first sees it."""
    places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    rows, columns = places[:, :, None] - places[:, None] + window - 1
    return (rows * (2 * window - 1) + columns).flatten()


def by_fours(tokens: Tensor) -> Tensor:
    """`[B, h, w, C]` to `[B, ceil(h / 2), ceil(w / 2), 4 C]`, zeros where there are none."""
    even = _padded(tokens, 2)
    return torch.cat([even[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)


def _padded(tokens: Tensor, multiple: int) -> Tensor:
    """`[B, h, w, C]` with zeros behind, to whole multiples."""
    height, width = tokens.shape[1:3]
    missing = (0, 0, 0, -width % multiple, 0, -height % multiple)
    return pad(tokens, missing) if any(missing) else tokens


def _apart(tokens: Tensor, window: int, shift: int) -> Tensor:
    """`[windows, 1, N, N]`: which tokens of a shifted window lay side by side before the map was rolled."""
    sides = []
    for length in tokens.shape[1:3]:
        place = torch.arange(-(-length // window) * window, device=tokens.device)
        region = (place >= len(place) - window).int() + (place >= len(place) - shift).int()
        sides.append(region.view(-1, window))
    rows, columns = sides
    region = (3 * rows[:, None, :, None] + columns[None, :, None, :]).flatten(2).flatten(0, 1)
    return (region[:, None] == region[:, :, None])[:, None]


def _resized(table: Tensor, side: int) -> Tensor:
    """A table of relative positions for another window."""
    old = math.isqrt(len(table))
    if old == side or old * old != len(table):
        return table
    grid = table.T.unflatten(1, (old, old))[None].float()
    return interpolate(grid, (side, side), mode="bicubic", align_corners=False)[0].flatten(1).T.to(table.dtype)


def of_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors, of mmsegmentation, transformers or timm under our names; ours as it is.

    A classifier of whole images, the norm before it and what is no weight are left out.
    """
    own: dict[str, Tensor] = {}
    merged_behind = any(re.search(r"(layers|stages)\.0\.downsample", key) for key in state)
    unfolded = any(".w_msa." in key for key in state)
    whole = any(key.startswith(("head.classifier.", "decode_head.")) for key in state)
    for key, value in state.items():
        if key.endswith(NOT_WEIGHTS) or re.search(r"^(backbone\.|model\.)?(swin\.)?(norm|layernorm)\.", key):
            continue
        if not whole and re.match(r"(head|classifier)\.", key):
            continue
        if ".downsample." in key:
            value = _of_our_order(value) if unfolded else value
            if merged_behind:
                key = re.sub(r"(layers|stages)\.(\d)", lambda m: f"{m[1]}.{int(m[2]) + 1}", key)
        for pattern, name in KEYS:
            key = re.sub(pattern, name, key)
        own[key] = value
    for key in [key for key in own if ".attention.q." in key]:  # apart in transformers
        parts = [own.pop(key.replace(".q.", f".{part}."), torch.empty(0)) for part in "qkv"]
        own[key.replace(".q.", ".qkv.")] = torch.cat(parts)
    return own


def _of_our_order(value: Tensor) -> Tensor:
    """What reads four merged tokens channel by channel, as mmsegmentation unfolds them, token by token."""
    return value.unflatten(-1, (-1, 2, 2)).permute(*range(value.ndim - 1), -1, -2, -3).flatten(-3)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.position_bias, std=0.02)
