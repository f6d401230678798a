"""Mask2Former: Masked-attention Mask Transformer for Universal Image Segmentation
(Bowen Cheng, Ishan Misra, Alexander G. Schwing, Alexander Kirillov, Rohit Girdhar, CVPR 2022), arXiv 2112.01527.

Follows section 3 and the authors' release (facebookresearch/Mask2Former): six layers of multi-scale deformable
attention in the pixel decoder, nine decoder layers of masked attention that go round three scales, learnt query
features with a prediction of their own, no dropout. The layers are transformers' modules under their own names, so
that a state dict of `Mask2FormerForUniversalSegmentation` loads as it is, apart from its loss's
`criterion.empty_weight`.

Deviates:
- Initial values are the authors', not transformers', in convolutions, encoder and classifier.
- The pixel decoder computes in float32 whatever the precision, as the authors' does; transformers' would place
  its sampling points in half precision.
- Images are padded with zeros to a multiple of 32, in training too, and masks cropped to a quarter of the image.
- Deformable attention is sampled by `grid_sample`, whose gradient is not deterministic on CUDA.
- The norm that ends a Swin is kept for its place in state dicts and frozen; nothing reads it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segfolio.layers.again import keep_less, through
from segfolio.layers.backbones import backbone_config, check_features, crop_quarter, freeze_unused, pad_to
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.precision import without_autocast
from segfolio.weights.backbones import load_encoder, load_pretrained


class Mask2Former(nn.Module):
    """Q queries, each with a class and a mask, that attend to the masks that they have so far.

    Args:
        backbone: timm's name of any network with features of strides 4 to 32; `swin_...` is transformers' Swin.
        width: channels of the pixel decoder, the queries and the mask embeddings.
        encoder_layers: of the pixel decoder.
        checkpointing: in training, keep the inputs alone of the backbone's blocks, of the pixel decoder and of the
            decoder, and compute each again in the backward pass.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `tv_in1k`; or a released model, e.g.
            `facebook/mask2former-swin-tiny-coco-panoptic`; or a file with a state dict of one of these.

    Raises:
        SegfolioError: an unknown backbone, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "Mask2Former (Cheng et al., 2022), arXiv 2112.01527"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Mask2Former, R50": {},
        "Mask2Former, R101": {"backbone": "resnet101"},
        "Mask2Former, Swin-T": {"backbone": "swin_tiny_patch4_window7_224"},
        "Mask2Former, Swin-S": {"backbone": "swin_small_patch4_window7_224"},
        "Mask2Former, Swin-B": {"backbone": "swin_base_patch4_window12_384"},
        "Mask2Former, Swin-L, 200 queries": {"backbone": "swin_large_patch4_window12_384", "num_queries": 200},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_efficientnet",
        "num_queries": 16,
        "width": 32,
        "encoder_layers": 1,
        "decoder_layers": 3,
        "heads": 4,
        "encoder_feedforward": 64,
        "feedforward": 64,
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        num_queries: int = 100,
        width: int = 256,
        encoder_layers: int = 6,
        decoder_layers: int = 9,
        heads: int = 8,
        encoder_feedforward: int = 1024,
        feedforward: int = 2048,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerModel

        super().__init__()
        self.num_queries = num_queries
        config = Mask2FormerConfig(
            num_queries=num_queries,
            feature_size=width,
            mask_feature_size=width,
            hidden_dim=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers + 1,  # transformers counts the prediction of the query features
            num_attention_heads=heads,
            encoder_feedforward_dim=encoder_feedforward,
            dim_feedforward=feedforward,
        )
        config.backbone_config = backbone_config(backbone)  # set later, as the constructor warns of timm's
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(width, num_classes + 1)
        encoder = self.model.pixel_level_module.encoder
        freeze_unused(encoder)
        self.checkpointing = checkpointing
        if checkpointing:
            keep_less(encoder)
        _initialise(self.model)
        if weights is not None:

            def load_backbone(state: dict[str, Tensor]) -> None:
                load_encoder(encoder, state, weights, backbone)

            load_pretrained(self, weights, backbone, Mask2FormerForUniversalSegmentation, load_backbone)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size, to class logits and masks of a quarter of it.

        Raises:
            SegfolioError: images of 32 pixels or less on each side.
        """
        check_features("Mask2Former", images)
        features = self.model.pixel_level_module.encoder(pad_to(images, 32)).feature_maps
        dtype = self.class_predictor.weight.dtype
        with without_autocast(images.device):
            decoder = self.model.pixel_level_module.decoder
            pixels = through(self, decoder, [f.to(dtype) for f in features], output_hidden_states=False)
        decoded = through(self, self.model.transformer_module, pixels.multi_scale_features, pixels.mask_features)
        layers = list(zip(decoded.intermediate_hidden_states, decoded.masks_queries_logits, strict=True))
        return MaskOutput.of(
            [
                QueryLayer(self.class_predictor(queries.transpose(0, 1)), crop_quarter(masks, images))
                for queries, masks in (layers if self.training else layers[-1:])
            ]
        )


def initialise_pixels(decoder: Any) -> None:
    """The authors' initial values of the pixel decoder, where transformers' are others."""
    decoder.level_embed = nn.Parameter(torch.randn(decoder.level_embed.shape))  # transformers' is never on meta
    projections = {projection[0] for projection in decoder.input_projections}
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            if module in projections:
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in decoder.encoder.layers:
        nn.init.xavier_uniform_(layer.fc1.weight)
        nn.init.xavier_uniform_(layer.fc2.weight)


def _initialise(model: Any) -> None:
    """The authors' initial values, where transformers' are others."""
    initialise_pixels(model.pixel_level_module.decoder)
    for layer in model.transformer_module.decoder.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            nn.init.xavier_uniform_(part.weight, gain=0.5**0.5)  # one weight of three times the rows there
