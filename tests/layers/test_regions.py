"""The stages of region-based networks equal torchvision's, in less memory."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import MultiScaleRoIAlign, box_iou

from segfolio.layers.regions import box_losses, mask_targets, match, roi_align_pool


def boxes(count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner, size = torch.randint(0, 60, (count, 2), generator=g), torch.randint(1, 30, (count, 2), generator=g)
    return torch.cat([corner, corner + size], 1).float()  # whole numbers: overlaps that are equal occur


@pytest.mark.parametrize("budget", [1, 100, 2**24])
def test_matching_is_torchvisions_in_any_budget(budget: int) -> None:
    for seed in range(5):
        truth, anchors = boxes(7, seed), boxes(300, seed + 100)
        expected = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(truth, anchors))
        place, label = match(truth, anchors, 0.3, 0.7, budget)
        assert torch.equal(label, torch.where(expected >= 0, 1.0, torch.where(expected == -1, 0.0, -1.0)))
        assert torch.equal(place[expected >= 0], expected[expected >= 0])


def test_an_object_beyond_all_anchors_takes_none() -> None:
    far = torch.tensor([[500.0, 500, 510, 510]])
    anchors = boxes(50, 0)
    assert (Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(far, anchors)) == 0).all()  # takes all
    assert (match(far, anchors, 0.3, 0.7)[1] == 0).all()


@pytest.mark.parametrize("budget", [1, 2 * 64 * 96, 2**24])
def test_mask_targets_are_torchvisions_in_any_budget(budget: int) -> None:
    g = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 64, 96, generator=g) > 0.5
    regions, place = boxes(20, 1), torch.randint(0, 4, (20,), generator=g)
    expected = project_masks_on_boxes(masks.byte(), regions, place, 28)
    assert torch.equal(mask_targets(masks, regions, place, 28, budget), expected)
    assert mask_targets(masks[:0], regions[:0], place[:0], 28, budget).shape == (0, 28, 28)


def test_losses_of_nothing_are_zero() -> None:
    logits, deltas = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 16, requires_grad=True)
    losses = box_losses(logits, deltas, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert [loss.item() for loss in losses.values()] == [0, 0]


def test_one_box_for_all_classes() -> None:
    """The loss of class-agnostic deltas is that of the same deltas for every class."""
    g = torch.Generator().manual_seed(0)
    logits, deltas, encoded = (torch.randn(6, n, generator=g) for n in (4, 4, 4))
    labels = torch.tensor([0, 1, 3, 0, 2, 2])
    one, each = (box_losses(logits, d, labels, encoded) for d in (deltas, deltas.repeat(1, 4)))
    assert one == each


def test_pooling_knows_its_strides_before_the_first_image() -> None:
    """torchvision's infers them from that, and keeps what a small one told it."""
    features = {str(i): torch.randn(1, 2, 256 // s, 320 // s) for i, s in enumerate((4, 8, 16, 32))}
    regions = [4 * boxes(30, 0)]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    ours = roi_align_pool((4, 8, 16, 32), 7)
    assert torch.equal(ours(features, regions, [(256, 320)]), theirs(features, regions, [(256, 320)]))
    assert ours.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
