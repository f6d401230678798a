"""BEiT-UPerNet: BEiT: BERT Pre-Training of Image Transformers
(Hangbo Bao, Li Dong, Songhao Piao, Furu Wei, ICLR 2022), arXiv 2106.08254.

Follows section 3.2 and the authors' release for segmentation (microsoft/unilm, `beit/semantic_segmentation`): a plain
ViT whose attention has a bias of relative positions in place of a table of absolute ones, and whose branches are
scaled; the patches behind four blocks as maps of strides 4, 8, 16 and 32; the head of UPerNet and an auxiliary head on
the third. State dicts of the authors', of transformers' `BeitForSemanticSegmentation` and of timm's BEiTs load as
`weights`.

Fast, with the same logits and gradients: see `layers.uper_head`.

Deviates:
- Images of any size, padded with zeros to whole patches: biases are interpolated bilinearly; the release has squares
  of one size, to which it fits weights of another by splines on a geometric grid.
- Blocks are counted from 0, as in the release, whose configurations transformers' class reads two blocks earlier.
- Normalisations have the release's epsilon of 1e-6; transformers' configuration has 1e-12.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, linear, scaled_dot_product_attention

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.backbones import pad_to
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.uper_head import HEAD_KEYS, UPerHead, auxiliary_head
from segfolio.layers.vit import check_at_least_a_patch, check_patch_size, patch_map
from segfolio.weights.backbones import published_state
from segfolio.weights.files import load_weights

LEVELS, AUXILIARY_WIDTH = 4, 256
BESIDE = 3  # rows of a table of biases for pairs with the class token: from it, to it, with itself
KEYS = (  # of the authors, timm and transformers, of today and on the hub, to ours
    *HEAD_KEYS,
    (r"^backbone\.(fpn\d)\.", r"neck.\1."),
    (r"^fpn\.fpn1\.conv_transpose1\.", "neck.fpn1.0."),
    (r"^fpn\.fpn1\.normalization\.", "neck.fpn1.1."),
    (r"^fpn\.fpn1\.conv_transpose2\.", "neck.fpn1.3."),
    (r"^fpn\.fpn2\.", "neck.fpn2.0."),
    (r"^(fpn\d)\.", r"neck.\1."),
    (r"^(backbone\.|beit\.)?(embeddings\.)?cls_token$", "encoder.cls_token"),
    (r"^(backbone\.|beit\.)?(embeddings\.)?patch_embed(dings)?\.proj(ection)?\.", "encoder.patch_embed."),
    (r"^(backbone\.|beit\.)?(encoder\.layer|layers|blocks)\.(?=\d)", "encoder.blocks."),
    (r"\.lambda_(\d)$", r".gamma_\1"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (
        r"\.(attention\.)*(attn\.|relative_position_bias\.)relative_position_bias_table$",
        ".relative_position_bias_table",
    ),
    (r"\.attention\.(attention\.)?(q|k|v)(uery|ey|alue|_proj)\.", r".\2."),
    (r"\.attn\.(qkv\.weight|q_bias|v_bias)$", r".\1"),
    (r"\.(attn\.proj|attention\.output\.dense|attention\.o_proj)\.", ".proj."),
    (r"\.(mlp\.fc|intermediate\.dense|output\.dense)(\d?)\.", lambda m: f".fc{m[2] or (1 if 'inter' in m[1] else 2)}."),
)
LEFT_OUT = re.compile(
    r"relative_position_index$|mask_token$|^(beit\.)?(layernorm|pooler)\.|^(backbone\.|beit\.)?(norm|fc_norm|head)\."
    r"|^classifier\.|^lm_head\."
)


class BEiTUPerNet(nn.Module):
    """A BEiT and the head of UPerNet, logits at stride 4.

    Args:
        width: channels of the ViT and of the head.
        depth: blocks of the ViT.
        heads: of its attention.
        taps: the four blocks behind which maps are taken, counted from 0.
        image_size: of the tables of relative positions, in pixels; those of other images are interpolated.
        layer_scale: at which the branches of a block begin (0.1; of L 1e-5).
        auxiliary: whether the third map is supervised, too, as `auxiliary["aux"]`.
        drop_path: stochastic depth of the last block; that of the first is 0.
        dropout: of the heads' channels.
        patch_size: of the patches, in pixels.
        checkpointing: in training, keep the inputs alone of each block and of each step of the heads, and compute them
            again in the backward pass.
        weights: None; timm's name of a BEiT with its tag, e.g. `beit_base_patch16_224.in22k_ft_in22k`; a released model
            of the hub, e.g. `microsoft/beit-base-finetuned-ade-640-640`; or a file with a state dict of such a model,
            of the authors' release or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a width that the heads do not divide, blocks that there are not, an image that is not of whole
            patches, weights that are not to be had, of another patch size or that do not fit.
    """

    paper: ClassVar[str] = "BEiT (Bao et al., 2022), arXiv 2106.08254"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "BEiT-UPerNet, B": {},
        "BEiT-UPerNet, L": {
            **{"width": 1024, "depth": 24, "heads": 16, "taps": (7, 11, 15, 23), "layer_scale": 1e-5},
            "drop_path": 0.2,
        },
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"width": 32, "depth": 4, "heads": 2, "taps": (0, 1, 2, 3), "image_size": 64, "layer_scale": 1.0},
        **{"drop_path": 0.0, "dropout": 0.0},
    }

    def __init__(
        self,
        num_classes: int,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        taps: Sequence[int] = (3, 5, 7, 11),
        image_size: int = 640,
        layer_scale: float = 0.1,
        auxiliary: bool = True,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        patch_size: int = 16,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if width % heads or len(taps) != LEVELS or not all(0 <= block < depth for block in taps):
            raise SegfolioError(
                f"BEiTUPerNet: width {width}, heads {heads}, taps {list(taps)}; give a width that the heads divide and "
                f"four of the blocks 0 to {depth - 1}"
            )
        check_patch_size("BEiTUPerNet", patch_size)
        if image_size % patch_size or image_size < patch_size:
            raise SegfolioError(
                f"BEiTUPerNet: image_size is {image_size}, expected whole patches of {patch_size}x{patch_size} pixels"
            )
        self.patch, self.taps, self.checkpointing = patch_size, tuple(taps), checkpointing
        side = image_size // patch_size
        rates = [drop_path * index / max(1, depth - 1) for index in range(max(taps) + 1)]
        self.encoder = nn.Module()
        self.encoder.patch_embed = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.encoder.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder.blocks = nn.ModuleList(Block(width, heads, side, layer_scale, rate) for rate in rates)
        self.encoder.apply(_initialise)
        nn.init.trunc_normal_(self.encoder.cls_token, std=0.02)
        self.neck = Neck(width)
        self.head = UPerHead([width] * LEVELS, width, num_classes, dropout, checkpointing)
        self.auxiliary = auxiliary_head(width, AUXILIARY_WIDTH, num_classes, dropout) if auxiliary else None
        if checkpointing:
            see_once(self)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up; in training also those of
        the auxiliary head, of a sixteenth.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("BEiTUPerNet", images, self.patch)
        encoder: Any = self.encoder
        patches = encoder.patch_embed(pad_to(images, self.patch))
        grid = (patches.shape[-2], patches.shape[-1])
        beside = encoder.cls_token.expand(len(patches), -1, -1)
        tokens, index, found = torch.cat([beside, patches.flatten(2).transpose(1, 2)], 1), _pairs(grid, patches), {}
        for number, block in enumerate(encoder.blocks):
            tokens = through(self, block, tokens, grid, index)
            found[number] = tokens
        levels = through(self, self.neck, [patch_map(found[block], grid) for block in self.taps])
        auxiliary = {}
        if self.training and self.auxiliary is not None:
            auxiliary["aux"] = through(self, self.auxiliary, levels[2])
        height, width = (-(-side * 4 // self.patch) for side in images.shape[-2:])
        return PixelOutput(self.head(levels)[..., :height, :width], auxiliary)

    def load(self, weights: str) -> None:
        """Load weights of all, or of the ViT alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        state = published_state(
            weights,
            "beit*",
            "BEiT",
            "beit_base_patch16_224.in22k_ft_in22k",
            "microsoft/beit-base-finetuned-ade-640-640",
        )
        own, mine = of_ours(state), self.state_dict()
        for key, value in own.items():
            if key.endswith(".relative_position_bias_table") and key in mine:
                own[key] = resized(value, _side(mine[key]), _side(mine[key]), weights)
        unread = tuple(f"encoder.blocks.{block}." for block in range(max(self.taps) + 1, 1 + _last_block(own)))
        unread += () if self.auxiliary is not None else ("auxiliary.",)
        new = () if any(key.startswith("head.") for key in own) else ("head.", "auxiliary.", "neck.")
        load_weights(self, {key: value for key, value in own.items() if not key.startswith(unread)}, weights, new)


