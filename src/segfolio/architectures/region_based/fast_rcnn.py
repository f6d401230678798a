"""Fast R-CNN
(Ross Girshick, ICCV 2015), arXiv 1504.08083.

Follows section 2: the image goes through the network once, regions that are given are pooled from its last features
(RoIPool, 7 x 7) and classified, and their boxes refined, by two linear layers of 4096 channels that start from
VGG-16's.

Deviates:
- Negative regions are those below 0.5 overlap; the paper leaves out those below 0.1.
- The loss of a box turns from quadratic to linear at 1/9 instead of 1; no dropout. Both as torchvision's Faster R-CNN.
- Without proposals at hand it makes its own, by `layers.selective_search`, which is simpler than the published one. So
  does `families.Detection`, in every step: what was found in the image as stored no longer holds in a window of it.
- The last layers of scores and boxes start as torch's linear layers do, not from normal distributions of deviations
  0.01 and 0.001.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import roi_pool

from segfolio.layers.backbones import pad_to
from segfolio.layers.detection import Detections, DetectionTarget, Size
from segfolio.layers.pyramid import Features, Norm
from segfolio.layers.regions import Predictor, RegionHeads, RegionRecipe
from segfolio.layers.selective_search import selective_search
from segfolio.weights.backbones import load_body, load_classifier


class FastRCNN(nn.Module):
    """Given regions are pooled from the features of the whole image.

    Args:
        num_classes: C, without background.
        backbone: timm's name of a network with features of stride 16.
        norm: of the backbone; VGG-16 has none.
        frozen_stride: layers of the backbone up to this stride are not trained; 0 from scratch.
        roi: the sampling and the thresholds.
        head_channels: of the linear layers.
        max_proposals: per image, of those that it makes itself.
        weights: None; or a name of torchvision's weights of `backbone`, a tag of timm's, or a file.

    Raises:
        SegfolioError: an unknown backbone, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "Fast R-CNN (Girshick, 2015), arXiv 1504.08083"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"Fast R-CNN, VGG-16": {}}
    learns_masks: ClassVar[bool] = False
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "head_channels": 32, "max_proposals": 50}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        norm: Norm = "frozen",
        frozen_stride: int = 2,
        roi: RegionRecipe = RegionRecipe(samples=64, nms_iou=0.3),  # noqa: B008  it is immutable
        head_channels: int = 4096,
        max_proposals: int = 2000,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.max_proposals = max_proposals
        self.backbone: Any = Features(backbone, 16, norm, frozen_stride)
        head = TwoMLPHead(self.backbone.out_channels * 49, head_channels)
        self.roi_heads = RegionHeads(roi, RoIPool(1 / 16), head, Predictor(head_channels, num_classes))
        if weights is not None:
            load_classifier(self, weights, backbone, partial(self._load_backbone, weights))

    def forward(
        self,
        images: Tensor,
        sizes: list[Size],
        targets: Sequence[DetectionTarget] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses `cls` and `box`, in evaluation what is found in each image.

        Args:
            images: `[B, 3, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
            proposals: of each image, boxes `[N, 4]` in pixels; None to search them.
        """
        images = pad_to(images, 32)
        if proposals is None:
            proposals = searched(images, sizes, self.max_proposals)
        features = self.backbone(images)
        if self.training and targets is not None:
            return self.roi_heads.losses(features, proposals, sizes, targets)
        return self.roi_heads.detect(features, proposals, sizes)

    def _load_backbone(self, weights: str, state: Mapping[str, Tensor]) -> None:
        load_body(self.backbone.body, state, weights)
        head = self.roi_heads.box_head
        for ours, *theirs in (("fc6", "classifier.0", "pre_logits.fc1"), ("fc7", "classifier.3", "pre_logits.fc2")):
            layer = getattr(head, ours)
            for name in theirs:  # torchvision's and timm's
                if f"{name}.weight" in state and state[f"{name}.weight"].numel() == layer.weight.numel():
                    layer.weight.data.copy_(state[f"{name}.weight"].view_as(layer.weight))
                    layer.bias.data.copy_(state[f"{name}.bias"])


class RoIPool(nn.Module):
    """The maxima of the 7 x 7 parts of a region, in whole pixels of the feature map."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        return roi_pool(features["0"], boxes, 7, self.scale)


def searched(images: Tensor, sizes: list[Size], limit: int) -> list[Tensor]:
    """The boxes of selective search in each image `[3, H, W]`, of any range of values."""
    found = []
    for image, (height, width) in zip(images, sizes, strict=True):
        valid = image[:, :height, :width].detach().float()
        low, high = valid.amin(), valid.amax()
        pixels = ((valid - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0)
        found.append(torch.from_numpy(selective_search(pixels.cpu().numpy(), limit)).to(images.device))
    return found
