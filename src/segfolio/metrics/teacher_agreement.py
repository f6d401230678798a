"""How far a student says what its teacher says: of images, and of prompts."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segfolio.figure import of_house
from segfolio.layers.prompting import Embedding
from segfolio.metrics.records import RecordMetric


class TeacherAgreement(RecordMetric):
    """`teacher_mIoU` is the IoU of the student's and the teacher's mask of the same prompt, a mean over all prompts of
    all images; two empty masks agree. `unexplained_variance` is the squared error of the student's embeddings in parts
    of the variance of the teacher's, around the mean of each channel over all images: 0 of equal ones, 1 of a student
    that knows no more than these means.

    Args:
        embeddings: whether these are compared; not of networks of which only the masks are to agree.
    """

    def __init__(self, embeddings: bool = True) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.figures = of_house("teacher_mIoU", *(["unexplained_variance"] if embeddings else []))

    def update(self, image_id: str, masks: tuple[Tensor, Tensor], embeddings: tuple[Embedding, Embedding]) -> None:
        """Keep one image.

        Args:
            masks: the student's and the teacher's, `[P, H, W]` bool.
            embeddings: of the image, the student's and the teacher's, `[C, ...]` each; not read if they are not
                compared.
        """
        own, theirs = masks
        union = (own | theirs).sum((1, 2))
        iou = torch.where(union > 0, (own & theirs).sum((1, 2)) / union.clamp_min(1), 1.0)
        moments = [_moments(*pair) for pair in zip(*embeddings, strict=True)] if self.embeddings else []
        self.keep(image_id, (iou.double().cpu().numpy(), moments))

    def compute(self) -> dict[str, Tensor]:
        records = list(self.records().values())
        if not records:
            return {figure.name: torch.tensor(torch.nan) for figure in self.figures}
        found = {"teacher_mIoU": np.concatenate([iou for iou, _ in records]).mean()}
        if self.embeddings:
            parts = [[sum(each) for each in zip(*of, strict=True)] for of in zip(*(m for _, m in records), strict=True)]
            variance = sum((squares - total**2 / count).sum() for _, count, total, squares in parts)
            found["unexplained_variance"] = sum(error for error, *_ in parts) / variance
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


def _moments(own: Tensor, theirs: Tensor) -> tuple[Any, ...]:
    """The squared error of one `[C, ...]` with another; of this, values per channel, their sum and that of their
    squares."""
    own, theirs = (each.flatten(1).double().cpu() for each in (own, theirs))
    sums = [each.numpy() for each in (theirs.sum(1), theirs.square().sum(1))]
    return (own - theirs).square().sum().item(), theirs.shape[1], *sums
