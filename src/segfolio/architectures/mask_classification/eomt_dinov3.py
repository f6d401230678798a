"""EoMT on DINOv3: Your ViT is Secretly an Image Segmentation Model
(Tommie Kerssies, Niccolò Cavagnero, Alexander Hermans, Narges Norouzi, Giuseppe Averta, Bastian Leibe, Gijs
Dubbelman, Daan de Geus, CVPR 2025), arXiv 2503.19108.

Follows the authors' release (tue-mps/eomt, DINOv3): EoMT, see `eomt.py`, on the encoder of DINOv3, whose positions are
rotations of queries and keys of the patches and whose grid is scaled at random by up to two in training. The layers are
transformers' modules under their own names, so that a state dict of `EomtDinov3ForUniversalSegmentation` loads as
`weights`; the authors' own releases are deltas, which are given as `delta` beside the `weights` of DINOv3.

Deviates:
- What EoMT's file says of its attention masks holds here, too.
- Initial values of the head are torch's, as in the authors' code; transformers' are of a deviation of 0.02 throughout,
  from which the network hardly learns. Those of the layer scales are DINOv3's.
- Images of any size, padded with zeros to whole patches, masks cropped to a quarter of the image.
- The larger ViTs with gated layers are not here.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from segfolio.layers.again import through
from segfolio.layers.annealed_queries import AnnealedQueries, check_taken, of_parts, upscaling
from segfolio.layers.backbones import pad_to
from segfolio.layers.outputs import MaskOutput
from segfolio.layers.vit import check_at_least_a_patch
from segfolio.weights.dinov3 import dinov3, of_eomt, read_named, with_delta
from segfolio.weights.files import load_weights
from segfolio.weights.licences import DINOV3, tell_licence

HEAD = ("query", "upscale_block", "mask_head", "class_predictor", "_extra_state")


class EoMTDINOv3(AnnealedQueries):
    """A ViT with rotated positions that takes Q queries into its last blocks.

    Args:
        backbone: timm's name of a ViT of DINOv3; those that end with `qkvb` have the biases that Meta's have.
        image_size: to whose multiples images are padded if `pad_to_size`, in pixels.
        num_blocks: that the queries go through (the authors' S and B: 3).
        drop_path: stochastic depth, of every block.
        pad_to_size: pad images to multiples of `image_size` in place of the patches', as the authors do for panoptic
            and instance segmentation, whose images they fit into a square.
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `lvd1689m`; or Meta's own, e.g.
            `facebook/dinov3-vitl16-pretrain-lvd1689m`; or a repository or file with a state dict of transformers' EoMT,
            of one of these or of this network. Weights that are from DINOv3 have its licence, which is told.
        delta: what a release of the authors, e.g. `tue-mps/coco_panoptic_eomt_large_640_dinov3`, adds to `weights` and
            has beside them.
        size: arguments of timm's constructor that make the backbone another size, as `{depth: 6}`.

    Raises:
        SegfolioError: a backbone that is no plain ViT of DINOv3, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "EoMT on DINOv3 (Kerssies et al., 2025), arXiv 2503.19108"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "EoMT-S, DINOv3": {"backbone": "vit_small_patch16_dinov3_qkvb", "num_blocks": 3},
        "EoMT-B, DINOv3": {"backbone": "vit_base_patch16_dinov3_qkvb", "num_blocks": 3},
        "EoMT-L, DINOv3": {},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "vit_tiny_patch16_dinov3_qkvb",
        "size": {"embed_dim": 64, "depth": 6, "num_heads": 2},
        "image_size": 64,
        "num_queries": 8,
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vit_large_patch16_dinov3_qkvb",
        image_size: int = 640,
        num_queries: int = 200,
        num_blocks: int = 4,
        drop_path: float = 0.0,
        pad_to_size: bool = False,
        checkpointing: bool = False,
        weights: str | None = None,
        delta: str | None = None,
        size: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        vit = dinov3("EoMTDINOv3", backbone, size)
        check_taken("EoMTDINOv3", num_blocks, len(vit.blocks))
        self.patch_size = vit.patch_embed.patch_size[0]
        parts = eomt_parts(
            vit,
            num_labels=num_classes,
            num_queries=num_queries,
            num_blocks=num_blocks,
            num_upscale_blocks=upscaling("EoMTDINOv3", self.patch_size),
            drop_path_rate=drop_path,
        )
        self.embeddings, self.layers, self.layernorm = parts.embeddings, parts.layers, parts.layernorm
        self.rope_embeddings = parts.rope_embeddings
        of_parts(self, parts)
        self.num_blocks, self.num_queries = num_blocks, num_queries
        self.pad_multiple = image_size if pad_to_size else self.patch_size
        self.mask_probabilities, self.checkpointing = [1.0] * num_blocks, checkpointing
        if weights is not None:
            self.load(weights, delta, backbone)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size from a patch's, to class logits and masks of a quarter of it.

        Raises:
            SegfolioError: images smaller than a patch.
        """
        check_at_least_a_patch("EoMTDINOv3", images, self.patch_size)
        padded = pad_to(images, self.pad_multiple)
        grid = (padded.shape[-2] // self.patch_size, padded.shape[-1] // self.patch_size)
        positions = self.rope_embeddings(padded)
        tokens = self.embeddings(padded)
        start = len(self.layers) - self.num_blocks
        for layer in self.layers[:start]:
            tokens = through(self, partial(layer, position_embeddings=positions), tokens)
        rest = [partial(layer, position_embeddings=positions) for layer in self.layers[start:]]
        return self.ask(tokens, grid, rest, images)

    def load(self, weights: str, delta: str | None, backbone: str) -> None:
        """Load weights of all, or of the encoder alone, and say the licence of those that are not this network's own.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        state, own = read_named(weights, backbone), self.state_dict()
        renamed = of_eomt(state, own)
        if delta is not None:
            renamed = with_delta(renamed, of_eomt(read_named(delta, backbone), own), delta)
        load_weights(self, renamed, weights, () if "query.weight" in renamed else HEAD)
        if "_extra_state" not in state:
            tell_licence(weights, DINOV3)


def eomt_parts(vit: Any, **arguments: Any) -> Any:
    """transformers' EoMT of the size of timm's `vit`, outside of which initial values are torch's, as the authors'."""
    from transformers import EomtDinov3Config, EomtDinov3ForUniversalSegmentation

    config = EomtDinov3Config(  # type: ignore[call-arg]
        hidden_size=vit.embed_dim,
        num_hidden_layers=len(vit.blocks),
        num_attention_heads=vit.blocks[0].attn.num_heads,
        intermediate_size=vit.blocks[0].mlp.fc1.out_features,
        num_register_tokens=vit.num_prefix_tokens - 1,
        patch_size=vit.patch_embed.patch_size[0],
        layer_norm_eps=1e-5,  # Meta's, and the releases'
        layerscale_value=1e-5,  # where training starts from no weights
        attn_implementation="sdpa",
        **arguments,
    )
    parts = EomtDinov3ForUniversalSegmentation(config)
    for part in (parts.query, parts.upscale_block, parts.mask_head, parts.class_predictor):
        for module in part.modules():
            if isinstance(module, nn.Embedding | nn.Linear | nn.LayerNorm | nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()
    return parts
