"""DPT: Vision Transformers for Dense Prediction
(René Ranftl, Alexey Bochkovskiy, Vladlen Koltun, ICCV 2021), arXiv 2103.13413.

Follows section 3 and the authors' release for segmentation (isl-org/DPT): the tokens behind four blocks of a plain ViT,
each with what the class token says, reassembled as maps of strides 4, 8, 16 and 32, fused from the coarsest to the
finest by residual convolutions, and classified at half the image's size. State dicts of transformers'
`DPTForSemanticSegmentation` load as `weights`.

Deviates:
- Classifiers and projections of 1x1 run before an enlargement that the release does first: the two commute.
- Images of any size, padded with zeros to whole patches.
- The first fusion's residual of a map that there is none of is left out, of weights that hold it as well.
- The ViT's normalisations have an epsilon of 1e-6, the release's; transformers' configuration has 1e-12.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, linear, relu

from segfolio.errors import SegfolioError
from segfolio.layers.again import see_once, through
from segfolio.layers.backbones import pad_to
from segfolio.layers.heads import fcn_head
from segfolio.layers.outputs import PixelOutput
from segfolio.layers.vit import (
    behind_blocks,
    check_at_least_a_patch,
    embed,
    load_vit,
    load_whole_or_vit,
    patch_map,
    plain_vit,
)
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.hub import read_repository

LEVELS = 4
KEYS = (  # of transformers, to timm's ViT and ours
    (r"^dpt\.embeddings\.position_embeddings", "encoder.pos_embed"),
    (r"^dpt\.embeddings\.cls_token", "encoder.cls_token"),
    (r"^dpt\.embeddings\.patch_embeddings\.projection\.", "encoder.patch_embed.proj."),
    (r"^dpt\.encoder\.layer\.", "encoder.blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.", r"reassemble.\1."),
    (r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0\.", r"reassemble.\1.readout."),
    (r"^neck\.convs\.(\d)\.", r"reassemble.\1.smooth."),
    (r"^neck\.fusion_stage\.layers\.", "fuse."),
    (r"^(auxiliary_)?head\.head\.", lambda m: "auxiliary." if m[1] else "head."),
)


class DPT(nn.Module):
    """A ViT, its tokens reassembled and fused as maps, logits of the image's size.

    Args:
        backbone: timm's name of a plain ViT.
        taps: the four blocks whose tokens are reassembled, counted from 0.
        image_size: of the table of positions, in pixels. Positions of other images are interpolated.
        channels: of the reassembled maps, the finest first.
        width: channels of the fusion.
        auxiliary: whether the fused map is classified a second time, as `auxiliary["aux"]`.
        dropout: before the classifiers.
        drop_path: stochastic depth of the last block; that of the first is 0.
        checkpointing: in training, keep the inputs alone of each block and of each step of the head, and compute them
            again in the backward pass.
        weights: None; a tag of timm's weights for `backbone`, e.g. `augreg_in21k_ft_in1k`; a released model of the hub,
            e.g. `Intel/dpt-large-ade`; or a file with a state dict of one of them or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that is no plain ViT of patches of 16, blocks that it does not have, weights that are
            not to be had, of another patch size or that do not fit.
    """

    paper: ClassVar[str] = "DPT (Ranftl et al., 2021), arXiv 2103.13413"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DPT-Large": {},
        "DPT-Base": {
            "backbone": "vit_base_patch16_384",
            "taps": (2, 5, 8, 11),
            "channels": (96, 192, 384, 768),
        },
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"backbone": "test_vit", "taps": (0, 1, 3, 5), "image_size": 64, "channels": (8, 8, 16, 16), "width": 16},
        **{"dropout": 0.0},
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_large_patch16_384",
        taps: Sequence[int] = (5, 11, 17, 23),
        image_size: int = 480,
        channels: Sequence[int] = (256, 512, 1024, 1024),
        width: int = 256,
        auxiliary: bool = True,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = plain_vit(backbone, image_size, prefix=1, in_chans=in_channels, drop_path_rate=drop_path)
        self.encoder.norm = self.encoder.fc_norm = nn.Identity()  # nothing reads it
        self.checkpointing, self.taps, blocks = checkpointing, tuple(taps), len(self.encoder.blocks)
        self.patch = self.encoder.patch_embed.patch_size[0]
        if len(taps) != LEVELS or len(channels) != LEVELS or not all(0 <= block < blocks for block in taps):
            raise SegfolioError(
                f"DPT: taps {list(taps)}, channels {list(channels)}; give four of each, the taps of the blocks 0 to "
                f"{blocks - 1} of {backbone}"
            )
        embedded = self.encoder.embed_dim
        self.reassemble = nn.ModuleList(
            Reassemble(embedded, each, width, factor)
            for each, factor in zip(channels, (4, 2, 1, -2), strict=True)  # from patches to the stride of the level
        )
        self.fuse = nn.ModuleList(Fusion(width, coarser=index > 0) for index in range(LEVELS))
        self.head = fcn_head(width, width, num_classes, nn.Dropout(dropout))
        self.auxiliary = fcn_head(width, width, num_classes, nn.Dropout(dropout)) if auxiliary else None
        if checkpointing:
            see_once(self)
        if weights is not None:
            self.load(weights, backbone)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, H, W]`; in training also those of the auxiliary head, of half the size.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("DPT", images, self.patch)
        padded = pad_to(images, self.patch)
        grid = (padded.shape[-2] // self.patch, padded.shape[-1] // self.patch)
        tokens = behind_blocks(self.encoder, embed(self.encoder, padded), self.taps, self.checkpointing)
        levels = [
            through(self, reassemble, each, grid) for reassemble, each in zip(self.reassemble, tokens, strict=True)
        ]
        fused = None
        for fuse, level in zip(self.fuse, reversed(levels), strict=True):
            fused = through(self, fuse, level, fused)
        assert fused is not None
        found = {"aux": through(self, self.auxiliary, fused)} if self.training and self.auxiliary is not None else {}
        height, width = images.shape[-2:]
        return PixelOutput(_twice(through(self, self.head, fused))[..., :height, :width], found)

    def load(self, weights: str, backbone: str) -> None:
        """Load weights of all, or of the ViT alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        path = Path(weights)
        state: Mapping[str, Tensor] = {}
        if path.is_file():
            state = read_file(path)
        elif path.is_dir() or "/" in weights:
            state = read_repository(weights)
        if not any(key.startswith("neck.") for key in state):
            load_whole_or_vit(self, weights, backbone)
            return
        own = of_ours(state)
        of_vit = {key.removeprefix("encoder."): value for key, value in own.items() if key.startswith("encoder.")}
        load_vit(self.encoder, of_vit, weights)  # which fits the table of positions
        fitted = {f"encoder.{key}": value for key, value in self.encoder.state_dict().items()}
        skipped = () if self.auxiliary is not None else ("auxiliary.",)
        rest = {key: value for key, value in own.items() if not key.startswith(("encoder.", *skipped))}
        load_weights(self, rest | fitted, weights, () if "auxiliary.4.bias" in rest else ("auxiliary.",))


