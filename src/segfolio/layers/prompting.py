"""What networks that are prompted are given and return: SAM, MobileSAM, SAM 2, FastSAM.

    embed(images) -> Embedding                      once for an image
    read(embedding, prompts, multimask) -> Reading  what is answered to each prompt, before a mask is drawn
    draw(reading, keep) -> masks                    of all answers, or of those that are worth it

`images` `[B, C_in, H, W]` are normalised and of the size that `fit` says; the network pads them itself, on the right
and below. `decode` is the last two, `forward` all three. Embeddings are opaque, but for their first dimension: one may
be kept, cut into images, and asked again and again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segfolio.layers.detection import DetectionTarget, Size

OBJECT, NOT_OBJECT, NO_POINT, PADDING = 1, 0, -1, -10
"""Kinds of points: on the object, beside it, "not a point" (SAM, arXiv 2304.02643, appendix A), and nothing at all."""

Embedding = tuple[Tensor, ...]
"""Of B images, each `[B, ...]`; the first is what the image encoder is known by, e.g. `[B, 256, 64, 64]`."""


class PromptInput(NamedTuple):
    """P prompts, each for one object of one image of the batch; `data.prompts` says what kinds of points there are.

    Attributes:
        image: `[P]` int64, which image of the embedding each is of.
        points: `[P, K, 2]` float, x and y in pixels of `images`; the centre of the first pixel is at (0.5, 0.5).
        kinds: `[P, K]` int64, 1 on the object, 0 beside it, -1 "not a point", -10 padding, which is as if it were not
            there. K may be 0.
        boxes: `[P, 4]` float, left, top, right, bottom in pixels of `images`; NaN for a prompt without. None if none
            has one.
        masks: `[P, h, w]`, the logits of an earlier answer as `draw` gave them, or None.
    """

    image: Tensor
    points: Tensor
    kinds: Tensor
    boxes: Tensor | None = None
    masks: Tensor | None = None


class Reading(NamedTuple):
    """What was answered to P prompts by M masks each.

    Attributes:
        iou: `[P, M]`, how well the network thinks that each mask fits, 1 for exactly.
        object_score: `[P]`, the logit that the object is there at all; None of networks that do not say.
        state: what `draw` needs, opaque.
    """

    iou: Tensor
    object_score: Tensor | None
    state: tuple[Tensor, ...]


class PromptedMasks(NamedTuple):
    """A `Reading` with its masks.

    Attributes:
        masks: `[P, M, h, w]` logits over the padded square of `image_size`: a cell is of `image_size / h` pixels in
            each direction, the first one at the upper left.
        iou: `[P, M]`, see `Reading`.
        object_score: `[P]` or None, see `Reading`.
    """

    masks: Tensor
    iou: Tensor
    object_score: Tensor | None


class PromptableNetwork(nn.Module):
    """A network with `embed`, `read` and `draw`.

    Attributes:
        image_size: side of the padded square, in pixels.
        mask_size: side of the masks.
        through_square: whether masks come to an image's size by way of the padded square, as SAM's release has it, or
            at once, as SAM 2's has it, for images and for videos; then an image fills the square.
        image_encoder: holds all weights that `embed` depends on, and no others.
    """

    image_size: int
    mask_size: int
    through_square: bool = True
    image_encoder: nn.Module

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to which an image is resized before it is embedded; if the network does not say
        otherwise, its longest side is `image_size`, and the other at least 1."""
        scale = self.image_size / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def embed(self, images: Tensor) -> Embedding:
        """Images `[B, C_in, H, W]` as this module says, to their embedding.

        Raises:
            SegfolioError: an image with a longer side than `image_size`.
        """
        raise NotImplementedError

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        """What is answered to each prompt.

        Args:
            multimask: M masks of an ambiguous prompt, or the one of a prompt that is not.
        """
        raise NotImplementedError

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        """Mask logits `[P, M, h, w]`; `[K, h, w]` of the K answers that `keep`, `[P, M]` bool, holds, in its order."""
        raise NotImplementedError

    def decode(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> PromptedMasks:
        reading = self.read(embedding, prompts, multimask)
        return PromptedMasks(self.draw(reading), reading.iou, reading.object_score)

    def forward(self, images: Tensor, prompts: PromptInput, multimask: bool = True) -> PromptedMasks:
        return self.decode(self.embed(images), prompts, multimask)


class SelectingNetwork(PromptableNetwork):
    """One that finds the masks of an image before it is asked, and answers by those that a prompt means (FastSAM).

    It is trained as a detector, never by prompts: which masks answer has no gradient. How many are drawn depends on the
    image.

    Attributes:
        score_threshold: above which a mask is found; it may be set.
        prompt_score_threshold: above which one that is found may answer a prompt; it may be set.
    """

    score_threshold: float
    prompt_score_threshold: float

    def losses(self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget]) -> dict[str, Tensor]:
        """As `layers.detection` says, of one class, in training; images may be of any size."""
        raise NotImplementedError

    def all_masks(self, embedding: Embedding) -> Reading:
        """The N masks of each of B images, best first, as the answers to one prompt of each; `iou` is 0 of those that
        there are not."""
        raise NotImplementedError

    def most_like(self, embedding: Embedding, image: Tensor, likeness: Tensor) -> Reading:
        """To each of P prompts the one mask that is most like it; none where no likeness is above 0.

        How text is asked: what compares words with images, as CLIP does, says it of the masks that `all_masks` draws,
        as a probability or another number that is above 0 where there is any likeness.

        Args:
            image: `[P]`, which image each is of.
            likeness: `[P, N]`, to the masks in the order of `all_masks`, in which places that are empty count.
        """
        raise NotImplementedError


def of_images(embedding: Embedding, images: Tensor | slice) -> Embedding:
    """The embedding of some of its images."""
    return tuple(each[images] for each in embedding)


def best(answers: PromptedMasks) -> tuple[Tensor, Tensor]:
    """Of each prompt the mask that the network thinks fits best, `[P, h, w]`, and its estimate `[P]`."""
    iou, place = answers.iou.max(1)
    return answers.masks[torch.arange(len(place), device=place.device), place], iou
