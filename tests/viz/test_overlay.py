import numpy as np
import pytest
import torch

from segfolio.data.image_space import GREY as GREY_SPACE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch
from segfolio.viz.overlay import (
    IGNORED,
    VOID,
    WRONG,
    at_original_size,
    error_map,
    fit_map,
    hatching,
    overlay,
    paint,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LABELS = LabelSpace(("road", "tree", "sky"), void_ids=(255,), palette=(RED, GREEN, BLUE))
GREY = np.full((2, 4, 3), 100, np.uint8)
INDICES = np.array([[0, 0, 1, 255], [2, 2, 1, 255]], np.uint8)


def test_opaque_overlay_is_the_palette_and_ignored_pixels_are_hatched() -> None:
    drawn = overlay(GREY, INDICES, LABELS, alpha=1)
    assert drawn[:, :3].tolist() == [[list(c) for c in row] for row in ((RED, RED, GREEN), (BLUE, BLUE, GREEN))]
    assert np.array_equal(drawn[:, 3], hatching(2, 4)[:, 3])


def test_half_transparent_overlay_is_the_mean() -> None:
    drawn = overlay(GREY, np.zeros((2, 4), np.uint8), LABELS, alpha=0.5)
    assert np.unique(drawn.reshape(-1, 3), axis=0).tolist() == [[178, 50, 50]]  # (100 + 255) / 2, 100 / 2


def test_contours_are_opaque_and_one_pixel_wide_on_either_side() -> None:
    indices = np.zeros((3, 6), np.uint8)
    indices[:, 3:] = 1
    drawn = overlay(np.full((3, 6, 3), 100, np.uint8), indices, LABELS)
    assert [tuple(c) for c in drawn[1].tolist()] == [
        (178, 50, 50), (178, 50, 50), RED, GREEN, (50, 178, 50), (50, 178, 50)
    ]  # fmt: skip
    plain = overlay(np.full((3, 6, 3), 100, np.uint8), indices, LABELS, contours=False)
    assert tuple(plain[1, 2].tolist()) == (178, 50, 50)


def test_regions_leave_the_rest_of_the_image_and_have_borders_as_wide_as_asked() -> None:
    regions = np.zeros((9, 12), np.int64)
    regions[1:8, 1:10], regions[:, 11] = 2, IGNORED
    image = np.full((9, 12, 3), 100, np.uint8)
    for width in (0, 1, 2):
        drawn = paint(image, regions, np.array([RED, GREEN], np.uint8), contours=width)
        assert (drawn[regions == 0] == 100).all()
        assert np.array_equal(drawn[:, 11], hatching(9, 12)[:, 11])
        assert ((drawn == GREEN).all(-1)).sum() == 7 * 9 - (7 - 2 * width) * (9 - 2 * width)
        assert ((drawn == (50, 178, 50)).all(-1)).sum() == (7 - 2 * width) * (9 - 2 * width)


def test_grey_and_many_channels_are_shown_as_rgb() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5), np.uint8)
    assert np.array_equal(overlay(image[..., :1], INDICES, LABELS), overlay(image[..., [0, 0, 0]], INDICES, LABELS))
    assert np.array_equal(overlay(image, INDICES, LABELS), overlay(image[..., :3], INDICES, LABELS))


def test_drawing_leaves_its_arguments_alone() -> None:
    image, indices = GREY.copy(), INDICES.copy()
    overlay(image, indices, LABELS)
    error_map(image, indices == 1, indices == 255)
    assert np.array_equal(image, GREY)
    assert np.array_equal(indices, INDICES)


def test_error_map_marks_what_is_wrong_and_nothing_that_is_ignored() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[..., 0] = 90  # a grey of 30
    prediction = np.array([[0, 1, 1, 0], [2, 2, 0, 2]], np.uint8)
    drawn = error_map(image, prediction != INDICES, INDICES == 255)
    wrong = (drawn == WRONG).all(-1)
    assert wrong.tolist() == [[False, True, False, False], [False, False, True, False]]
    assert drawn[0, 0].tolist() == [131, 131, 131]  # 0.55 * 30 + 0.45 * 255
    assert np.array_equal(drawn[:, 3], hatching(2, 4)[:, 3])


def test_hatching_is_a_third_lines_and_two_thirds_void() -> None:
    assert (hatching(60, 60) == VOID).all(-1).mean() == pytest.approx(2 / 3)


def test_resized_map_keeps_the_place_of_each_class() -> None:
    indices = np.array([[0, 1, 2], [300, 1, 0]], np.int64)
    assert fit_map(indices, (6, 4)).tolist() == np.kron(indices, np.ones((2, 2), int)).tolist()


def test_padding_of_a_batch_is_not_shown() -> None:
    images = torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)
    images[:, :, :4, :6] = 200
    assert (at_original_size(Batch(images, ["a"], [(8, 12)], sizes=[(4, 6)]), 0) == 200).all()


def test_image_of_a_batch_at_its_original_size() -> None:
    images = torch.zeros(2, 1, 4, 6, dtype=torch.uint8)
    images[1, :, :, 3:] = 200
    pixels = at_original_size(Batch(images, ["a", "b"], [(4, 6), (8, 12)]), 1, GREY_SPACE)
    assert pixels.shape == (8, 12, 3)
    assert pixels[:, [0, -1]].tolist() == [[[0] * 3, [200] * 3]] * 8
