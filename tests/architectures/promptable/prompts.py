"""Random prompts, and random masks among which they choose."""

from typing import Any

import torch
from torch import Tensor

from segfolio.layers.prompting import PromptInput


def points(image: Tensor, count: int, size: tuple[int, int]) -> PromptInput:
    """`count` points on and beside an object for each prompt, in images of height and width `size`."""
    places = torch.rand(len(image), count, 2) * torch.tensor(size[::-1])
    return PromptInput(image, places, torch.randint(2, (len(image), count)))


def boxes(image: Tensor, size: tuple[int, int]) -> Tensor:
    corners = torch.rand(len(image), 2, 2).sort(1).values * torch.tensor(size[::-1])
    return corners.flatten(1)


def of_kind(kind: str, size: tuple[int, int], mask_size: int, images: int = 2, each: int = 1) -> PromptInput:
    """`each` prompts of each image that consist of what `kind` says, e.g. "box + point"."""
    image = torch.arange(images).repeat_interleave(each)
    prompts = points(image, 3 if "points" in kind else int("point" in kind), size)
    if "box" in kind:
        prompts = prompts._replace(boxes=boxes(image, size))
    if "mask" in kind:
        prompts = prompts._replace(masks=3 * torch.randn(len(image), mask_size, mask_size))
    return prompts


def of_prompts(prompts: PromptInput, which: Tensor | slice) -> PromptInput:
    return PromptInput(*(x if x is None else x[which] for x in prompts))


@torch.no_grad()
def find_several(detector: Any) -> None:
    """What the cells of a detector say, in evaluation, becomes as different as they are."""
    for heads, std in ((detector.factors, 0.02), (detector.classes, 0.2), (detector.boxes, 1.0)):
        for head in heads:
            torch.nn.init.normal_(head[-1].weight, std=std)
    norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    detector.train().said(torch.randn(4, 3, 128, 128))
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
    detector.eval()
