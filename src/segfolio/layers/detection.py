"""What networks that find objects are given and return: region-based and one-stage ones alike.

    forward(images, sizes, targets=None) -> dict[str, Tensor] | list[Detections]

`images` `[B, C_in, H, W]` are normalised, and zero on the right and below where an image is smaller than the largest of
its batch; `sizes` are height and width of each without that. A network pads to its stride itself. In training it is
given one `DetectionTarget` per image and returns its losses, scalars that are weighted already, by the name under
which each is logged: whatever assigns objects to regions, cells or queries is its own. In evaluation it returns one
`Detections` per image, after its own threshold, suppression and limit. Its C classes are the things of the dataset. One
that learns from boxes alone says so by an attribute `learns_masks`, false.
"""

from typing import NamedTuple

from torch import Tensor

Size = tuple[int, int]


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
