"""What networks return: one type per output contract."""

from typing import NamedTuple

from torch import Tensor


class PixelOutput(NamedTuple):
    """Scores of the C classes at each pixel, and what is supervised beside them.

    Attributes:
        logits: `[B, C, h, w]`, of any size; corners are not aligned.
        auxiliary: by the name under which each loss is logged, `[B, C, h, w]`, or `[B, C]` of classes that are
            somewhere in the image; empty in evaluation.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor]


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
