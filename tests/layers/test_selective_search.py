"""Selective search finds what stands out, at every size."""

import numpy as np
from scipy.ndimage import label

from segfolio.layers.selective_search import group, segments, selective_search


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and the boxes of its three objects, one inside another."""
    random = np.random.default_rng(0)
    image = np.full((120, 160, 3), 90, np.uint8)
    objects = np.array([[10, 20, 60, 80], [25, 35, 45, 60], [90, 30, 150, 110]])
    for (x1, y1, x2, y2), color in zip(objects, ([220, 30, 30], [30, 200, 40], [40, 60, 230]), strict=True):
        image[y1:y2, x1:x2] = color
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8), objects


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each of a with each of b."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return inside / (areas[0][:, None] + areas[1][None] - inside)


def test_objects_are_among_the_boxes_at_any_resolution() -> None:
    image, objects = scene()
    for times in (1, 3):
        boxes = selective_search(image.repeat(times, 0).repeat(times, 1))
        assert overlap(objects * times, boxes).max(1).min() > 0.9
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= 160 * times
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_the_same_image_gives_the_same_boxes_and_no_more_than_asked() -> None:
    image, _ = scene()
    boxes = selective_search(image)
    assert np.array_equal(selective_search(image), boxes)
    assert np.array_equal(selective_search(image, limit=5), boxes[:5])


def test_segments_are_connected_and_separate_the_objects() -> None:
    image, _ = scene()
    ids = segments(image, 100.0)
    assert all(label(ids == number)[1] == 1 for number in range(ids.max() + 1))
    assert len({ids[50, 15], ids[50, 30], ids[60, 120], ids[5, 5]}) == 4
    assert np.bincount(ids.ravel()).min() >= 20


def test_grouping_ends_with_the_whole_image() -> None:
    image, _ = scene()
    ids = segments(image, 100.0)
    boxes = group(image, ids, with_color=True)
    assert len(boxes) == 2 * (ids.max() + 1) - 1  # every join makes one
    assert boxes[-1] == (0, 0, 160, 120)


def test_a_plain_image_is_one_box() -> None:
    assert selective_search(np.zeros((40, 50, 3), np.uint8)).tolist() == [[0, 0, 50, 40]]
