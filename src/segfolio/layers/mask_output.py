"""What every network of mask classification returns."""

from typing import NamedTuple

from torch import Tensor


class MaskOutput(NamedTuple):
    """Q queries per image, each with scores of the C classes and a mask.

    Attributes:
        class_logits: `[B, Q, C + 1]`, the last for no object.
        mask_logits: `[B, Q, h, w]`, a quarter of the image's size, rounded up.
        auxiliary: the same two of earlier decoder layers, first to last; empty in evaluation.
    """

    class_logits: Tensor
    mask_logits: Tensor
    auxiliary: list[tuple[Tensor, Tensor]]
