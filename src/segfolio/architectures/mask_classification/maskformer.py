"""MaskFormer: Per-Pixel Classification is Not All You Need for Semantic Segmentation
(Bowen Cheng, Alexander G. Schwing, Alexander Kirillov, NeurIPS 2021), arXiv 2107.06278.

Follows section 3.3 and the authors' release (facebookresearch/MaskFormer): an FPN pixel decoder with group
normalisation, six decoder layers on the features of stride 32, a three-layer perceptron for the mask embeddings,
and a prediction after every decoder layer. The layers are transformers' modules under their own names, so that a
state dict of `MaskFormerForInstanceSegmentation` loads as it is, apart from its loss's `criterion.empty_weight`.

Deviates:
- Initial values are the authors', not transformers': queries of unit variance (there 0.02), Xavier in the decoder.
- The predictions of earlier layers are normalised but not fed back normalised, as in the authors' release;
  transformers' auxiliary outputs are other.
- Images are padded with zeros to a multiple of 32, in training too, and masks cropped to a quarter of the image.
- R101c is timm's `resnet101s`, whose stem of 64, 64 and 128 channels is the authors', with its ImageNet weights and
  without their dilations of 1, 2 and 4 in the last stage.
- The panoptic models' six encoder layers in the pixel decoder are not here, nor in transformers.
- The norm that ends a Swin is kept for its place in state dicts and frozen; nothing reads it.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segfolio.layers.again import keep_less, through
from segfolio.layers.backbones import backbone_config, check_features, crop_quarter, freeze_unused, pad_to
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.weights.backbones import load_encoder, load_pretrained


class MaskTransformer(nn.Module):
    """Backbone, pixel decoder, transformer decoder and mask embeddings: MaskFormer without its classifier."""

    def __init__(self, backbone: str, width: int, checkpointing: bool, **decoder: Any) -> None:
        from transformers.models.maskformer.modeling_maskformer import MaskformerMLPPredictionHead

        super().__init__()
        self.model, self.checkpointing = build_model(backbone, width, **decoder), checkpointing
        if checkpointing:
            keep_less(self.model.pixel_level_module.encoder)
        self.mask_embedder = MaskformerMLPPredictionHead(width, width, width)

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """`[B, 3, H, W]` to the queries `[B, Q, D]` after each decoder layer, in evaluation after the last alone,
        and the embeddings of the pixels, `[B, D, h, w]` at stride 4."""
        coarsest, pixels = seen(self, self.model.pixel_level_module, images)
        queries = list(self._decode(coarsest))
        return queries if self.training else queries[-1:], pixels

    def masks(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Mask logits `[B, Q, h, w]`."""
        return torch.einsum("bqd,bdhw->bqhw", self.mask_embedder(queries), pixels)

    def _decode(self, features: Tensor) -> Iterator[Tensor]:
        module = self.model.transformer_module
        if module.input_projection is not None:
            features = module.input_projection(features)
        positions = module.position_embedder(features.shape, features.device, torch.float32).to(features.dtype)
        positions, features = (x.flatten(2).transpose(1, 2) for x in (positions, features))
        places = module.queries_embedder.weight.expand(len(features), -1, -1)
        queries = torch.zeros_like(places)
        for layer in module.decoder.layers:
            queries = through(
                self,
                layer,
                queries,
                spatial_position_embeddings=positions,
                object_queries_position_embeddings=places,
                encoder_hidden_states=features,
            )
            yield module.decoder.layernorm(queries)


