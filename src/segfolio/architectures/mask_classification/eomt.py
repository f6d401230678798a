"""EoMT: Your ViT is Secretly an Image Segmentation Model
(Tommie Kerssies, Niccolò Cavagnero, Alexander Hermans, Narges Norouzi, Giuseppe Averta, Bastian Leibe, Gijs
Dubbelman, Daan de Geus, CVPR 2025), arXiv 2503.19108.

Follows section 3 and the authors' release (tue-mps/eomt): a plain ViT whose last blocks also take the queries,
masked attention in these, annealed away block by block in training, and masks from the patches upscaled to stride 4.
The layers are transformers' modules under their own names, so that a state dict of `EomtForUniversalSegmentation`
loads as `weights`; there its `attn_mask_probs` are a buffer, here they are `mask_probabilities`.

Deviates:
- A mask is passed to attention as booleans once for all heads, not as floats for each; it is not carried over
  from a block with masking to a block without, as it is in transformers.
- Images of any size: padded with zeros to whole patches, the position embeddings interpolated (bicubic) where the
  grid is not that of `image_size`, masks cropped to a quarter of the image.
- The giant ViT, with its gated layers, is not here; EoMT on DINOv3 is in `eomt_dinov3.py`.
"""

from typing import Any, ClassVar

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.layers.again import through
from segfolio.layers.annealed_queries import AnnealedQueries, check_taken, of_parts, upscaling
from segfolio.layers.backbones import check_timm_name, pad_to
from segfolio.layers.outputs import MaskOutput
from segfolio.layers.vit import check_at_least_a_patch, fitted_table, of_square, resized
from segfolio.weights.backbones import from_timm, load_pretrained
from segfolio.weights.files import load_weights

KEYS = (  # of transformers, to timm's
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.register_tokens", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.position_embeddings\.weight", "pos_embed"),
    (r"^layernorm", "norm"),
    (r"^layers", "blocks"),
    (r"attention\.out_proj", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
)
POSITIONS = "embeddings.position_embeddings.weight"
HEAD = ("query", "upscale_block", "mask_head", "class_predictor", "_extra_state")


