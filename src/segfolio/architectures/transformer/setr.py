"""SETR: Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers
(Sixiao Zheng, Jiachen Lu, Hengshuang Zhao, Xiatian Zhu, Zekun Luo, Yabiao Wang, Yanwei Fu, Jianfeng Feng, Tao Xiang,
Philip H.S. Torr, Li Zhang, CVPR 2021), arXiv 2012.15840.

Follows section 3 and the authors' release (fudan-zvg/SETR): a plain ViT, and of its patches' map two convolutions and
one enlargement (naive), four convolutions with an enlargement by two behind each (progressive, PUP), or the maps of
four blocks added from the last to the first and joined at stride 4 (MLA); auxiliary heads on maps of earlier blocks.

Deviates:
- Images of any size, padded with zeros to whole patches, positions interpolated; in the release they are squares of one
  size.
- Classifiers of 1x1 run before an enlargement that the release does first: the two commute.
- The naive decoder's and the auxiliary logits are enlarged to the image by the loss and by the test, which interpolate
  as the release does.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.backbones import pad_to
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.vit import (
    behind_blocks,
    check_at_least_a_patch,
    embed,
    load_whole_or_vit,
    patch_map,
    plain_vit,
    without_padding,
)

WIDTH = 256  # of the decoders' maps
LEVELS = 4  # of MLA


class SETR(nn.Module):
    """A ViT and one of three decoders.

    Args:
        decoder: `naive`, `pup` or `mla`.
        backbone: timm's name of a plain ViT.
        depth: blocks that are used, where they are not all of the backbone's.
        image_size: of the table of positions, in pixels; that of the training's crops. Positions of other images are
            interpolated.
        taps: of MLA, the four blocks whose maps are added, counted from 0.
        auxiliary: of the others, the blocks whose maps are supervised beside, counted from 0: `auxiliary["aux_1"]` is
            of the first of them. MLA has four, one on each of its maps, if it is not empty.
        drop_path: stochastic depth of the last block; that of the first is 0.
        checkpointing: in training, keep the inputs alone of each block and of each step of the heads, and compute them
            again in the backward pass.
        weights: None; a tag of timm's weights for `backbone`, e.g. `augreg_in21k_ft_in1k`; or a file with a state dict
            of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that is no plain ViT, blocks that it does not have, weights that are not to be had, of
            another patch size or that do not fit.
    """

    paper: ClassVar[str] = "SETR (Zheng et al., 2021), arXiv 2012.15840"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "SETR-Naive": {},
        "SETR-PUP": {"decoder": "pup", "auxiliary": (9, 14, 19, 23)},
        "SETR-MLA": {"decoder": "mla"},
        "SETR-Naive-Base": {"backbone": "vit_base_patch16_384", "auxiliary": (2, 5, 8)},
        "SETR-PUP-DeiT": {
            "decoder": "pup",
            "backbone": "deit_base_distilled_patch16_384",
            "auxiliary": (4, 7, 9, 11),
        },
        "SETR-MLA-DeiT": {
            "decoder": "mla",
            "backbone": "deit_base_distilled_patch16_384",
            "taps": (2, 5, 8, 11),
        },
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_vit", "depth": 24, "image_size": 64}

    def __init__(
        self,
        num_classes: int,
        decoder: Literal["naive", "pup", "mla"] = "naive",
        backbone: str = "vit_large_patch16_384",
        depth: int | None = None,
        image_size: int = 768,
        taps: Sequence[int] = (5, 11, 17, 23),
        auxiliary: Sequence[int] = (9, 14, 19),
        drop_path: float = 0.0,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        mla = decoder == "mla"
        self.encoder = plain_vit(  # MLA is without a class token, DeiT's distillation token is left out
            backbone,
            image_size,
            prefix=0 if mla else 1,
            in_chans=in_channels,
            drop_path_rate=drop_path,
            **({} if depth is None else {"depth": depth}),
        )
        self.encoder.norm = self.encoder.fc_norm = nn.Identity()  # each head has its own
        self.checkpointing, self.patch = checkpointing, self.encoder.patch_embed.patch_size[0]
        width, blocks = self.encoder.embed_dim, len(self.encoder.blocks)
        self.blocks = [*taps] if mla else [*auxiliary, blocks - 1]
        if not all(0 <= block < blocks for block in self.blocks) or (mla and len(taps) != LEVELS):
            raise SegfolioError(
                f"SETR: {f'taps {list(taps)}' if mla else f'auxiliary {list(auxiliary)}'}; give "
                f"{'four' if mla else 'some'} of the blocks 0 to {blocks - 1} of {backbone}"
            )
        self.levels = Levels(width) if mla else None
        self.head: nn.Module
        if mla:
            self.head = MLAHead(num_classes)
            heads: list[nn.Module] = [nn.Conv2d(WIDTH, num_classes, 1, bias=False) for _ in taps if auxiliary]
        elif decoder == "pup":
            self.head = PUPHead(width, num_classes)
            heads = [PatchHead(width, num_classes, kernel=3, enlarge=4) for _ in auxiliary]
        else:
            self.head = PatchHead(width, num_classes)
            heads = [PatchHead(width, num_classes) for _ in auxiliary]
        self.auxiliary = nn.ModuleList(heads)
        if checkpointing:
            see_once(self)
        if weights is not None:
            load_whole_or_vit(self, weights, backbone)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`: of the patches (naive), H, W (PUP) or a quarter of it (MLA); of
        size H, W where the image is not of whole patches. In training also those of the auxiliary heads.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("SETR", images, self.patch)
        padded = pad_to(images, self.patch)
        grid = (padded.shape[-2] // self.patch, padded.shape[-1] // self.patch)
        tokens = behind_blocks(self.encoder, embed(self.encoder, padded), self.blocks, self.checkpointing)
        if self.levels is not None:
            maps = through(self, self.levels, tokens, grid)
            logits = through(self, self.head, maps)
        else:
            *maps, last = (patch_map(each, grid) for each in tokens)
            logits = through(self, self.head, last)
        found = {}
        if self.training:
            pairs = zip(self.auxiliary, maps, strict=False)
            found = {
                f"aux_{number}": without_padding(through(self, head, each), padded, images)
                for number, (head, each) in enumerate(pairs, 1)
            }
        return PixelOutput(without_padding(logits, padded, images), found)


class PatchHead(nn.Module):
    """Normalised, two convolutions, and the logits perhaps enlarged."""

    def __init__(self, width: int, num_classes: int, kernel: int = 1, enlarge: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.hidden = Conv2dNormActivation(width, WIDTH, kernel, bias=True)
        self.classifier = nn.Conv2d(WIDTH, num_classes, 1)
        self.enlarge = enlarge

    def forward(self, patches: Tensor) -> Tensor:
        return _enlarged(self.classifier(self.hidden(_normalised(self.norm, patches))), self.enlarge)


class PUPHead(nn.Module):
    """Normalised, four convolutions of 3x3, the map twice as large behind each, the logits behind the last."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.steps = nn.ModuleList(Conv2dNormActivation(c, WIDTH, 3, bias=True) for c in (width, WIDTH, WIDTH, WIDTH))
        self.classifier = nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, patches: Tensor) -> Tensor:
        features = _normalised(self.norm, patches)
        *first, last = self.steps
        for step in first:
            features = _enlarged(step(features), 2)
        return _enlarged(self.classifier(last(features)), 2)


