"""Every network computes where its input and its weights are: nothing of it is left in host memory, nor made there."""

from typing import Any

import pytest
import torch
from torch import Tensor

from segfolio.layers.detection import DetectionTarget
from segfolio.layers.prompting import PromptInput
from segfolio.listing import architecture_classes
from tests.devices import DEVICE, PretendedDevice

CLASSES = list(architecture_classes())
SIZE = (64, 96)


def inputs(cls: Any, training: bool) -> tuple[Any, ...]:
    """Of a network of its room: images, and prompts, or of detection their sizes and, in training, objects."""
    images, room = torch.randn(2, 3, *SIZE).to(DEVICE), cls.__module__.split(".")[-2]
    if room == "promptable":
        kinds, boxes = torch.tensor([[1, -10]] * 2), torch.tensor([[5.0, 8, 40, 60], [torch.nan] * 4])
        prompts = PromptInput(torch.arange(2), torch.full((2, 2, 2), 20.0), kinds, boxes)
        return images, PromptInput(*(x if x is None else x.to(DEVICE) for x in prompts))
    if room not in ("region_based", "one_stage"):
        return (images,)
    masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    masks[:, 8:60, 5:40] = True
    one = DetectionTarget(torch.tensor([[5.0, 8, 40, 60]]).to(DEVICE), torch.tensor([0]).to(DEVICE), masks.to(DEVICE))
    return images, [SIZE] * 2, [one] * 2 if training else None


def tensors(node: Any) -> list[Tensor]:
    if isinstance(node, Tensor):
        return [node]
    within = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    return [tensor for each in within for tensor in tensors(each)]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_network_computes_on_its_device(cls: Any, training: bool) -> None:
    torch.manual_seed(0)
    network = cls(5, **cls.tiny).train(training)
    with PretendedDevice(), torch.set_grad_enabled(training):
        found = tensors(network.to(DEVICE)(*inputs(cls, training)))
        assert found
        assert {tensor.device for tensor in found} == {DEVICE}
