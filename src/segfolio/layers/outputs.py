"""What networks return: one type per output contract."""

from collections.abc import Sequence
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


class QueryLayer(NamedTuple):
    """What the queries of a decoder layer say.

    Attributes:
        class_logits: `[B, Q, C + 1]`, the last for no object.
        mask_logits: `[B, Q, h, w]`, a quarter of the image's size, rounded up; None of an earlier layer without masks.
        boxes: `[B, Q, 4]`, x and y of the centre, width and height, in parts of the image's width and height; None of
            networks without boxes.
    """

    class_logits: Tensor
    mask_logits: Tensor | None
    boxes: Tensor | None = None


class MaskOutput(NamedTuple):
    """Q queries per image, each with scores of the C classes and a mask.

    Attributes:
        class_logits, mask_logits, boxes: of the last decoder layer, see `QueryLayer`.
        auxiliary: the earlier decoder layers, first to last; empty in evaluation.
        dense: maps `[B, ., h, w]` that are supervised beside the queries, by the name of the criterion's argument, all
            of which the network's `beside` names; None in evaluation, and of networks without.
    """

    class_logits: Tensor
    mask_logits: Tensor
    auxiliary: list[QueryLayer]
    boxes: Tensor | None = None
    dense: dict[str, Tensor] | None = None

    @classmethod
    def of(cls, layers: Sequence[QueryLayer]) -> "MaskOutput":
        """From all decoder layers, first to last, the last of which has masks."""
        *earlier, last = layers
        assert last.mask_logits is not None
        return cls(last.class_logits, last.mask_logits, earlier, last.boxes)

    @property
    def layers(self) -> list[QueryLayer]:
        """All of them, first to last."""
        return [*self.auxiliary, QueryLayer(self.class_logits, self.mask_logits, self.boxes)]
