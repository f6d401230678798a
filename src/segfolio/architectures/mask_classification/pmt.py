"""PMT: Plain Mask Transformer for Image and Video Segmentation with Frozen Vision Encoders
(Niccolò Cavagnero, Narges Norouzi, Gijs Dubbelman, Daan de Geus, CVPR 2026 workshops), arXiv 2603.25398.

Follows the authors' release (tue-mps/pmt, images): a frozen plain ViT; its tokens behind every quarter of the blocks,
normalised, projected, scaled and summed; and a few blocks like the encoder's that take these tokens with the queries,
with rotated positions and EoMT's annealed masks, see `eomt.py`. Decoders that the authors released load as `decoder`.

Deviates:
- The encoder is timm's, of DINOv3 or any plain ViT, and stays in evaluation while the rest is trained. The positions of
  the decoder are then those of DINOv3's in evaluation; beside another encoder they are scaled at random in training, by
  up to two, as the authors' are.
- Images of any size, padded with zeros to whole patches, masks cropped to a quarter of the image.
- Without masked attention, in evaluation after the annealing, no masks are predicted on the way.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import timm
import torch
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.layers.annealed_queries import AnnealedQueries, upscaling
from segfolio.layers.backbones import check_timm_name, pad_to
from segfolio.layers.outputs import MaskOutput
from segfolio.layers.vit import check_at_least_a_patch, of_own_size, of_square
from segfolio.weights.dinov3 import read_named
from segfolio.weights.files import load_weights
from segfolio.weights.licences import DINOV3, tell_licence

_KEYS = (  # of the authors' release, to ours
    (r"^network\.", ""),
    (r"^bn\.(\d+)\.", r"laterals.\1.norm."),
    (r"^decoder\.lateral_projections\.(\d+)\.", r"laterals.\1.projection."),
    (r"^decoder\.scalers\.(\d+)", r"laterals.\1.scale"),
    (r"^decoder\.q\.", "query."),
    (r"^decoder\.blocks\.", "layers."),
    (r"^decoder\.decoder_norm\.", "layernorm."),
    (r"^decoder\.upscale\.(\d+)\.conv", r"upscale_block.block.\1.conv"),
    (r"^decoder\.upscale\.(\d+)\.norm", r"upscale_block.block.\1.layernorm2d"),
    (r"^decoder\.mask_head\.([024])\.", lambda found: f"mask_head.fc{int(found[1]) // 2 + 1}."),
    (r"^decoder\.class_head\.", "class_predictor."),
    (r"^decoder\.attn_mask_probs", "_extra_state"),
)


class PMT(AnnealedQueries):
    """A frozen ViT and a decoder of plain blocks, in which Q queries read its tokens.

    Args:
        backbone: timm's name of a plain ViT, of DINOv3 (those that end with `qkvb` have the biases that Meta's have),
            of DINOv2 or another.
        image_size: of the table of positions, if the backbone has one, and to whose multiples images are padded if
            `pad_to_size`, in pixels.
        patch_size: to which the backbone's patch embedding is resampled (DINOv2's is 14), a power of two from 8.
        num_blocks: of the decoder.
        taps: the blocks of the encoder, from 0, whose tokens the decoder gets; the last of each quarter if not given.
        feedforward: hidden channels of the decoder's blocks; the encoder's width if not given.
        pad_to_size: pad images to multiples of `image_size` in place of the patches', as the authors do for panoptic
            and instance segmentation.
        frozen: False trains the encoder, too.
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `lvd1689m`; or a file with a state dict of it or
            of this network. Weights that are from DINOv3 have its licence, which is told.
        decoder: None; or a decoder of the authors, e.g. `tue-mps/coco_panoptic_pmt_large_640_dinov3`, or its file.

    Raises:
        SegfolioError: a backbone that is no plain ViT, blocks that it does not have, weights that are not to be had or
            do not fit.
    """

    paper: ClassVar[str] = "PMT (Cavagnero et al., 2026), arXiv 2603.25398"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "PMT-S, DINOv3": {"backbone": "vit_small_patch16_dinov3_qkvb"},
        "PMT-B, DINOv3": {"backbone": "vit_base_patch16_dinov3_qkvb"},
        "PMT-L, DINOv3": {},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_vit", "image_size": 64, "num_queries": 8, "taps": (2, 5)}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_large_patch16_dinov3_qkvb",
        image_size: int = 640,
        patch_size: int = 16,
        num_queries: int = 200,
        num_blocks: int = 6,
        taps: Sequence[int] | None = None,
        feedforward: int | None = None,
        pad_to_size: bool = False,
        frozen: bool = True,
        checkpointing: bool = False,
        weights: str | None = None,
        decoder: str | None = None,
    ) -> None:
        from transformers import EomtDinov3Config
        from transformers.models.eomt_dinov3 import modeling_eomt_dinov3 as parts

        super().__init__()
        enlarged = upscaling("PMT", patch_size)
        self.encoder = plain_encoder(backbone, image_size, patch_size)
        depth, width = len(self.encoder.blocks), self.encoder.embed_dim
        self.taps = tuple(taps or range(depth // 4 - 1, depth, depth // 4))
        if num_blocks < 1 or not set(self.taps) <= set(range(depth)):
            raise SegfolioError(
                f"PMT: num_blocks {num_blocks}, taps {list(self.taps)}; give a block or more, and taps from 0 to "
                f"{depth - 1}, the blocks of {backbone}"
            )
        of_dinov3 = isinstance(self.encoder, eva.Eva)
        config = EomtDinov3Config(  # type: ignore[call-arg]
            hidden_size=width,
            num_attention_heads=self.encoder.blocks[0].attn.num_heads,
            intermediate_size=feedforward or width,
            patch_size=patch_size,
            layer_norm_eps=1e-5,
            num_upscale_blocks=enlarged,
            pos_embed_rescale=None if of_dinov3 else 2.0,
            attn_implementation="sdpa",
        )
        self.laterals = nn.ModuleList(Lateral(width) for _ in self.taps)
        self.rope_embeddings = parts.EomtDinov3RotaryEmbedding(config)
        self.num_queries, self.query = num_queries, nn.Embedding(num_queries, width)
        self.layers = nn.ModuleList(parts.EomtDinov3Layer(config) for _ in range(num_blocks))
        self.layernorm = nn.LayerNorm(width)
        self.upscale_block = parts.EomtDinov3ScaleBlock(config)
        self.mask_head = parts.EomtDinov3MaskHead(config)
        self.class_predictor = nn.Linear(width, num_classes + 1)
        self.patch_size, self.pad_multiple = patch_size, image_size if pad_to_size else patch_size
        self.mask_probabilities, self.checkpointing = [1.0] * num_blocks, checkpointing
        if weights is not None:
            self.load(weights, backbone)
        if decoder is not None:
            state = of_release(read_named(decoder, backbone))
            load_weights(self, {**state, **of_encoder(self)}, decoder)
        self.frozen = frozen
        self.encoder.set_grad_checkpointing(checkpointing and not frozen)
        self.encoder.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size from a patch's, to class logits and masks of a quarter of it.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("PMT", images, self.patch_size)
        padded = pad_to(images, self.pad_multiple)
        grid = (padded.shape[-2] // self.patch_size, padded.shape[-1] // self.patch_size)
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            found = self.encoder.forward_intermediates(
                padded,
                indices=list(self.taps),
                return_prefix_tokens=True,
                norm=True,
                stop_early=True,
                output_fmt="NLC",
                intermediates_only=True,
            )
        taken = (torch.cat([prefix, patches], 1) for patches, prefix in found)
        tokens = torch.stack([lateral(x) for lateral, x in zip(self.laterals, taken, strict=True)]).sum(0)
        positions = self.rope_embeddings(padded)
        blocks = [partial(layer, position_embeddings=positions) for layer in self.layers]
        return self.ask(tokens, grid, blocks, images)

    def load(self, weights: str, backbone: str) -> None:
        """Load weights of all, or of the encoder alone, and say the licence of DINOv3's.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        state = read_named(weights, backbone)
        if "query.weight" in state:
            load_weights(self, of_own_size(self.encoder, weights, bicubic=True)(state), weights)
            return
        convert = eva if isinstance(self.encoder, eva.Eva) else vision_transformer
        own = self.encoder.state_dict()
        found = convert.checkpoint_filter_fn(of_square(self.encoder, state, weights), self.encoder)
        load_weights(self.encoder, {key: value for key, value in found.items() if key in own}, weights)
        if "dinov3" in backbone:
            tell_licence(weights, DINOV3)