class Block(nn.Module):
    """Attention with a bias of relative positions, and a feed-forward network, each scaled by channel."""

    def __init__(self, width: int, heads: int, side: int, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2 + BESIDE, heads))
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma_1 = nn.Parameter(torch.full((width,), layer_scale))
        self.gamma_2 = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, grid: tuple[int, int], index: Tensor) -> Tensor:
        """
        Args:
            tokens: `[B, 1 + h w, D]`.
            index: `_pairs` of the grid.
        """
        attended = self._attention(self.norm1(tokens), grid, index)
        tokens = tokens + self.drop_path(self.gamma_1 * attended)
        return tokens + self.drop_path(self.gamma_2 * self.fc2(gelu(self.fc1(self.norm2(tokens)))))

    def _attention(self, tokens: Tensor, grid: tuple[int, int], index: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = linear(tokens, self.qkv.weight, bias)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        table = resized(self.relative_position_bias_table, 2 * grid[0] - 1, 2 * grid[1] - 1, "")
        relative = table[index.flatten()].view(*index.shape, self.heads).permute(2, 0, 1)[None].to(query.dtype)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=relative)
        return self.proj(attended.transpose(1, 2).reshape(tokens.shape))


class Neck(nn.Module):
    """Four maps of stride 16 to strides 4, 8, 16 and 32, rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fpn1 = nn.Sequential(_enlarging(width), nn.BatchNorm2d(width), nn.GELU(), _enlarging(width))
        self.fpn2 = nn.Sequential(_enlarging(width))
        self.fpn4 = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.fpn1(maps[0]), self.fpn2(maps[1]), maps[2], self.fpn4(maps[3])]


def _enlarging(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 2, 2)


def _pairs(grid: tuple[int, int], like: Tensor) -> Tensor:
    """`[1 + h w, 1 + h w]`: which row of a table is of each pair of tokens, the class token first."""
    rows, columns = (torch.arange(length, device=like.device) for length in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)
    down, right = places[:, :, None] - places[:, None]
    width, number = 2 * grid[1] - 1, (2 * grid[0] - 1) * (2 * grid[1] - 1)
    index = (down + grid[0] - 1) * width + right + grid[1] - 1
    index = torch.cat([torch.full_like(index[:, :1], number + 1), index], 1)  # to the class token
    first = torch.full_like(index[:1], number)  # from it
    first[0, 0] = number + 2
    return torch.cat([first, index])


def resized(table: Tensor, height: int, width: int, source: str) -> Tensor:
    """A table `[(2 s - 1)² + 3, heads]` for another grid, `[height * width + 3, heads]`.

    Raises:
        SegfolioError: a table that is of no square image; `source` is where it comes from.
    """
    old = _side(table)
    if (old, old) == (height, width):
        return table
    if not old or old * old + BESIDE != len(table):
        raise SegfolioError(
            f"{source} has a table of {len(table)} relative positions, which is of no square image; take weights of "
            "square images"
        )
    grid = table[:-BESIDE].T.unflatten(1, (old, old))[None]
    found = interpolate(grid, (height, width), mode="bilinear", align_corners=False)[0].flatten(1).T
    return torch.cat([found, table[-BESIDE:]])


def _side(table: Tensor) -> int:
    return math.isqrt(max(0, len(table) - BESIDE))


def _last_block(state: Mapping[str, Tensor]) -> int:
    return max((int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks.")), default=-1)


def of_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors, of timm or transformers under our names; ours as it is.

    A classifier of whole images, the norm before it and what is no weight are left out.
    """
    ours = any(key.startswith("encoder.blocks.0.qkv") for key in state)
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        if not ours and LEFT_OUT.search(key):
            continue
        for pattern, name in () if ours else KEYS:
            key = re.sub(pattern, name, key)
        own[key] = value
    for key in [key for key in own if key.endswith(".q.weight")]:  # apart in transformers
        block = key.removesuffix("q.weight")
        parts = [own.pop(f"{block}{part}.weight", torch.empty(0)) for part in "qkv"]
        own[f"{block}qkv.weight"] = torch.cat(parts)
        for part in "qv":
            own[f"{block}{part}_bias"] = own.pop(f"{block}{part}.bias", torch.empty(0))
    return own


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
