"""The simulated user against scipy's distances."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from segfolio.inference.clicks import Click, first_click, middle, next_click


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.random(rng.integers(1, 90, 2)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.3, 5))
    return smooth > np.quantile(smooth, rng.random())


@pytest.mark.parametrize("seed", range(200))
def test_the_middle_is_the_first_pixel_that_is_furthest_from_the_outside(seed: int) -> None:
    """Many are equally far, and roots of whole numbers are not exact; the border of the image is outside."""
    region = blobs(seed)
    distances = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    found = middle(region)
    assert found.distance == distances.max()
    if region.any():
        assert (found.row, found.column) == divmod(int(distances.argmax()), region.shape[1])


def test_the_first_click_is_in_the_middle_of_the_object() -> None:
    truth = np.zeros((9, 12), np.bool_)
    truth[0:5, 3:8] = True  # at the border, which counts as its end
    assert first_click(truth) == Click(5.5, 2.5, 1)
    assert first_click(np.zeros((9, 12), np.bool_)) is None


def test_the_next_click_is_in_the_deepest_error() -> None:
    truth, shown = np.zeros((2, 20, 40), np.bool_)
    truth[:, :12] = True
    shown[5:, :12] = shown[8:17, 30:39] = True  # 5 rows are missing, 9 x 9 pixels are too much
    assert next_click(truth, shown) == Click(34.5, 12.5, 0)
    shown[8:17, 33:39] = False  # 9 x 3 are left of it
    assert next_click(truth, shown) == Click(2.5, 2.5, 1)


def test_of_errors_of_equal_depth_what_is_too_much_is_clicked_and_what_is_right_is_left() -> None:
    truth, shown = np.zeros((2, 9, 20), np.bool_)
    truth[2:7, 2:7] = shown[2:7, 12:17] = True
    assert next_click(truth, shown) == Click(14.5, 4.5, 0)
    truth[1:8, 1:8] = True
    assert next_click(truth, shown) == Click(4.5, 4.5, 1)
    assert next_click(truth, truth) is None
