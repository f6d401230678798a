"""Objects out of a map of classes and a map of numbers."""

import numpy as np

from segfolio.data.formats.numbered import numbered_segments
from segfolio.data.labels import LabelSpace

LABELS = LabelSpace(names=("sky", "car", "road", "dog"), things=("car", "dog"))


def segments(classes, numbers):
    found = numbered_segments(np.array(classes, np.uint8), np.array(numbers), LABELS)
    masks = found.masks.numpy()
    assert not found.crowd.any()
    return {
        (kind, tuple(np.flatnonzero(mask).tolist())) for kind, mask in zip(found.labels.tolist(), masks, strict=True)
    }


def test_things_are_split_by_number_and_stuff_is_one_segment():
    classes = [[0, 1, 1, 1], [2, 2, 1, 0]]
    numbers = [[9, 1, 1, 2], [0, 3, 2, 0]]
    assert segments(classes, numbers) == {(0, (0, 7)), (1, (1, 2)), (1, (3, 6)), (2, (4, 5))}


def test_one_number_in_two_classes_is_two_objects():
    assert segments([[1, 3, 3, 1]], [[4, 4, 4, 4]]) == {(1, (0, 3)), (3, (1, 2))}


def test_things_without_number_and_void_belong_to_nothing():
    found = numbered_segments(np.array([[1, 255, 0]], np.uint8), np.array([[0, 5, 0]]), LABELS)
    assert found.id_map.tolist() == [[0, 0, 1]]
    assert found.labels.tolist() == [0]
    nothing = numbered_segments(np.full((2, 2), 255, np.uint8), np.ones((2, 2), int), LABELS)
    assert len(nothing) == 0
    assert nothing.id_map.tolist() == [[0, 0], [0, 0]]


def test_large_numbers_and_many_classes_do_not_mix():
    labels = LabelSpace(names=tuple(map(str, range(847))), things=("846", "1"), ignore_index=847)
    classes, numbers = np.array([[846, 846, 1, 1]], np.uint16), np.array([[2**24, 1, 2**24, 1]])
    found = numbered_segments(classes, numbers, labels)
    assert sorted(found.labels[found.id_map[0].long() - 1].tolist()) == [1, 1, 846, 846]
    assert len(found) == 4
