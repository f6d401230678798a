"""Pasting: torchvision's and pycocotools' masks, at the original size, without an image-sized mask."""

import numpy as np
import pytest
import torch
from pycocotools import mask as pycocotools
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import resize_boxes

from benchmarks.confusion_matrix import peak_bytes
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.inference.paste_masks import box_masks, image_masks, instances, paste_masks
from segfolio.layers.detection import Detections


def reference(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[RLE]:
    pasted = (paste_masks_in_image(masks[:, None], boxes, size)[:, 0] > 0.5).numpy()
    return [pycocotools.encode(np.asfortranarray(mask, np.uint8)) for mask in pasted]


def case(seed: int, inside: bool) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Boxes from a fraction of a pixel to several times the image's size."""
    g = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 80, (2,), generator=g).tolist()
    centres = torch.rand(24, 2, generator=g) * torch.tensor([width, height])
    halves = 60 * torch.rand(24, 2, generator=g) ** 3
    boxes = torch.cat([centres - halves, centres + halves], 1)
    if inside:
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    masks = torch.rand(24, 14, 14, generator=g)
    masks[::4] = 0.9  # whole boxes: runs that go on from column to column
    masks[1::4] = 0.4  # nothing
    return masks, boxes, (height, width)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "over the border"])
@pytest.mark.parametrize("seed", range(8))
def test_masks_are_those_of_torchvision_and_pycocotools(seed, inside):
    masks, boxes, size = case(seed, inside)
    found = paste_masks(masks, boxes, size)
    assert found == reference(masks, boxes, size)
    assert rle.areas(found)[1::4].tolist() == [0] * 6


def test_a_box_that_fills_the_image_is_one_run_and_one_outside_is_empty():
    boxes = torch.tensor([[-9.0, -9, 59, 49], [70, 60, 90, 80]])
    full, outside = paste_masks(torch.ones(2, 28, 28), boxes, (40, 50))
    assert rle.to_counts(full).tolist() == [0, 2000]
    assert rle.to_counts(outside).tolist() == [2000]


@pytest.mark.parametrize("size", [(96, 76), (131, 80), (20, 240), (11, 19)])
def test_masks_over_the_image_are_those_resized_as_a_whole(size):
    """Also under another threshold, and of an image that was padded."""
    g = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 24, 19, generator=g)
    masks[0], masks[1], masks[2, 5:, :3] = 0.9, 0.1, 0
    masks[3] = 0.1
    masks[3, 23, 18] = 0.9
    whole = interpolate(masks[None], size, mode="bilinear")[0] > 0.5
    valid = (96, 76)
    found = image_masks(masks, 4, valid, size)
    assert found == rle.encode(whole.numpy())
    assert image_masks(masks - 0.5, 4, valid, size, threshold=0.0) == found
    padded = torch.cat([masks, masks[:, -1:], torch.ones(12, 3, 19)], 1)
    padded = torch.cat([padded, padded[:, :, -1:], torch.ones(12, 28, 2)], 2)
    assert image_masks(padded, 4, valid, size) == found


def test_a_network_of_masks_alone_has_no_boxes():
    masks = torch.zeros(1, 5, 6)
    masks[0, 1:3, 2:4] = 1
    found = instances(
        Detections(None, torch.tensor([1]), torch.ones(1), masks, 8), torch.tensor([7, 4]), (40, 44), (40, 44)
    )
    assert found.boxes is None
    assert found.labels.tolist() == [4]
    np.testing.assert_array_equal(rle.boxes(found.rles), [[16, 8, 16, 16]])


def test_nothing_found_is_nothing_pasted():
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (40, 50)) == []
    assert image_masks(torch.zeros(0, 10, 13), 4, (40, 50), (40, 50)) == []
    none = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0, 28, 28))
    for found in (none, none._replace(masks=None), none._replace(stride=4)):
        empty = instances(found, torch.tensor([3]), (20, 25), (40, 50))
        assert (empty.rles, empty.labels.tolist(), empty.boxes.shape) == ([], [], (0, 4))


@pytest.mark.parametrize("size", [(96, 76), (131, 80), (11, 19)])
def test_masks_over_the_image_end_at_their_boxes_if_these_are_given(size):
    """At pixels whose centres lie in them."""
    g = torch.Generator().manual_seed(0)
    masks = torch.rand(12, 24, 19, generator=g)
    corners = torch.rand(12, 2, 2, generator=g) * torch.tensor([size[1], size[0]])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes[0] = torch.tensor([-5.0, -5, 1e3, 1e3])
    boxes[1] = torch.tensor([3.2, 4.2, 3.3, 4.4])  # no pixel
    whole = rle.decode(image_masks(masks, 4, (96, 76), size), size)
    y, x = (np.arange(side) + 0.5 for side in size)
    left, top, right, bottom = (side.numpy()[:, None] for side in boxes.unbind(1))
    inside = ((y > top) & (y < bottom))[:, :, None] & ((x > left) & (x < right))[:, None]
    found = image_masks(masks, 4, (96, 76), size, boxes=boxes)
    assert np.array_equal(rle.decode(found, size), whole & inside)
    detections = Detections(boxes, torch.zeros(12, dtype=torch.int64), torch.ones(12), masks, 4, cropped=True)
    assert instances(detections, torch.tensor([0]), size, size).rles == image_masks(masks, 4, size, size, boxes=boxes)


def test_boxes_are_scaled_to_the_original_size_and_labels_are_the_dataset_s():
    masks, boxes, valid = case(3, inside=True)
    size = (97, 61)
    labels, scores = torch.arange(24) % 2, torch.linspace(1, 0, 24)
    found = instances(Detections(boxes, labels, scores, masks), torch.tensor([7, 4]), valid, size)
    scaled = resize_boxes(boxes, list(valid), list(size))
    assert found.rles == reference(masks, scaled, size)
    assert found.labels.tolist() == [7, 4] * 12
    assert torch.equal(found.scores, scores)
    torch.testing.assert_close(found.boxes, torch.cat([scaled[:, :2], scaled[:, 2:] - scaled[:, :2]], 1))


def test_the_mask_of_a_network_without_masks_is_its_box():
    boxes = torch.tensor([[2.0, 3, 7, 9], [-4, -4, 3, 2], [0, 0, 12, 10], [5, 5, 5, 8]])
    masks = rle.decode(box_masks(boxes, (10, 12)), (10, 12))
    expected = np.zeros((4, 10, 12), bool)
    expected[0, 3:9, 2:7] = expected[1, :2, :3] = expected[2] = True
    np.testing.assert_array_equal(masks, expected)
    found = instances(Detections(boxes, torch.zeros(4).long(), torch.ones(4)), torch.tensor([0]), (10, 12), (20, 24))
    assert rle.areas(found.rles).tolist() == [4 * 30, 4 * 6, 4 * 120, 0]


def test_500_objects_at_2048_pixels_hold_less_than_a_mask_of_the_image_each():
    g = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=g) * 1800
    boxes, masks = torch.cat([corners, corners + 240], 1), torch.rand(500, 28, 28, generator=g)
    assert peak_bytes(lambda: paste_masks(masks, boxes, (2048, 2048))) < 8e6  # float masks would be 8.4 GB


def test_100_masks_over_an_image_of_2048_pixels_hold_little_more_than_one_of_the_image():
    masks = torch.zeros(100, 512, 512)
    masks[:, 100:160, 200:260] = 1
    masks[0] = 1
    assert peak_bytes(lambda: image_masks(masks, 4, (2048, 2048), (2048, 2048))) < 1e8  # float masks would be 1.7 GB
