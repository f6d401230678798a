"""DETR: End-to-End Object Detection with Transformers
(Nicolas Carion, Francisco Massa, Gabriel Synnaeve, Nicolas Usunier, Alexander Kirillov, Sergey Zagoruyko, ECCV 2020),
arXiv 2005.12872.

Follows sections 3 and 4.4 and the authors' release (facebookresearch/detr): an encoder and a decoder of transformers on
a ResNet, boxes and classes from the queries after each decoder layer, and for panoptic segmentation a head that turns
each query's attention over the image into a mask, on the features of three strides. The box model is trained first, the
head then on the frozen box model. The layers are transformers' modules under their own names, so that a state dict of
`DetrForSegmentation` or `DetrForObjectDetection` loads as `weights`.

Deviates:
- Images come without padding, each of its own size or all of one, so that attention needs no mask.
- Each decoder layer's prediction is normalised but not fed back normalised, as in the authors' code; transformers'
  auxiliary outputs are other.
- Initial values are the authors', not transformers', in transformer, queries and mask head.
- The released weights have a row for each of COCO's 250 ids, and load with as many classes.
- Without the mask head the mask of a query is the inside of its box, by which a box model is measured.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segfolio.layers.backbones import backbone_config
from segfolio.layers.outputs import MaskOutput, QueryLayer
from segfolio.weights.backbones import load_body, load_pretrained
from segfolio.weights.files import load_weights, read_file

SURE = 20.0  # the logit of a pixel inside a box
HEAD = ("mask_head.", "bbox_attention.")


class DETR(nn.Module):
    """Q queries, each with a class, a box and a mask.

    Args:
        backbone: timm's name of any network with features of strides 4 to 32; of a ResNet neither the stem nor the
            first stage is trained, and no batch normalisation of any.
        dilated: the last stage has stride 16 (DC5).
        masks: whether there is a mask head; without, this is the box model of the first step.
        weights: None; or a tag of timm's weights for `backbone`, e.g. `tv_in1k`; or a released model, e.g.
            `facebook/detr-resnet-50-panoptic`; or a file with a state dict of one of these. Of a box model all but the
            mask head is loaded.

    Raises:
        SegfolioError: an unknown backbone, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "DETR (Carion et al., 2020), arXiv 2005.12872"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "DETR, R50": {},
        "DETR-DC5, R50": {"dilated": True},
        "DETR, R101": {"backbone": "resnet101"},
        "DETR, R50, boxes alone": {"masks": False},
    }
    tiny: ClassVar[dict[str, Any]] = {
        "backbone": "test_efficientnet",
        "num_queries": 8,
        "width": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "heads": 8,
        "feedforward": 64,
        "dropout": 0.0,
        "dilated": False,
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        num_queries: int = 100,
        width: int = 256,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        dilated: bool = False,
        masks: bool = True,
        weights: str | None = None,
    ) -> None:
        from transformers import DetrConfig, DetrForSegmentation

        super().__init__()
        self.num_queries = num_queries
        images: Any = backbone_config(backbone)
        if dilated:
            images.output_stride = 16
        config = DetrConfig(  # type: ignore[call-arg]
            backbone_config=images,
            num_labels=num_classes,
            num_queries=num_queries,
            d_model=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=feedforward,
            decoder_ffn_dim=feedforward,
            dropout=dropout,
            attn_implementation="sdpa",
        )
        parts: Any = DetrForSegmentation(config)
        self.detr = parts.detr
        self.mask_head: Any = parts.mask_head if masks else None
        self.bbox_attention: Any = parts.bbox_attention if masks else None
        body = self.detr.model.backbone.model
        if backbone.startswith("resnet"):
            for name, parameter in body.named_parameters():
                parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))
        _initialise(self)
        if weights is not None:
            self.load(weights, backbone)

    def forward(self, images: Tensor) -> MaskOutput:
        """`[B, 3, H, W]`, of any size, to class logits, boxes and masks of a quarter of it."""
        model: Any = self.detr.model
        seen = torch.ones(len(images), *images.shape[-2:], device=images.device)
        features = [maps for maps, _ in model.backbone(images, seen)]
        projected = model.input_projection(features[-1])
        grid = projected.shape[-2:]
        places = model.position_embedding(features[-1].shape, images.device, images.dtype).flatten(2).transpose(1, 2)
        tokens = model.encoder(
            inputs_embeds=projected.flatten(2).transpose(1, 2), spatial_position_embeddings=places
        ).last_hidden_state
        slots = model.query_position_embeddings.weight.expand(len(images), -1, -1)
        queries, decoded = torch.zeros_like(slots), []
        for layer in model.decoder.layers:
            queries = layer(queries, None, places, slots, tokens)
            decoded.append(model.decoder.layernorm(queries))
        layers = []
        for state in decoded if self.training else decoded[-1:]:
            boxes = self.detr.bbox_predictor(state).sigmoid()
            layers.append(QueryLayer(self.detr.class_labels_classifier(state), None, boxes))
        memory = tokens.transpose(1, 2).unflatten(2, grid)
        layers[-1] = layers[-1]._replace(mask_logits=self._masks(decoded[-1], memory, projected, features, layers[-1]))
        return MaskOutput.of(layers)

    def load(self, weights: str, backbone: str) -> None:
        """Load weights of all, of a box model, or of the backbone alone.

        Raises:
            SegfolioError: weights that are not to be had, or do not fit.
        """
        from transformers import DetrForSegmentation

        state = read_file(Path(weights)) if Path(weights).is_file() else {}
        if "model.query_position_embeddings.weight" in state:  # of transformers' box model
            state = {f"detr.{key}": value for key, value in state.items()}
        if "detr.model.query_position_embeddings.weight" in state:
            load_weights(self, state, weights, () if any(key.startswith(HEAD) for key in state) else HEAD)
            return

        def load_backbone(found: dict[str, Tensor]) -> None:
            load_body(self.detr.model.backbone.model, found, weights)

        load_pretrained(self, weights, backbone, DetrForSegmentation, load_backbone)

    def _masks(
        self, queries: Tensor, memory: Tensor, projected: Tensor, features: list[Tensor], layer: QueryLayer
    ) -> Tensor:
        """Mask logits `[B, Q, h, w]` of the last layer."""
        if self.mask_head is None or self.bbox_attention is None:
            assert layer.boxes is not None
            return inside(layer.boxes, (features[0].shape[-2], features[0].shape[-1]))
        attention = self.bbox_attention(queries, memory)
        masks = self.mask_head(projected, attention, features[2::-1])
        return masks.view(*queries.shape[:2], *masks.shape[-2:])


def inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `[B, Q, h, w]` of masks that are boxes `[B, Q, 4]`: centres and sides in parts of w and h."""
    centre, sides = boxes.detach()[..., None, None].split(2, 2)
    y = (torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)[:, None] + 0.5) / size[0]
    x = (torch.arange(size[1], device=boxes.device, dtype=boxes.dtype) + 0.5) / size[1]
    within = (2 * (x - centre[:, :, 0]).abs() <= sides[:, :, 0]) & (2 * (y - centre[:, :, 1]).abs() <= sides[:, :, 1])
    return SURE * (2 * within.to(boxes.dtype) - 1)


def _initialise(network: Any) -> None:
    """The authors' initial values, where transformers' are others."""
    model = network.detr.model
    nn.init.normal_(model.query_position_embeddings.weight)
    for part in (model.encoder, model.decoder):
        for name, p in part.named_parameters():
            if p.ndim > 1:
                shared = name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
                nn.init.xavier_uniform_(p, gain=0.5**0.5 if shared else 1)  # one weight of three times the rows there
    for module in (model.input_projection, network.detr.class_labels_classifier, *network.detr.bbox_predictor.layers):
        module.reset_parameters()
    for module in network.mask_head.modules() if network.mask_head is not None else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