class EoMT(AnnealedQueries):
    """A ViT of N tokens that takes Q queries into its last blocks.

    Args:
        backbone: timm's name of a plain ViT with a class token.
        image_size: of the position embeddings' square grid, in pixels.
        patch_size: to which the backbone's patch embedding is resampled (DINOv2's is 14), a power of two from 8.
        num_blocks: that the queries go through.
        drop_path: stochastic depth, of every block.
        pad_to_size: pad images to multiples of `image_size` in place of `patch_size`, as the authors do for panoptic
            and instance segmentation, whose images they fit into a square: no position is interpolated.
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `lvd142m`; or a released model, e.g.
            `tue-mps/ade20k_semantic_eomt_large_512`; or a file with a state dict of one of these.

    Raises:
        SegfolioError: a backbone that is no plain ViT, another patch size, weights that are not to be had or do not
            fit.
    """

    paper: ClassVar[str] = "EoMT (Kerssies et al., 2025), arXiv 2503.19108"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "EoMT-S": {"backbone": "vit_small_patch14_reg4_dinov2"},
        "EoMT-B": {"backbone": "vit_base_patch14_reg4_dinov2"},
        "EoMT-L": {},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_vit", "image_size": 64, "num_queries": 8}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_large_patch14_reg4_dinov2",
        image_size: int = 640,
        patch_size: int = 16,
        num_queries: int = 200,
        num_blocks: int = 4,
        drop_path: float = 0.0,
        pad_to_size: bool = False,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        from transformers import EomtConfig, EomtForUniversalSegmentation

        super().__init__()
        enlarged = upscaling("EoMT", patch_size)
        vit = _plain_vit(backbone, image_size, patch_size)
        check_taken("EoMT", num_blocks, len(vit.blocks))
        config = EomtConfig(  # type: ignore[call-arg]
            hidden_size=vit.embed_dim,
            num_hidden_layers=len(vit.blocks),
            num_attention_heads=vit.blocks[0].attn.num_heads,
            mlp_ratio=vit.blocks[0].mlp.fc1.out_features // vit.embed_dim,
            num_register_tokens=vit.num_reg_tokens,
            image_size=image_size,
            patch_size=patch_size,
            num_upscale_blocks=enlarged,
            num_queries=num_queries,
            num_blocks=num_blocks,
            drop_path_rate=drop_path,
            num_labels=num_classes,
            attn_implementation="sdpa",
        )
        parts = EomtForUniversalSegmentation(config)
        self.embeddings, self.layers, self.layernorm = parts.embeddings, parts.layers, parts.layernorm
        of_parts(self, parts)
        self.patch_size, self.num_blocks, self.num_queries = patch_size, num_blocks, num_queries
        self.pad_multiple = image_size if pad_to_size else patch_size
        self.mask_probabilities, self.checkpointing = [1.0] * num_blocks, checkpointing
        if weights is not None:

            def load_backbone(state: dict[str, Tensor]) -> None:
                load_weights(self, self._from_vit(state, vit, weights), weights, new=HEAD)

            def fit(state: dict[str, Tensor]) -> dict[str, Tensor]:
                return fitted_table(state, POSITIONS, self.state_dict()[POSITIONS], 0, weights, bicubic=True)

            load_pretrained(self, weights, backbone, EomtForUniversalSegmentation, load_backbone, fit)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size from a patch's, to class logits and masks of a quarter of it.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("EoMT", images, self.patch_size)
        padded = pad_to(images, self.pad_multiple)
        grid = (padded.shape[-2] // self.patch_size, padded.shape[-1] // self.patch_size)
        tokens = self._embed(padded, grid)
        start = len(self.layers) - self.num_blocks
        for layer in self.layers[:start]:
            tokens = through(self, layer, tokens)
        return self.ask(tokens, grid, list(self.layers[start:]), images)

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Class token, registers and patches, `[B, N, D]`."""
        positions = self.embeddings.position_embeddings.weight
        side = round(len(positions) ** 0.5)
        patches = self.embeddings.patch_embeddings(images) + resized(positions[None], (side, side), grid, bicubic=True)
        prefix = torch.cat([self.embeddings.cls_token, self.embeddings.register_tokens], dim=1)
        return torch.cat([prefix.expand(len(images), -1, -1), patches], dim=1)

    def _from_vit(self, state: dict[str, Tensor], vit: Any, source: str) -> dict[str, Tensor]:
        """timm's state dict under our names, resampled to our patches and image size."""
        state = checkpoint_filter_fn(of_square(vit, state, source), vit)
        patches = self.embeddings.position_embeddings.num_embeddings
        if "pos_embed" in state:
            positions = state["pos_embed"][0]
            state["pos_embed"] = positions[-patches:]
            if len(positions) > patches:  # the class token has one too
                state["cls_token"] = state["cls_token"] + positions[:1]
        converted = from_timm(self.state_dict(), state, KEYS)
        for name, value in self.state_dict().items():
            if "register_tokens" in name and not value.numel():
                converted[name] = value
            if "layer_scale" in name and "blocks.0.ls1.gamma" not in state:
                converted[name] = torch.ones_like(value)
        return converted


def _plain_vit(backbone: str, image_size: int, patch_size: int) -> Any:
    """timm's ViT, without memory."""
    check_timm_name(backbone)
    try:
        with torch.device("meta"):
            vit = timm.create_model(backbone, num_classes=0, img_size=image_size, patch_size=patch_size)
    except (RuntimeError, TypeError) as error:
        raise SegfolioError(f"backbone {backbone} is no plain ViT: {error}") from error
    if not getattr(vit, "has_class_token", False) or not hasattr(vit.blocks[0].mlp, "fc1"):
        raise SegfolioError(
            f"backbone {backbone} is no plain ViT with a class token, e.g. vit_base_patch14_reg4_dinov2"
        )
    return vit
