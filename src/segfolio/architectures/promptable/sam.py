"""SAM: Segment Anything
(Alexander Kirillov, Eric Mintun, Nikhila Ravi, Hanzi Mao, Chloe Rolland, Laura Gustafson, Tete Xiao, Spencer
Whitehead, Alexander C. Berg, Wan-Yen Lo, Piotr Dollár, Ross Girshick, ICCV 2023), arXiv 2304.02643.

Follows section 3, appendix A and the authors' release (facebookresearch/segment-anything): a plain ViT with attention
in windows but for four blocks, prompts as tokens and a two-way decoder (`layers.prompt_decoder`). Modules have the
names of the release, so that its state dicts load as `weights`; those of transformers' `SamModel` are renamed.

Deviates:
- Padding among prompts is left out of attention, where transformers attends to zeros (`padding: zero`), and the release
  does not pad.
- Images of any size: other grids of positions are made by interpolation, the absolute ones' bicubic, the relative ones'
  linear.
- The norms of the decoder have the release's epsilon of 1e-5, not transformers' of 1e-6.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from segfolio.layers.again import through
from segfolio.layers.prompt_decoder import STRIDE, SamNetwork, check_image_size, neck
from segfolio.weights.sam import load_sam


class SAM(SamNetwork):
    """Images are embedded once and asked by points, boxes and masks.

    Args:
        num_classes: not used, masks are of no class.
        width: channels of the ViT.
        depth: blocks of the ViT.
        heads: of its attention.
        global_blocks: that attend to the whole image; the others to windows.
        window: side of these, in patches.
        image_size: side of the padded square, in pixels, a multiple of 16.
        in_channels: of the images.
        drop_path: stochastic depth of the ViT's last block; it grows linearly from 0 at the first.
        padding: "masked", so that a prompt's answer is the same whatever it is batched with, or "zero", as transformers
            has it; see `PromptEncoder`.
        checkpointing: compute the ViT's blocks a second time in the backward pass, and keep less.
        weights: None; or a file with a state dict of the authors' release, e.g. `sam_vit_b_01ec64.pth`, of
            transformers' `SamModel`, or of this network; or a folder or a repository of the hub with that model, e.g.
            `facebook/sam-vit-base`.

    Raises:
        SegfolioError: an `image_size` that is no multiple of 16; weights that are not to be had, or of another SAM.
    """

    paper: ClassVar[str] = "SAM (Kirillov et al., 2023), arXiv 2304.02643"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "SAM, ViT-B": {},
        "SAM, ViT-L": {"width": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)},
        "SAM, ViT-H": {"width": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)},
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"width": 32, "depth": 2, "heads": 2, "global_blocks": (1,), "window": 3, "image_size": 128}
    }

    def __init__(
        self,
        num_classes: int,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window: int = 14,
        image_size: int = 1024,
        in_channels: int = 3,
        drop_path: float = 0.0,
        padding: Literal["masked", "zero"] = "masked",
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        check_image_size(image_size, "SAM")
        image_encoder = ImageEncoder(
            in_channels, width, depth, heads, global_blocks, window, image_size // STRIDE, drop_path, checkpointing
        )
        super().__init__(image_encoder, image_size, padding)
        if weights is not None:
            load_sam(self, weights, self.variants)


class ImageEncoder(nn.Module):
    """ViT with relative positions, and a neck of two convolutions: `[B, C_in, H, W]` to `[B, 256, H / 16, W / 16]`."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        depth: int,
        heads: int,
        global_blocks: Sequence[int],
        window: int,
        side: int,
        drop_path: float,
        checkpointing: bool,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(in_channels, width, STRIDE, stride=STRIDE)))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, side, side, width), std=0.02))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        windows = [0 if i in global_blocks else window for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, w, side, rate) for w, rate in zip(windows, rates, strict=True))
        self.neck = neck(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = through(self, block, x)
        return self.neck(x.permute(0, 3, 1, 2))


class Block(nn.Module):
    """Attention, in windows or to all of the `side` x `side` patches, and an MLP; `[B, h, w, D]` to the same."""

    def __init__(self, width: int, heads: int, window: int, side: int, drop_path: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = RelativeAttention(width, heads, window or side)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        lin1, lin2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(lin1=lin1, act=nn.GELU(), lin2=lin2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.drop_path(self._in_windows(normed) if self.window else self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _in_windows(self, x: Tensor) -> Tensor:
        """Zeros that fill the windows on the right and below are attended to, as weights are used to it."""
        batch, height, width = x.shape[:3]
        x = pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        x = x.unflatten(1, (-1, self.window)).unflatten(3, (-1, self.window)).transpose(2, 3)
        down, across = x.shape[1:3]
        x = self.attn(x.flatten(0, 2)).unflatten(0, (batch, down, across))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]


class RelativeAttention(nn.Module):
    """Attention on a square of `side` x `side` patches.

    A query adds its product with a learned vector for each distance to a key, one for the rows between them and one
    for the columns (MViTv2, arXiv 2112.01526, section 4.1).
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[1]
        q, k, v = self.qkv(x.flatten(1, 2)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        place = torch.arange(side, device=x.device)
        distance = place[:, None] - place + side - 1
        of_square = q.unflatten(2, (side, side))
        rows = torch.einsum("bnhwc,hkc->bnhwk", of_square, self.rel_pos_h[distance])
        columns = torch.einsum("bnhwc,wkc->bnhwk", of_square, self.rel_pos_w[distance])
        bias = (rows[..., None] + columns[..., None, :]).flatten(4, 5).flatten(2, 3)
        x = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).flatten(2)).unflatten(1, (side, side))
