"""The per-pixel baselines of MaskFormer: Per-Pixel Classification is Not All You Need for Semantic Segmentation
(Bowen Cheng, Alexander G. Schwing, Alexander Kirillov, NeurIPS 2021), arXiv 2107.06278.

Follows section 4 and the authors' release (facebookresearch/MaskFormer): `PerPixelBaseline` is MaskFormer's
pixel decoder and a 1x1 convolution; `PerPixelBaselinePlus` adds MaskFormer's transformer decoder with one query per
class, whose mask is that class's map of scores after each of its layers. Both have logits at stride 4 and are trained
by cross-entropy, the latter on every decoder layer with equal weight.

Deviates as MaskFormer does, see there.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from segfolio.architectures.mask_classification.maskformer import MaskFormer, MaskTransformer, build_model, load, seen
from segfolio.layers.again import keep_less
from segfolio.layers.outputs import PixelOutput


class PerPixelBaseline(nn.Module):
    """FPN pixel decoder and a classifier of its pixels.

    Args:
        backbone, width, checkpointing, weights: as of `MaskFormer`.

    Raises:
        SegfolioError: as `MaskFormer`.
    """

    paper: ClassVar[str] = "PerPixelBaseline (Cheng et al., 2021), arXiv 2107.06278"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"PerPixelBaseline, R50": {}}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_efficientnet", "width": 32}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        width: int = 256,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.model = build_model(backbone, width, decoder_layers=0).pixel_level_module
        self.checkpointing = checkpointing
        if checkpointing:
            keep_less(self.model.encoder)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        nn.init.kaiming_normal_(self.classifier.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]
        if weights is not None:
            load(self, self.model.encoder, weights, backbone)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up."""
        _, pixels = seen(self, self.model, images)
        return self.classifier(pixels)


class PerPixelBaselinePlus(MaskTransformer):
    """`PerPixelBaseline` with MaskFormer's transformer decoder: the masks of its C queries are the classes' scores.

    For the arguments see `MaskFormer`.

    Raises:
        SegfolioError: as `MaskFormer`.
    """

    paper: ClassVar[str] = "PerPixelBaseline+ (Cheng et al., 2021), arXiv 2107.06278"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"PerPixelBaseline+, R50": {}}
    tiny: ClassVar[dict[str, Any]] = {  # with all layers: experiments name the losses of each
        name: value for name, value in MaskFormer.tiny.items() if name not in ("num_queries", "decoder_layers")
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
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
            num_queries=num_classes,
            decoder_layers=decoder_layers,
            heads=heads,
            feedforward=feedforward,
            dropout=dropout,
        )
        if weights is not None:
            load(self, self.model.pixel_level_module.encoder, weights, backbone)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, 3, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up.

        The earlier decoder layers' are auxiliary: `layer_1`, `layer_2`, ...
        """
        queries, pixels = self.embed(images)
        *earlier, logits = (self.masks(q, pixels) for q in queries)
        return PixelOutput(logits, {f"layer_{i}": scores for i, scores in enumerate(earlier, 1)})
