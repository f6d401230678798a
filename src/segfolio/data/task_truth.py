"""`task_truth`: what a network that classifies masks is to find in an image, by task."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Target
from segfolio.data.segments import Segments

Task = Literal["semantic", "instance", "panoptic"]


def task_truth(target: Target, labels: LabelSpace, task: Task) -> Target:
    """The target with the segments to be found, as masks, and a `weight` of 0 at pixels that do not count.

    `semantic`: one segment per class that the image has (MaskFormer, arXiv 2107.06278, section 3.1); void does
    not count. `instance`: the things; crowds do not count. `panoptic`: things and stuff; void and crowds do not
    count.

    Raises:
        ValueError: the annotation has not what the task needs.
    """
    if task == "semantic":
        if target.semantic is None:
            raise ValueError("the semantic task needs a semantic map; this dataset has none")
        semantic = target.semantic.as_subclass(Tensor)
        classes = [c for c in semantic.unique().tolist() if c != target.ignore_index]
        masks = torch.stack([semantic == c for c in classes]) if classes else torch.zeros(0, *semantic.shape).bool()
        found = Segments(Mask(masks), torch.tensor(classes, dtype=torch.int64), torch.zeros(len(classes)).bool())
        counts = semantic != target.ignore_index
    else:
        if target.segments is None:
            raise ValueError(f"the {task} task needs segments; this dataset has none")
        whole = panoptic_truth(target, labels) if task == "panoptic" else target.segments
        masks = whole.masks.as_subclass(Tensor)
        counts = ~masks[whole.crowd].any(0)
        if task == "panoptic":
            counts &= masks.any(0)
        wanted = ~whole.crowd
        if task == "instance":
            wanted &= torch.tensor(labels.is_thing)[whole.labels]
        found = Segments(Mask(masks[wanted]), whole.labels[wanted], whole.crowd[wanted])
    weight = counts.float() if target.weight is None else counts * target.weight
    return replace(target, semantic=None, segments=found, weight=Mask(weight))
