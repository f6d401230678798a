"""Suppression in one go, against plain loops after the papers' formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from segfolio.layers import suppression
from segfolio.layers.suppression import fast_nms, matrix_nms


def boxes_and_scores(count: int, classes: int) -> tuple[Tensor, Tensor]:
    low = 40 * torch.rand(count, 2)
    return torch.cat([low, low + 10 + 20 * torch.rand(count, 2)], 1), torch.rand(count, classes)


def fast_plainly(boxes: Tensor, scores: Tensor, threshold: float, top: int, limit: float) -> list[tuple[int, int]]:
    """One class after the other, one box after the other."""
    found = []
    for label in range(scores.shape[1]):
        order = scores[:, label].argsort(descending=True)[:top].tolist()
        for rank, box in enumerate(order):
            overlaps = [float(box_iou(boxes[[box]], boxes[[better]])) for better in order[:rank]]
            if scores[box, label] > threshold and max(overlaps, default=0) <= limit:
                found.append((float(scores[box, label]), box, label))
    return [pair[1:] for pair in sorted(found, reverse=True)]


@pytest.mark.parametrize("numbers", [4_000_000, 1])
def test_fast_nms_is_that_of_the_paper(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one class is compared at a time."""
    monkeypatch.setattr(suppression, "_NUMBERS", numbers)
    torch.manual_seed(0)
    for count, top in ((0, 5), (1, 5), (40, 12), (40, 200)):
        boxes, scores = boxes_and_scores(count, 3)
        place, label, score = fast_nms(boxes, scores, 0.2, top, 0.3)
        assert list(zip(place.tolist(), label.tolist(), strict=True)) == fast_plainly(boxes, scores, 0.2, top, 0.3)
        assert torch.equal(score, scores[place, label])


def test_fast_nms_goes_on_suppressing_by_what_is_suppressed() -> None:
    """As the paper has it: of a chain of three, the usual suppression leaves the first and the last."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert batched_nms(boxes, scores, torch.zeros(3), 0.3).tolist() == [0, 2]
    assert fast_nms(boxes, scores[:, None], 0.05, 200, 0.3)[0].tolist() == [0]


def matrix_plainly(masks: Tensor, labels: Tensor, scores: Tensor, decay: str, sigma: float) -> list[float]:
    """Equations 4 and 5, one pair after the other."""

    def overlap(i: int, j: int) -> float:
        same = labels[i] == labels[j]
        return float((masks[i] & masks[j]).sum() / (masks[i] | masks[j]).sum()) if same else 0.0

    def f(iou: float) -> float:
        return math.exp(-sigma * iou**2) if decay == "gaussian" else 1 - iou

    found = []
    for j, score in enumerate(scores.tolist()):
        factor = 1.0
        for i in range(j):
            most = max((overlap(k, i) for k in range(i)), default=0.0)
            factor = min(factor, f(overlap(i, j)) / f(most))
        found.append(score * factor)
    return found


@pytest.mark.parametrize("numbers", [4_000_000, 100])
@pytest.mark.parametrize("decay", ["gaussian", "linear"])
def test_matrix_nms_is_that_of_the_paper(decay: Any, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a few pixels are compared at a time."""
    monkeypatch.setattr(suppression, "_NUMBERS", numbers)
    torch.manual_seed(0)
    for count in (1, 2, 30):
        masks = torch.rand(count, 60) > 0.3
        labels, scores = torch.randint(3, (count,)), torch.rand(count).sort(descending=True).values
        found = matrix_nms(masks, labels, scores, decay, 1.5)
        assert found.tolist() == pytest.approx(matrix_plainly(masks, labels, scores, decay, 1.5), rel=1e-5)
        assert (found <= scores).all()


@pytest.mark.parametrize(("decay", "factor"), [("gaussian", math.exp(-2.0)), ("linear", 0.0)])
def test_a_mask_that_was_found_before_counts_for_little(decay: Any, factor: float) -> None:
    masks = torch.zeros(4, 8, dtype=torch.bool)
    masks[:3, :4] = masks[3, 4:] = True
    found = matrix_nms(masks, torch.tensor([0, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6]), decay)
    assert found.tolist() == pytest.approx([0.9, 0.8 * factor, 0.7, 0.6])
