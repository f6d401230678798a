"""YOLACT: its anchors, its hardest negatives, and that it learns."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from segfolio.architectures.one_stage.yolact import YOLACT, hard_negative_entropy
from segfolio.layers.cells import Grid
from segfolio.layers.detection import DetectionTarget
from segfolio.layers.hollow import hollow
from tests.architectures.test_detection_contract import assert_found, learned, scene, step

SCRATCH: dict[str, Any] = {**YOLACT.tiny, "norm": "group"}


def test_the_layers_are_those_of_the_paper() -> None:
    """Of 80 classes: pyramid, head of three anchors, prototypes and the layer that learns beside; all with biases."""

    def conv(before: int, after: int, kernel: int = 3) -> int:
        return (before * kernel**2 + 1) * after

    pyramid = sum(conv(channels, 256, 1) for channels in (512, 1024, 2048)) + (3 + 2) * conv(256, 256)
    head = conv(256, 256) + sum(conv(256, 3 * each) for each in (81, 4, 32))
    prototypes, beside = 4 * conv(256, 256) + conv(256, 32, 1), conv(256, 80, 1)
    with hollow():
        network = YOLACT(80, "resnet50")
        body = sum(p.numel() for p in network.backbone.body.parameters())
    assert sum(p.numel() for p in network.parameters()) - body == pyramid + head + prototypes + beside


def test_anchors_are_of_three_strides_and_three_proportions() -> None:
    network = YOLACT(1, **YOLACT.tiny)
    grid = Grid.of([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)], (8, 128))
    anchors = network.anchors(grid)
    low, high = anchors.split(2, 1)
    torch.testing.assert_close((low + high) / 2, grid.centres.repeat_interleave(3, 0))
    width, height = (high - low).T
    torch.testing.assert_close((width * height).sqrt(), torch.tensor([24.0] * 18 + [384.0] * 3))
    torch.testing.assert_close(height / width, torch.tensor([1, 0.5, 2]).repeat(7))


def test_three_of_the_hardest_negatives_are_learned_for_each_positive_anchor() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 20, 4), torch.zeros(3, 20, dtype=torch.int64)
    labels[0, :2], labels[0, 2:6], labels[1, :8] = torch.tensor([3, 1]), -1, 2  # the third has no object
    found = hard_negative_entropy(logits, labels, 3)
    expected = torch.zeros(())
    for logit, label, count in zip(logits, labels, (6, 12, 3), strict=True):
        loss = cross_entropy(logit, label.clamp(min=0), reduction="none")
        expected = expected + loss[label > 0].sum() + loss[label == 0].sort(descending=True).values[:count].sum()
    torch.testing.assert_close(found, expected)


def test_it_overfits_one_image() -> None:
    torch.manual_seed(0)
    images, wanted = scene()
    network = YOLACT(2, **SCRATCH)
    learned(network, images, wanted, 100, 0.003)
    with torch.no_grad():
        (found,) = network.eval()(images, [(96, 128)])
    assert_found(found, wanted)


def test_objects_of_all_sizes_are_learned() -> None:
    """Of 2 x 2 pixels, and one larger than all anchors: the best anchor of each is positive."""
    network, size = YOLACT(1, **SCRATCH), (64, 640)
    boxes = torch.tensor([[1.0, 1, 3, 3], [0, 0, 640, 64]])
    for box in boxes:
        mask = torch.zeros(1, *size, dtype=torch.bool)
        x1, y1, x2, y2 = box.int().tolist()
        mask[0, y1:y2, x1:x2] = True
        losses = step(network, torch.randn(1, 3, *size), [DetectionTarget(box[None], torch.tensor([0]), mask)])
        assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_the_layer_beside_learns_all_classes_of_a_cell() -> None:
    """Where objects overlap, a cell is of both of their classes."""
    network = YOLACT(3, **SCRATCH)
    masks = torch.zeros(3, 16, 24, dtype=torch.bool)
    masks[0, :8, :8] = masks[1, :8, :13] = masks[2, 8:, 20:] = True
    target = DetectionTarget(torch.zeros(3, 4), torch.tensor([0, 2, 2]), masks)
    truth = network.classes_of_cells(torch.zeros(1, 3, 2, 3), masks, target)
    assert truth.tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("variant", "channels"), [("YOLACT, Darknet53", [256, 512, 1024]), ("YOLACT, R50", [512, 1024, 2048])]
)
def test_the_pyramid_is_of_strides_8_to_128(variant: str, channels: list[int]) -> None:
    with hollow():
        network = YOLACT(80, **YOLACT.variants[variant])
        levels = network.eval().backbone(torch.zeros(1, 3, 576, 576))
    assert network.backbone.body.feature_info.channels() == channels
    assert [tuple(level.shape[1:]) for level in levels.values()] == [(256, n, n) for n in (72, 36, 18, 9, 5)]
