"""Colour: torchvision's figures within one level of 255."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms import ColorJitter
from segfolio.data.transforms.color import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.4])
@pytest.mark.parametrize(
    ("ours", "torchvisions"),
    [
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
        (adjust_saturation, TF.adjust_saturation),
        (lambda x, f: adjust_hue(x, f - 1), lambda x, f: TF.adjust_hue(x, f - 1)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_colours_are_torchvisions_within_one_level(ours, torchvisions, factor: float) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    expected = torchvisions(to_image(pixels).as_subclass(torch.Tensor), factor)
    difference = np.abs(ours(pixels, factor).astype(int) - to_pixels(expected))
    assert difference.max() <= 1  # torchvision truncates, its luminance too
    assert difference.mean() < 0.9


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_grey_images_have_brightness_and_contrast_alone(factor: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 1), np.uint8)
    image = to_image(pixels).as_subclass(torch.Tensor)
    for ours, torchvisions in (
        (adjust_brightness, TF.adjust_brightness),
        (adjust_contrast, TF.adjust_contrast),
    ):
        assert np.abs(ours(pixels, factor).astype(int) - to_pixels(torchvisions(image, factor))).max() <= 1
    result = ColorJitter(saturation=0.9, hue=0.5)(Sample(to_image(pixels), "grey", (40, 50)), np.random.default_rng(0))
    np.testing.assert_array_equal(to_pixels(result.image), pixels)


def test_jitter_draws_factors_from_the_range_and_the_order_at_random() -> None:
    sample = Sample(to_image(np.full((4, 4, 3), 100, np.uint8)), "flat", (4, 4))
    rng = np.random.default_rng(0)
    values = [int(ColorJitter(brightness=0.4)(sample, rng).image[0, 0, 0]) for _ in range(500)]
    assert (min(values), max(values)) == (60, 140)
    assert np.mean(values) == pytest.approx(100, abs=4)
    pixels = np.array([[[250, 250, 250], [10, 10, 10]]], np.uint8)  # brighter than 255 is clipped: order matters
    orders = set()
    for seed in range(40):
        result = ColorJitter(0.4, 0.4)(Sample(to_image(pixels), "two", (1, 2)), np.random.default_rng(seed)).image
        b, c = np.random.default_rng(seed).uniform(0.6, 1.4, 2)
        first = adjust_contrast(adjust_brightness(pixels, b), c)
        second = adjust_brightness(adjust_contrast(pixels, c), b)
        matches = [np.array_equal(to_pixels(result), expected) for expected in (first, second)]
        assert any(matches)
        if not all(matches):
            orders.add(matches[0])
    assert orders == {True, False}
