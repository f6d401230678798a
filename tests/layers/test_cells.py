"""Cells and their objects, against plain loops."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou

from segfolio.layers.cells import Assigned, Grid, ciou, task_aligned, two_bins

STRIDES = (8, 16, 32)


def grid(height: int = 64, width: int = 96) -> Grid:
    return Grid.of([torch.zeros(1, 1, height // stride, width // stride) for stride in STRIDES], STRIDES)


def random_boxes(count: int, height: int = 64, width: int = 96) -> Tensor:
    corners = torch.rand(count, 2, 2) * torch.tensor([width, height])
    low, high = corners.amin(1), corners.amax(1)
    return torch.cat([low, high.maximum(low + 0.5)], 1)


def test_centres_and_strides() -> None:
    cells = grid(32, 64)
    assert cells.levels == ((4, 8, 8), (2, 4, 16), (1, 2, 32))
    assert cells.centres[:2].tolist() == [[4, 4], [12, 4]]
    assert cells.centres[-2:].tolist() == [[16, 16], [48, 16]]
    assert cells.strides[:, 0].tolist() == [8.0] * 32 + [16.0] * 8 + [32.0] * 2
    boxes = cells.boxes(torch.tensor([[1.0, 0.5, 2, 0]]).expand(42, -1))
    assert boxes[-1].tolist() == [48 - 32, 0, 48 + 64, 16]


def test_pairs_are_those_of_centres_inside_of_boxes() -> None:
    """On the edge is not inside; a box without any has the nearest cell of the finest stride."""
    torch.manual_seed(0)
    cells = grid()
    boxes = torch.cat([random_boxes(200), torch.tensor([[4.0, 4, 12, 12], [0, 0, 96, 64], [93, 61, 95, 63]])])
    owners, places = cells.inside(boxes)
    low, high = boxes[:, None].split(2, 2)
    expected = ((cells.centres > low) & (cells.centres < high)).all(2)
    missed = ~expected.any(1)
    assert missed.sum() > 3
    fine = cells.centres[: 8 * 12]
    middle = (boxes[missed, :2] + boxes[missed, 2:]) / 2
    expected[missed, torch.cdist(middle, fine).argmin(1)] = True
    found = torch.zeros_like(expected)
    found[owners, places] = True
    assert torch.equal(found, expected)
    assert len(owners) == expected.sum()


def plainly(
    cells: Grid, scores: Tensor, found: Tensor, image: Tensor, boxes: Tensor, labels: Tensor, top: int
) -> dict[tuple[int, int], tuple[int, float]]:
    """Of each cell its object and score, one object after the other."""
    wanted: dict[tuple[int, int], list[tuple[float, int, float]]] = {}
    for number, box in enumerate(boxes):
        _, places = cells.inside(box[None])
        overlap = box_iou(found[image[number], places], box[None])[:, 0]
        measure = scores[image[number], places, labels[number]] ** 0.5 * overlap**6
        for best in measure.argsort(descending=True)[:top].tolist():
            key = int(image[number]), int(places[best])
            wanted.setdefault(key, []).append((float(overlap[best]), number, float(measure[best])))
    kept = {key: max(each, key=lambda one: (one[0], -one[1])) for key, each in wanted.items()}
    result = {}
    for key, (_, number, measure) in kept.items():
        own = [each for each in kept.values() if each[1] == number]
        best = max(each[2] for each in own)
        result[key] = number, measure / best * max(each[0] for each in own) if best else 0.0
    return result


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_that_of_a_loop_over_objects(seed: int) -> None:
    torch.manual_seed(seed)
    cells, counts = grid(), torch.tensor([6, 0, 9])
    image = torch.arange(3).repeat_interleave(counts)
    boxes, labels = random_boxes(15), torch.randint(4, (15,))
    scores = torch.rand(3, len(cells.centres), 4)
    found = cells.boxes(torch.rand(3, len(cells.centres), 4) * 3)
    assigned = task_aligned(cells, scores, found, image, boxes, labels, top=5)
    expected = plainly(cells, scores, found, image, boxes, labels, 5)
    keys = list(zip(assigned.image.tolist(), assigned.cell.tolist(), strict=True))
    assert len(keys) == len(set(keys))
    assert sorted(keys) == sorted(expected)
    for key, of, score in zip(keys, assigned.of.tolist(), assigned.score.tolist(), strict=True):
        assert (of, score) == (expected[key][0], pytest.approx(expected[key][1], rel=1e-3, abs=1e-9))


def test_a_batch_is_assigned_in_as_many_operations_as_an_image() -> None:
    """None of them in a loop over images or objects."""

    class Count(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += 1
            return func(*args, **(kwargs or {}))

    cells, counted = grid(), []
    for images, objects in ((1, 4), (16, 300)):
        image, count = torch.arange(images).repeat_interleave(objects), images * objects
        found = cells.boxes(torch.rand(images, len(cells.centres), 4) * 3)
        scores, labels = torch.rand(images, len(cells.centres), 4), torch.randint(4, (count,))
        with Count() as counter:
            task_aligned(cells, scores, found, image, random_boxes(count), labels)
        counted.append(counter.operations)
    assert counted[0] == counted[1] > 0


def test_nothing_is_assigned_to_no_objects() -> None:
    cells = grid()
    none = torch.zeros(0, dtype=torch.int64)
    found = torch.zeros(2, len(cells.centres), 4)
    assigned: Assigned = task_aligned(cells, found[..., :1], found, none, torch.zeros(0, 4), none)
    assert all(len(part) == 0 for part in assigned)


def test_ciou_is_1_of_equal_boxes_and_below_0_of_distant_ones() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20], [50, 50, 60, 60]])
    torch.testing.assert_close(ciou(boxes, boxes), torch.ones(2))
    assert ciou(boxes[:1], boxes[1:]) < 0


def test_two_bins_share_a_distance_by_how_near_they_are() -> None:
    logits = torch.randn(3, 4, 16)
    distances = torch.tensor([[2.25] * 4, [0.0] * 4, [40.0] * 4])
    log = logits.log_softmax(-1)
    expected = [
        -(0.75 * log[0, :, 2] + 0.25 * log[0, :, 3]).mean(),
        -log[1, :, 0].mean(),
        -(0.01 * log[2, :, 14] + 0.99 * log[2, :, 15]).mean(),  # as far as can be said
    ]
    torch.testing.assert_close(two_bins(logits, distances), torch.stack(expected), rtol=1e-4, atol=1e-5)