class Lateral(nn.Module):
    """From the tokens behind a block of the encoder to their part of the decoder's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.projection = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, width))
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, N, D]` to the same."""
        tokens = self.norm(tokens.flatten(0, 1)).view_as(tokens)
        return (tokens + self.projection(tokens)) * self.scale


def plain_encoder(backbone: str, image_size: int, patch_size: int) -> Any:
    """timm's ViT, for images of any size.

    Raises:
        SegfolioError: an unknown name, one that is no plain ViT with a class token.
    """
    check_timm_name(backbone)
    try:
        vit: Any = timm.create_model(
            backbone, num_classes=0, img_size=image_size, patch_size=patch_size, dynamic_img_size=True
        )
    except (AssertionError, RuntimeError, TypeError) as error:
        raise SegfolioError(f"backbone {backbone} is no plain ViT: {error}") from error
    plain = isinstance(vit, vision_transformer.VisionTransformer | eva.Eva)
    if not plain or not vit.num_prefix_tokens or getattr(vit, "attn_pool", None) is not None:
        raise SegfolioError(f"backbone {backbone} is no plain ViT with a class token, e.g. vit_base_patch16_dinov3")
    return vit


def of_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A decoder of the authors under our names."""
    renamed = {}
    for key, value in state.items():
        ours = key
        for pattern, name in _KEYS:
            ours = re.sub(pattern, name, ours)
        if not ours.startswith(("encoder.", "criterion.")):
            renamed[ours] = value
    return renamed


def of_encoder(network: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in network.state_dict().items() if key.startswith("encoder.")}
