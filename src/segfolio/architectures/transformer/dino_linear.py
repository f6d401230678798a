"""DINO with a linear head: DINOv2: Learning Robust Visual Features without Supervision
(Maxime Oquab, Timothée Darcet, Théo Moutakanni, et al., 2023), arXiv 2304.07193; and DINOv3 (Oriane Siméoni, Huy V. Vo,
Maximilian Seitzer, Federico Baldassarre, Maxime Oquab, et al., 2025), arXiv 2508.10104.

Follows DINOv2's section 7.4 and the authors' release: the patches behind the last block, or behind several, normalised
over the batch and classified by one linear layer. The ViT is timm's, whose weights are the authors', and it is meant to
be frozen: `parameters: {frozen: [encoder]}` in the YAML.

Deviates:
- Images are padded with zeros on the right and below to whole patches; the authors' code pads all around.
- DINOv2's positions are interpolated as timm does, bicubically and antialiased.
"""

from typing import Any, ClassVar

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name, pad_to
from segfolio.layers.vit import check_at_least_a_patch, load_vit, of_own_size, without_padding
from segfolio.weights.backbones import load_pretrained
from segfolio.weights.files import load_weights


class DINOLinear(nn.Module):
    """A ViT of DINOv2 or DINOv3 and a linear layer, logits of the patches.

    Args:
        backbone: timm's name of a ViT, `vit_..._dinov2` or `vit_..._dinov3`.
        blocks: how many of the last blocks' patches are joined: 1, or 4 of the release's multi-scale heads.
        image_size: of a table of positions, in pixels, where the ViT has one. Positions of other images are
            interpolated.
        drop_path: stochastic depth of the last block, where the ViT is not frozen.
        dropout: of the channels before the linear layer.
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass.
        weights: None; a tag of timm's weights for `backbone`, e.g. `lvd142m`; or a file with a state dict of it or of
            this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that is no such ViT, more blocks than it has, weights that are not to be had, of
            another patch size or that do not fit.
    """

    paper: ClassVar[str] = "DINOv2 (Oquab et al., 2023), arXiv 2304.07193"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DINOv2-S, linear": {},
        "DINOv2-B, linear": {"backbone": "vit_base_patch14_dinov2"},
        "DINOv2-L, linear": {"backbone": "vit_large_patch14_dinov2"},
        "DINOv2-g, linear": {"backbone": "vit_giant_patch14_dinov2"},
        "DINOv3-S, linear": {"backbone": "vit_small_patch16_dinov3"},
        "DINOv3-B, linear": {"backbone": "vit_base_patch16_dinov3"},
        "DINOv3-L, linear": {"backbone": "vit_large_patch16_dinov3"},
        "DINOv3-7B, linear": {"backbone": "vit_7b_patch16_dinov3"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_vit", "blocks": 2, "image_size": 64}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_small_patch14_dinov2",
        blocks: int = 1,
        image_size: int = 518,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        checkpointing: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = _vit(backbone, image_size, in_chans=in_channels, drop_path_rate=drop_path)
        self.encoder.set_grad_checkpointing(checkpointing)
        self.patch, depth = self.encoder.patch_embed.patch_size[0], len(self.encoder.blocks)
        if not 1 <= blocks <= depth:
            raise SegfolioError(
                f"DINOLinear: blocks is {blocks}; {backbone} has {depth}, give 1 to {depth} of the last"
            )
        self.blocks = blocks
        width = blocks * self.encoder.embed_dim
        self.norm, self.dropout = nn.BatchNorm2d(width), nn.Dropout2d(dropout)
        self.classifier: Any = nn.Conv2d(width, num_classes, 1)
        _initialise(self.classifier)
        if weights is not None:
            fit = of_own_size(self.encoder, weights)
            load_pretrained(self, weights, backbone, None, lambda state: self._load_vit(state, weights), fit)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]` of the patches; of size H, W where it is not of whole patches.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("DINOLinear", images, self.patch)
        padded = pad_to(images, self.patch)
        maps = self.encoder.forward_intermediates(padded, indices=self.blocks, norm=True, intermediates_only=True)
        logits = self.classifier(self.dropout(self.norm(torch.cat(maps, 1))))
        return without_padding(logits, padded, images)

    def _load_vit(self, state: dict[str, Tensor], weights: str) -> None:
        if isinstance(self.encoder, VisionTransformer):
            load_vit(self.encoder, state, weights)
            return
        own = self.encoder.state_dict()
        load_weights(self.encoder, {key: value for key, value in state.items() if key in own}, weights)


def _vit(backbone: str, image_size: int, **arguments: Any) -> Any:
    """timm's ViT for images of any size, with a table of positions for images of `image_size` or rotary ones."""
    check_timm_name(backbone)
    try:
        vit: Any = timm.create_model(backbone, num_classes=0, dynamic_img_size=True, img_size=image_size, **arguments)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise SegfolioError(f"backbone {backbone} is no plain ViT: {error}") from error
    if not isinstance(vit, VisionTransformer | Eva):
        raise SegfolioError(f"backbone {backbone} is no plain ViT, e.g. vit_small_patch14_dinov2")
    vit.fc_norm = nn.Identity()
    return vit


def _initialise(classifier: Any) -> None:
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