class MaskFormer(MaskTransformer):
    """Q queries, each with a class and a mask.

    Args:
        backbone: timm's name of any network with features of strides 4 to 32; `swin_...` is transformers' Swin.
        num_queries: None for one per class, which fixed matching needs.
        width: channels of the pixel decoder, the queries and the mask embeddings.
        checkpointing: in training, keep the inputs alone of the backbone's blocks, of the pixel decoder and of the
            decoder's layers, and compute each again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `tv_in1k`; or a released model, e.g.
            `facebook/maskformer-swin-tiny-ade`; or a file with a state dict of one of these.

    Raises:
        SegfolioError: an unknown backbone, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "MaskFormer (Cheng et al., 2021), arXiv 2107.06278"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "MaskFormer, R50": {},
        "MaskFormer, R101": {"backbone": "resnet101"},
        "MaskFormer, R101c": {"backbone": "resnet101s"},
        "MaskFormer, Swin-T": {"backbone": "swin_tiny_patch4_window7_224"},
        "MaskFormer, Swin-S": {"backbone": "swin_small_patch4_window7_224"},
        "MaskFormer, Swin-B": {"backbone": "swin_base_patch4_window12_384"},
        "MaskFormer, Swin-L": {"backbone": "swin_large_patch4_window12_384"},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_efficientnet",
        "num_queries": 8,
        "width": 32,
        "decoder_layers": 2,
        "heads": 4,
        "feedforward": 64,
        "dropout": 0.0,
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        num_queries: int | None = 100,
        width: int = 256,
        decoder_layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__(
            backbone,
            width,
            checkpointing,
            num_queries=num_queries or num_classes,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
        )
        self.num_queries = num_queries or num_classes
        self.class_predictor = nn.Linear(width, num_classes + 1)
        if weights is not None:
            load(self, self.model.pixel_level_module.encoder, weights, backbone)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size, to class logits and masks of a quarter of it.

        Raises:
            SegfolioError: images of 32 pixels or less on each side.
        """
        queries, pixels = self.embed(images)
        return MaskOutput.of([QueryLayer(self.class_predictor(q), self.masks(q, pixels)) for q in queries])


def build_model(
    backbone: str,
    width: int,
    num_queries: int = 100,
    decoder_layers: int = 6,
    heads: int = 8,
    feedforward: int = 2048,
    dropout: float = 0.1,
) -> Any:
    """transformers' `MaskFormerModel` with the authors' initial values."""
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerModel

    decoder = DetrConfig(
        num_queries=num_queries,
        d_model=width,
        decoder_layers=decoder_layers,
        decoder_attention_heads=heads,
        decoder_ffn_dim=feedforward,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
    )
    config = MaskFormerConfig(decoder_config=decoder, fpn_feature_size=width, mask_feature_size=width)
    config.backbone_config = backbone_config(backbone)  # set later, as the constructor warns of timm's
    model = MaskFormerModel(config)
    freeze_unused(model.pixel_level_module.encoder)
    _initialise(model)
    return model


def seen(network: Any, module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """`[B, 3, H, W]` to the coarsest features of the backbone of transformers' `module`, and the embeddings of the
    pixels, `[B, D, h, w]` at stride 4; the pixel decoder is computed again where `network.checkpointing`.

    Raises:
        SegfolioError: images of 32 pixels or less on each side.
    """
    check_features(type(network).__name__, images)
    features = module.encoder(pad_to(images, 32)).feature_maps
    pixels = through(network, module.decoder, list(features)).last_hidden_state
    return features[-1], crop_quarter(pixels, images)


def load(network: nn.Module, encoder: nn.Module, weights: str, backbone: str) -> None:
    """Load `weights` into `network`, or into its `encoder` alone; see `MaskFormer`."""
    from transformers import MaskFormerForInstanceSegmentation

    def load_backbone(state: dict[str, Tensor]) -> None:
        load_encoder(encoder, state, weights, backbone)

    load_pretrained(network, weights, backbone, MaskFormerForInstanceSegmentation, load_backbone)


def _initialise(model: Any) -> None:
    """The authors' initial values, where transformers' are others."""
    transformer = model.transformer_module
    for module in [*model.pixel_level_module.decoder.modules(), transformer.input_projection]:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(transformer.queries_embedder.weight)
    for name, p in transformer.decoder.named_parameters():
        if p.ndim > 1:
            shared = name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
            nn.init.xavier_uniform_(p, gain=0.5**0.5 if shared else 1)  # one weight of three times the rows there
