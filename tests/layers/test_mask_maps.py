"""Masks as sums of shared maps, and what they lose."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from segfolio.errors import SegfolioError
from segfolio.layers import mask_maps
from segfolio.layers.detection import DetectionTarget, Objects
from segfolio.layers.mask_maps import bce_in_boxes, covered, mask_losses


def test_a_cell_is_covered_by_as_many_pixels_as_a_mask_has_in_it() -> None:
    masks = torch.zeros(1, 6, 9, dtype=torch.bool)
    masks[0, :5, 2:9] = True
    assert covered(masks, 2, 3)[0].tolist() == [[8, 16, 4], [2, 4, 1]]
    assert covered(masks, 1, 1, stride=8)[0].tolist() == [[30]]


def objects(*counts: int) -> Objects:
    targets = []
    for count in counts:
        masks = torch.zeros(count, 16, 24, dtype=torch.bool)
        for place, mask in enumerate(masks):
            mask[place : place + 6, 4 : 13 + place] = True
        boxes = torch.tensor([[4.0, place, 13 + place, place + 6] for place in range(count)]).reshape(-1, 4)
        targets.append(DetectionTarget(boxes, torch.zeros(count, dtype=torch.int64), masks))
    return Objects.of(targets, 1)


@pytest.mark.parametrize("numbers", [4_000_000, 50])
def test_the_loss_of_masks_is_the_sum_over_each_box_and_has_its_gradient(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where two masks are held at a time."""
    monkeypatch.setattr(mask_maps, "_NUMBERS", numbers)
    torch.manual_seed(0)
    truth = objects(2, 0, 3)
    image, of = torch.tensor([0, 2, 0, 2, 2, 2]), torch.tensor([1, 2, 0, 4, 2, 3])
    factors, maps = torch.randn(6, 5, requires_grad=True), torch.randn(3, 5, 4, 6, requires_grad=True)
    found = mask_losses(bce_in_boxes, image, of, factors, maps, truth)
    expected = torch.zeros(())
    for place, owner, factor in zip(image.tolist(), of.tolist(), factors, strict=True):
        share = covered(truth.masks[place], 4, 6)[owner - int(truth.firsts[place])] / 16
        x1, y1, x2, y2 = (int(side) for side in truth.boxes[owner])
        window = slice(y1 // 4, -(-y2 // 4)), slice(x1 // 4, -(-x2 // 4))
        logits = torch.einsum("k,khw->hw", factor, maps[place])
        expected = expected + binary_cross_entropy_with_logits(logits[window], share[window])
    torch.testing.assert_close(found, expected)
    gradients: list[tuple[Tensor, ...]] = [torch.autograd.grad(each, (factors, maps)) for each in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_objects_of_all_images_are_told_apart() -> None:
    found = objects(2, 0, 3)
    assert found.image.tolist() == [0, 0, 2, 2, 2]
    assert found.firsts.tolist() == [0, 2, 2]


@pytest.mark.parametrize("label", [-1, 2])
def test_a_class_out_of_range_is_named(label: int) -> None:
    target = DetectionTarget(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([label]), torch.ones(1, 4, 4).bool())
    with pytest.raises(SegfolioError, match=f"of class {label}, but the network has the classes 0 to 1; give it as"):
        Objects.of([target], 2)


def test_boxes_alone_are_refused_and_images_without_objects_are_not() -> None:
    none = DetectionTarget(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert len(Objects.of([none], 1).masks[0]) == 0
    with pytest.raises(SegfolioError, match="boxes alone; take FasterRCNN"):
        Objects.of([none, DetectionTarget(torch.tensor([[5.0, 8, 40, 60]]), torch.tensor([0]))], 1)