class Reassemble(nn.Module):
    """Tokens of a block to a map of another stride: each patch with the class token, projected, resized, smoothed."""

    def __init__(self, embedded: int, channels: int, width: int, factor: int) -> None:
        super().__init__()
        self.readout = nn.Linear(2 * embedded, embedded)
        self.projection = nn.Conv2d(embedded, channels, 1)
        self.resize: nn.Module = nn.Identity()
        if factor > 1:
            self.resize = nn.ConvTranspose2d(channels, channels, factor, factor)
        elif factor < 0:
            self.resize = nn.Conv2d(channels, channels, 3, -factor, 1)
        self.smooth = nn.Conv2d(channels, width, 3, padding=1, bias=False)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """`[B, 1 + h w, D]` to `[B, width, h', w']`."""
        of_patch, of_class = self.readout.weight.chunk(2, 1)  # a product of each, and not one of both joined
        beside = linear(tokens[:, :1], of_class, self.readout.bias)
        read = gelu(linear(tokens[:, 1:], of_patch) + beside)
        return self.smooth(self.resize(self.projection(patch_map(read, grid))))


class Fusion(nn.Module):
    """A level added to what is fused of the coarser ones, both by residual convolutions, and twice as large."""

    def __init__(self, width: int, coarser: bool) -> None:
        super().__init__()
        self.residual_layer1 = Residual(width) if coarser else None
        self.residual_layer2 = Residual(width)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, level: Tensor, fused: Tensor | None) -> Tensor:
        if fused is not None and self.residual_layer1 is not None:
            if level.shape != fused.shape:  # an odd number of patches
                level = interpolate(level, fused.shape[-2:], mode="bilinear", align_corners=False)
            level = fused + self.residual_layer1(level)
        return _twice(self.projection(self.residual_layer2(level)))


class Residual(nn.Module):
    """Two convolutions, a ReLU before each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution2(relu(self.convolution1(relu(x))))


def _twice(x: Tensor) -> Tensor:
    """Enlarged by two, corners aligned."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def of_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' under our names, without what nothing reads."""
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(("dpt.layernorm.", "dpt.pooler.", "neck.fusion_stage.layers.0.residual_layer1.")):
            continue
        for pattern, name in KEYS:
            key = re.sub(pattern, name, key)
        own[key] = value
    for key in [key for key in own if ".attn.query." in key]:  # apart in transformers
        parts = [own.pop(key.replace(".query.", f".{part}."), torch.empty(0)) for part in ("query", "key", "value")]
        own[key.replace(".query.", ".qkv.")] = torch.cat(parts)
    return own
