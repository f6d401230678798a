"""Which of an image's masks a prompt means, where all of them are found before anything is asked: FastSAM's
prompt-guided selection (Zhao et al., 2023, arXiv 2306.12156, section 3.3), as functions of tensors.

P prompts choose among N masks each. Points choose the masks in which one on the object lies and none beside it, which
are merged; a box chooses the mask whose own box it overlaps most. What says it in another way, as an earlier mask or
words, chooses the one that is most like it, see `greatest`.
"""

import torch
from torch import Tensor

from segfolio.layers.prompting import NOT_OBJECT, OBJECT
from segfolio.losses.mask_matching import iou


def by_points(inside: Tensor, kinds: Tensor) -> Tensor:
    """The masks in which a point on the object lies, and none beside it, `[P, N]` bool; none without a point on it.

    Args:
        inside: `[P, K, N]` bool, whether each point lies in each mask.
        kinds: `[P, K]` of the points, see `PromptInput`.
    """
    return _with_point(inside, kinds, OBJECT) & ~_with_point(inside, kinds, NOT_OBJECT)


def by_box(boxes: Tensor, found: Tensor, inside: Tensor, kinds: Tensor, there: Tensor) -> Tensor:
    """Of each prompt the mask whose box has the greatest IoU with the prompt's, `[P, N]` bool; none where all are 0.

    The paper does not say what points beside a box mean: here they leave the masks that `by_points` chooses, or, where
    that is none, those without a point beside the object.

    Args:
        boxes: `[P, 4]`, left, top, right, bottom; NaN, which chooses nothing, for a prompt without.
        found: `[P, N, 4]`, those of the masks.
        inside, kinds: see `by_points`.
        there: `[P, N]` bool, the masks that there are.
    """
    pointed = by_points(inside, kinds) & there
    left = there & ~_with_point(inside, kinds, NOT_OBJECT)
    return greatest(iou(boxes[:, None], found), torch.where(pointed.any(1, keepdim=True), pointed, left))


def greatest(value: Tensor, among: Tensor) -> Tensor:
    """The mask of the greatest value above 0, of equal ones the first, `[P, N]` bool with one at most in each row.

    Args:
        value: `[P, N]`: an overlap, or how like each is to a text; NaN counts as 0.
        among: `[P, N]` bool.
    """
    value = value.nan_to_num(0.0).where(among, 0.0)
    most = (value == value.amax(1, keepdim=True)) & (value > 0)
    return most & (most.cumsum(1) == 1)


def candidates(chosen: Tensor, score: Tensor, count: int) -> Tensor:
    """Those of the masks chosen that score most, each by itself, `[P, count, N]` bool; rows are empty where there are
    fewer. The answers to an ambiguous prompt.

    Args:
        chosen: `[P, N]` bool.
        score: `[P, N]`, above 0.
    """
    best = score.where(chosen, 0.0).topk(min(count, score.shape[1]), 1)
    each = torch.zeros(len(score), count, score.shape[1], dtype=torch.bool, device=score.device)
    each[:, : best.indices.shape[1]].scatter_(2, best.indices[..., None], best.values[..., None] > 0)
    return each


def _with_point(inside: Tensor, kinds: Tensor, kind: int) -> Tensor:
    return (inside & (kinds == kind)[..., None]).any(1)
