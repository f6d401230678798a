"""Colour: torchvision's figures within one level of 255; SSD's."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms import ColorJitter, PhotometricDistortion
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


def test_jitter_changes_with_a_probability() -> None:
    sample = Sample(to_image(np.full((4, 4, 3), 100, np.uint8)), "flat", (4, 4))
    jitter = ColorJitter(brightness=0.4, probability=0.25)
    same = sum(torch.equal(jitter(sample, np.random.default_rng(i)).image, sample.image) for i in range(200))
    assert 130 < same < 170


def distorted(color: tuple[int, int, int], **arguments: Any) -> set[tuple[int, ...]]:
    """What becomes of a colour in 400 draws, where all that is not given changes nothing."""
    nothing = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0}
    distort = PhotometricDistortion(**{**nothing, **arguments})
    sample = Sample(to_image(np.full((1, 1, 3), color, np.uint8)), "flat", (1, 1))
    return {tuple(distort(sample, np.random.default_rng(i)).image.flatten().tolist()) for i in range(400)}


def test_distortion_adds_brightness_and_multiplies_contrast() -> None:
    sums = distorted((100, 200, 250), brightness=32.0)
    assert {(b - r, g - r) for r, g, b in sums if b < 255} == {(150, 100)}
    assert (min(sums)[0], max(sums)[0]) == (68, 132)
    products = distorted((20, 40, 80), contrast=(0.5, 1.5))
    assert all((g - 2 * r, b - 4 * r) == pytest.approx((0, 0), abs=2) for r, g, b in products)
    assert (min(products), max(products)) == ((10, 20, 40), (30, 60, 120))


def test_distortion_turns_hues_by_as_many_of_180_as_it_says() -> None:
    """Pure red towards yellow and towards magenta: 18 of 180 are 36 degrees, 0.6 of the way to each."""
    found = distorted((255, 0, 0), hue=18)
    assert len(found) == 37
    assert {(255, 153, 0), (255, 0, 153), (255, 0, 0)} <= found
    assert max(max(g, b) for _, g, b in found) == 153


def test_distortion_changes_contrast_before_or_after_saturation() -> None:
    color = (200, 100, 0)

    def saturated(rgb: tuple[int, ...]) -> tuple[int, ...]:
        hsv = cv2.cvtColor(np.array([[rgb]], np.uint8), cv2.COLOR_RGB2HSV)
        hsv[..., 1] = np.round(hsv[..., 1] * 0.5)
        return tuple(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist())

    def brighter(rgb: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(255, round(1.5 * value)) for value in rgb)

    outcomes = {color, saturated(color), brighter(color), saturated(brighter(color)), brighter(saturated(color))}
    found = distorted(color, contrast=(1.5, 1.5), saturation=(0.5, 0.5))
    nearest = {min(outcomes, key=lambda o: np.abs(np.subtract(o, each)).sum()): each for each in found}
    assert len(nearest) == len(outcomes) == 5
    assert all(each == pytest.approx(outcome, abs=3) for outcome, each in nearest.items())  # HSV of 8 bits rounds
