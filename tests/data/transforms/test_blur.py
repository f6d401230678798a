"""`GaussianBlur`."""

import cv2
import numpy as np
import pytest
import torch

from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms import GaussianBlur
from segfolio.errors import SegfolioError


def sample(channels: int = 3) -> Sample:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, channels), np.uint8)
    return Sample(to_image(pixels), "a", (9, 12))


def test_its_weights_are_binomial_where_no_sigma_is_given() -> None:
    for channels in (1, 3):
        before = sample(channels)
        found = to_pixels(GaussianBlur(probability=1)(before, np.random.default_rng(0)).image)
        weights = np.array([1, 4, 6, 4, 1]) / 16
        expected = cv2.sepFilter2D(to_pixels(before.image).astype(np.float64), -1, weights, weights)
        np.testing.assert_allclose(found, expected.reshape(found.shape), atol=0.5)
        assert before.image.equal(sample(channels).image)


def test_sigma_is_drawn_from_a_range() -> None:
    before, rng = sample(), np.random.default_rng(0)

    def contrast(sigma: float | tuple[float, float]) -> float:
        return to_pixels(GaussianBlur(7, sigma, 1)(before, rng).image).std()

    found = [contrast((0.0, 1.0)) for _ in range(200)]
    assert max(found) == pytest.approx(to_pixels(before.image).std(), rel=0.01)
    assert min(found) == pytest.approx(contrast(1.0), rel=0.02)
    assert 70 < sum(each > contrast(0.5) for each in found) < 130


def test_half_of_the_images_stay_as_they_are() -> None:
    before, blur = sample(), GaussianBlur()
    same = sum(torch.equal(blur(before, np.random.default_rng(i)).image, before.image) for i in range(200))
    assert 70 < same < 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kernel_size": 4}, "kernel_size is 4; give an odd number"),
        ({"sigma": 0.0}, r"sigma is 0\.0"),
        ({"sigma": (1.0, 0.5)}, r"sigma is \(1\.0, 0\.5\); give one above 0, the lower"),
        ({"probability": 2.0}, r"probability is 2\.0"),
    ],
)
def test_mistakes_are_told(arguments, said) -> None:
    with pytest.raises(SegfolioError, match=said):
        GaussianBlur(**arguments)
