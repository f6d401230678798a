"""OCRNet: Object-Contextual Representations for Semantic Segmentation
(Yuhui Yuan, Xilin Chen, Jingdong Wang, ECCV 2020), arXiv 1909.11065.

Follows section 3 and the authors' code (HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR; for dilated ResNets
openseg-group/openseg.pytorch): soft object regions from the fourth stage of a ResNet of output stride 8, or from all
four resolutions of an HRNet (arXiv 1904.04514), supervised (weight 0.4); the mean of each region's pixels; every
pixel's attention to the regions; logits upsampled with corners aligned.

Deviates:
- ImageNet weights are timm's: `ms_in1k` of the authors' HRNet, `gluon_in1k` of ResNets with a stem of three
  convolutions.
- For HRNets, images are padded with zeros to a multiple of 32, which is what timm's takes, and logits cropped.
- No biases where normalisation follows; the authors' code has some, without effect.
"""

from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torchvision.ops import Conv2dNormActivation

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name, pad_to
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import fcn_head, resize_corners
from segfolio.layers.outputs import PixelOutput
from segfolio.weights.backbones import load_pretrained
from segfolio.weights.files import load_weights


class OCRNet(DilatedNetwork):
    """Object context on a dilated ResNet.

    Args:
        backbone: timm's name; `resnet101s` has a stem of three convolutions.
        channels: of the features that get a context.
        key_channels: of queries, keys and values.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or cannot be dilated, weights that do not fit.
    """

    paper: ClassVar[str] = "OCRNet (Yuan et al., 2020), arXiv 1909.11065"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"OCRNet, R101": {}}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 32, "key_channels": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101s",
        channels: int = 512,
        key_channels: int = 256,
        output_stride: int = 8,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, (3, 4), output_stride, in_channels=in_channels)
        middle, last = self.channels
        self.regions = fcn_head(middle, channels, num_classes, nn.Dropout2d(0.05))
        self.reduce = Conv2dNormActivation(last, channels, 3)
        self.context = ObjectContext(channels, key_channels)
        self.head = nn.Conv2d(channels, num_classes, 1)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> PixelOutput:
        """`[B, C_in, H, W]` to logits `[B, C, H, W]`; in training also those of the soft object regions, `regions`."""
        middle, last = self.features(images)
        regions = self.regions(middle)
        logits = self.head(self.context(self.reduce(last), regions))
        auxiliary = {"regions": resize_corners(regions, images)} if self.training else {}
        return PixelOutput(resize_corners(logits, images), auxiliary)


class OCRHRNet(nn.Module):
    """Object context on an HRNet, at stride 4.

    Args:
        backbone: timm's name of an HRNet.
        channels, key_channels, weights, in_channels: as of `OCRNet`.

    Raises:
        SegfolioError: a backbone that is no HRNet, weights that do not fit.
    """

    paper: ClassVar[str] = "OCRNet (Yuan et al., 2020), arXiv 1909.11065"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"OCRNet, HRNet-W48": {}}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "hrnet_w18_small", "channels": 16, "key_channels": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "hrnet_w48",
        channels: int = 512,
        key_channels: int = 256,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_timm_name(backbone)
        if not backbone.startswith("hrnet"):
            raise SegfolioError(f"OCRHRNet: backbone {backbone} is no HRNet; take OCRNet for a ResNet")
        stages: dict[str, Any] = {"feature_location": "", "out_indices": (1, 2, 3, 4)}
        self.backbone: Any = timm.create_model(backbone, features_only=True, in_chans=in_channels, **stages)
        width = sum(self.backbone.feature_info.channels())
        self.regions = nn.Sequential(*Conv2dNormActivation(width, width, 1), nn.Conv2d(width, num_classes, 1))
        self.reduce = Conv2dNormActivation(width, channels, 3)
        self.context = ObjectContext(channels, key_channels)
        self.head = nn.Conv2d(channels, num_classes, 1)
        if weights is not None:
            load_pretrained(self, weights, backbone, None, lambda state: self._load_backbone(state, weights))

    def forward(self, images: Tensor) -> PixelOutput:
        """As of `OCRNet`."""
        padded = pad_to(images, 32)
        finest, *coarser = self.backbone(padded)
        features = torch.cat([finest, *(resize_corners(x, finest) for x in coarser)], 1)
        regions = self.regions(features)
        logits = self.head(self.context(self.reduce(features), regions))

        def fit(scores: Tensor) -> Tensor:
            return resize_corners(scores, padded)[..., : images.shape[-2], : images.shape[-1]]

        return PixelOutput(fit(logits), {"regions": fit(regions)} if self.training else {})

    def _load_backbone(self, state: dict[str, Tensor], weights: str) -> None:
        own = self.backbone.state_dict()  # not the classifier's layers
        load_weights(self.backbone, {key: value for key, value in state.items() if key in own}, weights)


class ObjectContext(nn.Module):
    """Adds to each pixel what the regions that it resembles are about (section 3.2)."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query = _projection(channels, key_channels)
        self.key = _projection(channels, key_channels)
        self.value = Conv2dNormActivation(channels, key_channels, 1)
        self.output = Conv2dNormActivation(key_channels, channels, 1)
        self.fuse = nn.Sequential(*Conv2dNormActivation(2 * channels, channels, 1), nn.Dropout2d(0.05))

    def forward(self, features: Tensor, regions: Tensor) -> Tensor:
        """Features `[B, D, h, w]` and logits of K regions `[B, K, h, w]` to `[B, D, h, w]`."""
        objects = region_means(features, regions)[..., None]
        query, key, value = (
            project(x).flatten(2).transpose(1, 2)
            for project, x in ((self.query, features), (self.key, objects), (self.value, objects))
        )
        context = scaled_dot_product_attention(query, key, value).transpose(1, 2).unflatten(2, features.shape[-2:])
        return self.fuse(torch.cat([self.output(context), features], 1))


def _projection(channels: int, key_channels: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2dNormActivation(channels, key_channels, 1), Conv2dNormActivation(key_channels, key_channels, 1)
    )


def region_means(features: Tensor, regions: Tensor) -> Tensor:
    """`[B, D, K]`: of each region, the mean of the features, weighted by softmax of its logits over the pixels."""
    return features.flatten(2) @ regions.flatten(2).softmax(-1).transpose(1, 2)
