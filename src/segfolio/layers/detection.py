"""What networks that find objects are given and return: region-based and one-stage ones alike.

    forward(images, sizes, targets=None) -> dict[str, Tensor] | list[Detections]

`images` `[B, C_in, H, W]` are normalised, and zero on the right and below where an image is smaller than the largest of
its batch; `sizes` are height and width of each without that. A network pads to its stride itself. In training it is
given one `DetectionTarget` per image and returns its losses, scalars that are weighted already, by the name under
which each is logged: whatever assigns objects to regions, cells or queries is its own. In evaluation it returns one
`Detections` per image, after its own threshold, suppression and limit. Its C classes are the things of the dataset. One
that learns from boxes alone says so by an attribute `learns_masks`, false.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segfolio.errors import SegfolioError

Size = tuple[int, int]
RARE = -math.log(99)  # the logit of a probability of 0.01, at which classes start (Focal Loss, 1708.02002, section 3.3)


class DetectionTarget(NamedTuple):
    """The objects of one image, in truth.

    Attributes:
        boxes: `[N, 4]` float, x1, y1, x2, y2 in pixels, of positive width and height.
        labels: `[N]` int64, 0 to C - 1.
        masks: `[N, H, W]` bool, of the padded image or its valid part; None where boxes alone are learned.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


class Objects(NamedTuple):
    """Those of all images of a batch together, N of them, for networks that learn masks.

    Attributes:
        boxes: `[N, 4]`.
        labels: `[N]`.
        image: `[N]`, which.
        firsts: `[B]`, the place of the first of each image.
        masks: of each image, `[N, H, W]`.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    firsts: Tensor
    masks: list[Tensor]

    @classmethod
    def of(cls, targets: Sequence[DetectionTarget], num_classes: int) -> "Objects":
        """Raises a `SegfolioError` of objects without masks, or of a class that is none of the network's."""
        boxes, labels = (torch.cat([getattr(each, name) for each in targets]) for name in ("boxes", "labels"))
        if len(wrong := labels[(labels < 0) | (labels >= num_classes)]):
            raise SegfolioError(
                f"an object is of class {int(wrong[0])}, but the network has the classes 0 to {num_classes - 1}; give "
                "it as many as the dataset has things"
            )
        masks = list[Tensor]()
        for each in targets:
            if each.masks is None and len(each.labels):
                raise SegfolioError(
                    "this network learns masks, but the objects have boxes alone; take FasterRCNN instead"
                )
            masks.append(each.boxes.new_zeros(0, 1, 1, dtype=torch.bool) if each.masks is None else each.masks)
        counts = torch.tensor([len(each.labels) for each in targets], device=boxes.device)
        image = torch.arange(len(targets), device=boxes.device).repeat_interleave(counts)
        return cls(boxes, labels, image, counts.cumsum(0) - counts, masks)


class Detections(NamedTuple):
    """The objects found in one image, best first: their boxes, their masks, or both.

    Attributes:
        boxes: `[N, 4]` float, x1, y1, x2, y2 in pixels, inside the valid part; None of networks that find masks alone
            (SOLO).
        labels: `[N]` int64, 0 to C - 1.
        scores: `[N]` float in 0 to 1.
        masks: `[N, h, w]`, an object is where its own exceeds `threshold`; None of networks without masks.
        stride: None where masks are over the boxes (Mask R-CNN: 28 x 28 in each). Else they are over the image as the
            network saw it: a cell is of so many pixels in each direction, the first one at the upper left (YOLO, SOLO).
        threshold: 0.5 of probabilities, 0 of logits.
        cropped: masks over the image that end at their boxes.
    """

    boxes: Tensor | None
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None
    stride: int | None = None
    threshold: float = 0.5
    cropped: bool = False
