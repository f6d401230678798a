"""R-CNN: Rich feature hierarchies for accurate object detection and semantic segmentation
(Ross Girshick, Jeff Donahue, Trevor Darrell, Jitendra Malik, CVPR 2014), arXiv 1311.2524.

Follows section 2 and appendices A and C: each of about 2,000 proposed regions, with 16 pixels of context, is warped to
the input of a classification network; its features are classified linearly, and a linear map refines the box.

Deviates:
- Network, classifier and boxes are learned together, by the losses of Fast R-CNN, instead of in three stages with
  support vector machines and ridge regression; Fast R-CNN (section 5.4) finds a softmax slightly better than these.
- Without proposals at hand it makes its own, as Fast R-CNN here does.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import roi_align

from segfolio.architectures.region_based.fast_rcnn import searched
from segfolio.layers.backbones import check_timm_name
from segfolio.layers.detection import Detections, DetectionTarget, Size
from segfolio.layers.pyramid import Norm, normalised
from segfolio.layers.regions import Predictor, RegionHeads, RegionRecipe, run_head
from segfolio.weights.backbones import load_body, load_classifier


class RCNN(nn.Module):
    """Every region is an image of its own for a classification network.

    Args:
        num_classes: C, without background.
        backbone: timm's name of a classification network.
        norm: of the backbone; VGG-16 has none.
        size: of a warped region, in pixels.
        context: pixels around the box in the warped region.
        roi: the sampling and the thresholds.
        max_proposals: per image, of those that it makes itself.
        chunk: regions that go through the network at one time.
        weights: None; or a name of torchvision's weights of `backbone`, a tag of timm's, or a file.

    Raises:
        SegfolioError: an unknown backbone, weights that are not to be had or do not fit.
    """

    paper: ClassVar[str] = "R-CNN (Girshick et al., 2014), arXiv 1311.2524"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"R-CNN, VGG-16": {}}
    learns_masks: ClassVar[bool] = False
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "size": 32, "context": 2, "max_proposals": 50}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg16",
        norm: Norm = "frozen",
        size: int = 224,
        context: int = 16,
        roi: RegionRecipe = RegionRecipe(samples=128, nms_iou=0.3),  # noqa: B008  it is immutable
        max_proposals: int = 2000,
        chunk: int = 64,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.max_proposals = max_proposals
        check_timm_name(backbone)
        classifier: Any = timm.create_model(backbone, num_classes=0)
        warped = WarpedRegions(normalised(classifier, norm), size, context, chunk)
        self.roi_heads = RegionHeads(roi, warped, nn.Identity(), Predictor(classifier.head_hidden_size, num_classes))
        if weights is not None:
            load_classifier(self, weights, backbone, partial(self._load_backbone, weights))

    def forward(
        self,
        images: Tensor,
        sizes: list[Size],
        targets: Sequence[DetectionTarget] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """As `FastRCNN.forward`."""
        images = pad(images, (0, 1, 0, 1))  # so that the edge blends into zeros in any batch
        if proposals is None:
            proposals = searched(images, sizes, self.max_proposals)
        if self.training and targets is not None:
            return self.roi_heads.losses({"0": images}, proposals, sizes, targets)
        return self.roi_heads.detect({"0": images}, proposals, sizes)

    def _load_backbone(self, weights: str, state: Mapping[str, Tensor]) -> None:
        load_body(self.roi_heads.box_roi_pool.classifier, state, weights)


class WarpedRegions(nn.Module):
    """Regions of an image, each resized to the same square whatever its shape, to features of a classifier."""

    def __init__(self, classifier: nn.Module, size: int, context: int, chunk: int) -> None:
        super().__init__()
        self.classifier, self.size, self.chunk = classifier, size, chunk
        self.zoom = size / (size - 2 * context)

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        """Of images `[B, 3, H, W]` and boxes `[N, 4]` of each, features `[sum of N, D]`."""
        regions = torch.cat([pad(self.enlarged(box), (1, 0), value=place) for place, box in enumerate(boxes)])
        images = features["0"].float()
        warped = (roi_align(images, part, self.size, aligned=True) for part in regions.split(self.chunk))
        return torch.cat([run_head(self.classifier, part) for part in warped])

    def enlarged(self, boxes: Tensor) -> Tensor:
        """The boxes with what the warped region shows around them; outside the image there is its mean, 0."""
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        return torch.cat([centre - self.zoom * half, centre + self.zoom * half], 1)
