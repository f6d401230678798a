"""Transforms of images of other types and channels than 8-bit RGB."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Target, to_image, to_pixels
from segfolio.data.transforms import (
    ColorJitter,
    ElasticDeformation,
    RandomWindow,
    Resize,
    ResizeShortest,
    TorchvisionV2,
)
from segfolio.data.transforms.color import adjust_contrast, adjust_hue, adjust_saturation
from segfolio.errors import SegfolioError

MOVES = [
    RandomWindow((24, 40), scale=(0.5, 2.0), hflip=0.5, vflip=0.5),
    RandomWindow((64, 64), scale=(0.3, 1.0), rotation=30.0),
    ElasticDeformation(sigma=4.0),
    Resize((20, 31)),
    ResizeShortest([20, 50]),
    TorchvisionV2(v2.RandomPerspective(p=1.0)),
]


def sample(channels: int, dtype: str, seed: int = 0) -> Sample:
    values = 250 * np.random.default_rng(seed).random((32, 48, channels))
    semantic = Mask(torch.zeros(32, 48, dtype=torch.uint8))
    return Sample(to_image(values.astype(dtype)), "a", (32, 48), Target(semantic))


@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
@pytest.mark.parametrize("channels", [2, 4, 5, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_channel_moves_as_it_would_alone(move, channels, dtype) -> None:
    whole = sample(channels, dtype)
    moved = move(whole, np.random.default_rng(7)).image
    assert moved.dtype == whole.image.dtype
    for c in range(channels):
        alone = Sample(to_image(to_pixels(whole.image)[..., c]), "a", (32, 48), whole.target)
        expected = move(alone, np.random.default_rng(7)).image[0]
        atol = 1e-3 if dtype == "float32" else 1.01  # libraries round differently with the number of channels
        torch.testing.assert_close(moved[c].float(), expected.float(), atol=atol, rtol=0)


@pytest.mark.parametrize("move", MOVES[:5], ids=lambda move: type(move).__name__)
def test_16_bits_move_as_floats_do(move) -> None:
    wide, real = sample(4, "uint16"), sample(4, "uint16")
    real.image = to_image(to_pixels(real.image).astype(np.float32))
    found, expected = (move(s, np.random.default_rng(3)).image.float() for s in (wide, real))
    torch.testing.assert_close(found, expected, atol=1.01, rtol=0)  # rounded twice where it is resized and rotated


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_brightness_and_contrast_are_of_each_band(dtype) -> None:
    pixels = to_pixels(sample(13, dtype).image)
    found = adjust_contrast(pixels, 0.5)
    mean = pixels.mean((0, 1), dtype=np.float64)
    np.testing.assert_allclose(found, mean + 0.5 * (pixels - mean), atol=0.51 if dtype != "float32" else 1e-3)
    jittered = to_pixels(ColorJitter(brightness=0.5)(sample(13, dtype), np.random.default_rng(1)).image)
    factor = jittered.sum(dtype=np.float64) / pixels.sum(dtype=np.float64)
    assert abs(factor - 1) > 0.01
    clipped = np.minimum(factor * pixels, 255) if dtype == "uint8" else factor * pixels
    np.testing.assert_allclose(jittered, clipped, atol=1.0)


@pytest.mark.parametrize("adjust", [adjust_saturation, adjust_hue])
def test_saturation_and_hue_of_16_bit_rgb_are_those_of_8_bits_only_finer(adjust) -> None:
    pixels = to_pixels(sample(3, "uint8").image)
    fine = adjust(pixels.astype(np.uint16) * 256, 0.4)
    coarse = adjust(pixels, 0.4)
    assert np.abs(fine / 256 - coarse).max() < 1  # 255 is white, or 65535 / 256
    assert np.abs(adjust(pixels.astype(np.float32), 0.4) - coarse)[coarse < 255].max() < 1


def test_saturation_and_hue_of_other_bands_are_refused() -> None:
    with pytest.raises(SegfolioError, match="a has 4 channels, and saturation and hue are of RGB; leave them out"):
        ColorJitter(0.1, 0.1, hue=0.1)(sample(4, "uint16"), np.random.default_rng(0))


def test_what_lies_outside_has_the_mean_of_each_band() -> None:
    whole = sample(7, "float32")
    moved = RandomWindow((64, 96))(whole, np.random.default_rng(0)).image
    mean = whole.image.mean((1, 2))
    corners = torch.stack([moved[:, 0, 0], moved[:, 0, -1], moved[:, -1, 0], moved[:, -1, -1]])
    assert ((corners - mean).abs().amax(1) < 1e-3).sum() >= 3
