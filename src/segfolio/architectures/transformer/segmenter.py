"""Segmenter: Transformer for Semantic Segmentation
(Robin Strudel, Ricardo Garcia, Ivan Laptev, Cordelia Schmid, ICCV 2021), arXiv 2105.05633.

Follows section 3 and the authors' release (rstrudel/segmenter): a plain ViT on patches of 8, 16 or 32 pixels whose
tokens a linear layer classifies, or two more blocks that take an embedding of each class beside the patches and compare
the two. Names of parameters are the authors', so that their checkpoints load as `weights`.

Deviates:
- Logits are those of the patches; they are enlarged in the network only where the image is not of whole patches and
  padding is cut off. Elsewhere the loss and the test enlarge them by the same interpolation.
- A comparison of vectors of length 0 is 0, not undefined.
"""

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import normalize

from segfolio.layers.again import through
from segfolio.layers.backbones import pad_to
from segfolio.layers.vit import (
    behind_blocks,
    check_at_least_a_patch,
    embed,
    load_whole_or_vit,
    patch_map,
    plain_vit,
    without_padding,
)

LAYER_NORM = partial(nn.LayerNorm, eps=1e-5)  # the release's; timm's is 1e-6


class Segmenter(nn.Module):
    """A ViT and a decoder on its patches.

    Args:
        backbone: timm's name of a plain ViT.
        patch_size: of the patches, where it is not the backbone's.
        decoder: `linear`, or `mask`: class embeddings in further blocks.
        image_size: of the table of positions, in pixels; that of the training's crops. Positions of other images are
            interpolated.
        drop_path: stochastic depth of the last block; that of the first is 0.
        decoder_blocks: of the mask decoder.
        decoder_dropout: in the blocks of the mask decoder.
        checkpointing: in training, keep the inputs alone of each block and of each step of the decoder, and compute
            them again in the backward pass.
        weights: None; a tag of timm's weights for `backbone`, e.g. `augreg_in21k_ft_in1k`; or a file with a state dict
            of it, of this network or of the authors' release.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that is no plain ViT, weights that are not to be had, of another patch size or that do
            not fit.
    """

    paper: ClassVar[str] = "Segmenter (Strudel et al., 2021), arXiv 2105.05633"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Seg-Ti-Mask/16": {"backbone": "vit_tiny_patch16_384"},
        "Seg-S-Mask/16": {"backbone": "vit_small_patch16_384"},
        "Seg-B-Mask/16": {},
        "Seg-L-Mask/16": {"backbone": "vit_large_patch16_384", "image_size": 640},
        "Seg-B/8": {"backbone": "vit_base_patch8_224", "decoder": "linear"},
        "Seg-B/16": {"decoder": "linear"},
        "Seg-B/32": {"backbone": "vit_base_patch32_384", "decoder": "linear"},
        "Seg-B†/16": {"backbone": "deit_base_distilled_patch16_384", "decoder": "linear"},
        "Seg-B†-Mask/16": {"backbone": "deit_base_distilled_patch16_384"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_vit", "patch_size": 8, "image_size": 64}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_base_patch16_384",
        patch_size: int | None = None,
        decoder: Literal["linear", "mask"] = "mask",
        image_size: int = 512,
        drop_path: float = 0.1,
        decoder_blocks: int = 2,
        decoder_dropout: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = plain_vit(
            backbone,
            image_size,
            in_chans=in_channels,
            drop_path_rate=drop_path,
            norm_layer=LAYER_NORM,
            **({} if patch_size is None else {"patch_size": patch_size}),
        )
        self.checkpointing, self.patch = checkpointing, self.encoder.patch_embed.patch_size[0]
        width = self.encoder.embed_dim
        if decoder == "linear":
            self.decoder: nn.Module = LinearDecoder(width, num_classes)
        else:
            self.decoder = MaskDecoder(width, num_classes, decoder_blocks, decoder_dropout, checkpointing)
        if weights is not None:
            load_whole_or_vit(self, weights, backbone)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]` of the patches; of size H, W where it is not of whole patches.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("Segmenter", images, self.patch)
        padded = pad_to(images, self.patch)
        grid = (padded.shape[-2] // self.patch, padded.shape[-1] // self.patch)
        (tokens,) = behind_blocks(
            self.encoder, embed(self.encoder, padded), [len(self.encoder.blocks) - 1], self.checkpointing
        )
        tokens = self.encoder.fc_norm(self.encoder.norm(tokens))
        logits = patch_map(self.decoder(tokens[:, -grid[0] * grid[1] :]), grid)
        return without_padding(logits, padded, images)


class LinearDecoder(nn.Module):
    """The classes of a patch by a linear layer."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, num_classes)
        self.apply(_initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Patches `[B, N, D]` to logits `[B, N, C]`."""
        return self.head(tokens)


class MaskDecoder(nn.Module):
    """Blocks over the patches and an embedding of each class; logits are their cosines, normalised over the classes."""

    def __init__(self, width: int, num_classes: int, blocks: int, dropout: float, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.proj_dec = nn.Linear(width, width)
        self.cls_emb = nn.Parameter(torch.empty(1, num_classes, width))
        heads = max(1, width // 64)
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout, norm_layer=LAYER_NORM)
            for _ in range(blocks)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.proj_patch = nn.Parameter(torch.empty(width, width))
        self.proj_classes = nn.Parameter(torch.empty(width, width))
        self.mask_norm = nn.LayerNorm(num_classes)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)
        for projection in (self.proj_patch, self.proj_classes):
            nn.init.normal_(projection, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Patches `[B, N, D]` to logits `[B, N, C]`."""
        classes = self.cls_emb.shape[1]
        tokens = torch.cat([self.proj_dec(tokens), self.cls_emb.expand(len(tokens), -1, -1)], 1)
        for block in self.blocks:
            tokens = through(self, block, tokens)
        return through(self, self._compare, tokens, classes)

    def _compare(self, tokens: Tensor, classes: int) -> Tensor:
        tokens = self.decoder_norm(tokens)
        patches = normalize(tokens[:, :-classes] @ self.proj_patch, dim=-1)
        embeddings = normalize(tokens[:, -classes:] @ self.proj_classes, dim=-1)
        return self.mask_norm(patches @ embeddings.transpose(1, 2))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
