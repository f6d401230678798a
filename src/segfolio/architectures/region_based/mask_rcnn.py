"""Mask R-CNN
(Kaiming He, Georgia Gkioxari, Piotr Dollár, Ross Girshick, ICCV 2017), arXiv 1703.06870.

Follows section 3 and Figure 4: a mask of 28 x 28 for each class beside class and box, from four convolutions on
regions of 14 x 14 of the pyramid, or of 14 x 14 from the res5 that classes and boxes share (C4). Masks are learned on
positive regions, for the true class alone, and read off for the class found, in the boxes found. Built on torchvision's
parts, under their names: state dicts of `maskrcnn_resnet50_fpn` and, with `variants["Mask R-CNN, R50-FPN v2"]`, of
`maskrcnn_resnet50_fpn_v2` load as they are and give equal outputs.

Deviates:
- As Faster R-CNN here does: ResNets' strides, the turn of the box loss at 1/9, first weights, crowds, proposals per
  image, COCO's 80 classes.
- C4 pools regions of 14 x 14, which res5 halves, as in Detectron; the paper of 7 x 7, at stride 1.
- A mask is learned for the background too, as in torchvision; nothing reads it.
"""

from typing import Any, ClassVar

from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from segfolio.architectures.region_based.faster_rcnn import C4, V2, FasterRCNN
from segfolio.layers.pyramid import norm_layer


class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask for each region. Arguments and errors are those of `FasterRCNN`."""

    paper: ClassVar[str] = "Mask R-CNN (He et al., 2017), arXiv 1703.06870"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Mask R-CNN, R50-FPN": {},
        "Mask R-CNN, R101-FPN": {"backbone": "resnet101"},
        "Mask R-CNN, X101-32x8d-FPN": {"backbone": "resnext101_32x8d"},
        "Mask R-CNN, X101-64x4d-FPN": {"backbone": "resnext101_64x4d"},
        "Mask R-CNN, R50-FPN v2": V2,
        "Mask R-CNN, R50-C4": C4,
        "Mask R-CNN, R101-C4": {"backbone": "resnet101", **C4},
    }
    released: ClassVar[str] = "maskrcnn_resnet50_fpn"
    learns_masks: ClassVar[bool] = True

    def masks(self, num_classes: int, width: int) -> tuple[nn.Module | None, nn.Module | None, nn.Module]:
        if self.neck == "c4":
            return None, None, MaskRCNNPredictor(width, self.channels, num_classes + 1)
        layers = [self.channels] * 4
        head = MaskRCNNHeads(self.backbone.out_channels, layers, 1, norm_layer=norm_layer(self.head_norm))
        return self.pool(14), head, MaskRCNNPredictor(self.channels, self.channels, num_classes + 1)
