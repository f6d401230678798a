"""The stages of region-based networks equal torchvision's, in less memory."""

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import MultiScaleRoIAlign, box_iou

from segfolio.layers.proposals import ProposalNetwork, ProposalRecipe, match
from segfolio.layers.region_pool import RegionPool, mask_targets
from segfolio.layers.regions import RegionHeads, RegionRecipe
from segfolio.losses.regions import box_losses


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
    assert torch.equal(mask_targets(masks, regions, place, 28, budget=budget), expected)
    assert mask_targets(masks[:0], regions[:0], place[:0], 28, budget=budget).shape == (0, 28, 28)


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


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 0.5 + 2.0), (1.0, 0.125 + 1.5)])
def test_the_turn_of_the_box_losses(beta: float, expected: float) -> None:
    """Deltas off by 0.5 and by 2: L1, and smooth L1 as in the paper."""
    deltas, labels = torch.tensor([[0.5, -2.0, 0, 0]]), torch.tensor([1])
    losses = box_losses(torch.zeros(1, 2), deltas, labels, torch.zeros(1, 4), beta)
    assert losses["box"].item() == pytest.approx(expected)
    network = ProposalNetwork(4, ProposalRecipe(samples=1, positive_fraction=1.0, beta=beta))
    _, box = network.compute_loss(torch.zeros(1, 1), deltas, [torch.ones(1)], [torch.zeros(1, 4)])
    assert box.item() == pytest.approx(expected)


def test_a_proposal_loss_of_nothing_is_zero() -> None:
    network = ProposalNetwork(4, ProposalRecipe())
    losses = network.compute_loss(torch.zeros(3, 1), torch.zeros(3, 4), [-torch.ones(3)], [torch.zeros(3, 4)])
    assert [loss.item() for loss in losses] == [0, 0]


def test_pooling_knows_its_strides_before_the_first_image() -> None:
    """torchvision's infers them from that, and keeps what a small one told it."""
    features = {str(i): torch.randn(2, 2, 256 // s, 320 // s) for i, s in enumerate((4, 8, 16, 32))}
    regions = [4 * boxes(30, 0), 4 * boxes(20, 1)]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    ours = RegionPool((4, 8, 16, 32), 7)
    assert torch.equal(ours(features, regions, [(256, 320)] * 2), theirs(features, regions, [(256, 320)] * 2))
    tiny = {name: level[..., :2, :2] for name, level in features.items()}
    assert RegionPool((4, 8, 16, 32), 7)(tiny, regions, [(2, 2)] * 2).shape == (50, 2, 7, 7)


@pytest.mark.parametrize(("aligned", "shift"), [(True, 0.0), (False, 0.5)])
def test_aligned_pooling_reads_a_pixel_at_its_centre(aligned: bool, shift: float) -> None:
    """Of a map that holds the x of its pixels' centres, in pixels of the map."""
    ramp = {"0": (torch.arange(40.0) + 0.5).expand(1, 1, 40, 40)}
    box = torch.tensor([[8.0, 8, 64, 64]])  # 2 to 16 on the map
    pooled = RegionPool((4,), 7, sampling_ratio=0, aligned=aligned)(ramp, [box], [(160, 160)])
    torch.testing.assert_close(pooled[0, 0, 0], 3.0 + 2 * torch.arange(7.0) + shift)


def test_aligned_mask_targets_are_the_masks_own_pixels() -> None:
    mask = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5
    whole = torch.tensor([[0.0, 0, 28, 28]])
    assert torch.equal(mask_targets(mask, whole, torch.tensor([0]), 28, aligned=True), mask.float())


def test_masks_of_many_detections_are_made_a_part_at_a_time() -> None:
    """And are the same as at one time."""
    torch.manual_seed(0)
    seen: list[int] = []
    head = nn.Conv2d(3, 4, 1)
    head.register_forward_hook(lambda module, given, made: seen.append(len(made)))
    masks = RegionPool((4,), 14), head, nn.Conv2d(4, 6, 1)
    heads = RegionHeads(RegionRecipe(), RegionPool((4,), 7), nn.Flatten(), nn.Identity(), *masks)
    features = {"0": torch.randn(3, 3, 40, 40)}
    found = [boxes(count, count) for count in (130, 0, 90)]
    labels = [torch.randint(1, 6, (len(box),)) for box in found]
    scores = [label / 6 for label in labels]
    with torch.no_grad():
        detections = heads.with_masks(features, [(160, 160)] * 3, found, scores, labels)
        at_once = masks[2](head(masks[0](features, found, []))).sigmoid()
    expected = at_once[torch.arange(220), torch.cat(labels)].split([130, 0, 90])
    for one, wanted in zip(detections, expected, strict=True):
        torch.testing.assert_close(one.masks, wanted)
    assert seen == [100, 100, 20, 220]