class Levels(nn.Module):
    """Four maps of the ViT to four of 256 channels: each normalised, projected, added to the sum of those behind it,
    and smoothed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(LEVELS))
        self.project = nn.ModuleList(Conv2dNormActivation(width, WIDTH, 1) for _ in range(LEVELS))
        self.smooth = nn.ModuleList(Conv2dNormActivation(WIDTH, WIDTH, 3) for _ in range(LEVELS))

    def forward(self, tokens: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        projected = [
            project(patch_map(norm(each), grid))
            for norm, project, each in zip(self.norms, self.project, tokens, strict=True)
        ]
        for index in range(LEVELS - 2, -1, -1):
            projected[index] = projected[index] + projected[index + 1]
        return [smooth(each) for smooth, each in zip(self.smooth, projected, strict=True)]


class MLAHead(nn.Module):
    """Two convolutions of each map, enlarged by four with corners aligned, joined and classified."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        half = WIDTH // 2
        self.levels = nn.ModuleList(
            nn.Sequential(Conv2dNormActivation(WIDTH, half, 3), Conv2dNormActivation(half, half, 3))
            for _ in range(LEVELS)
        )
        self.classifier = nn.Conv2d(LEVELS * half, num_classes, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        enlarged = [
            interpolate(level(each), scale_factor=4, mode="bilinear", align_corners=True)
            for level, each in zip(self.levels, maps, strict=True)
        ]
        return self.classifier(torch.cat(enlarged, 1))


def _normalised(norm: nn.Module, patches: Tensor) -> Tensor:
    """`[B, D, h, w]`, over D."""
    return norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _enlarged(x: Tensor, factor: int) -> Tensor:
    return x if factor == 1 else interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
