"""Resize and ElasticDeformation: equal to what they stand for."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from segfolio.data.prompts import Prompts
from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms import (
    ElasticDeformation,
    RandomWindow,
    Resize,
    ResizeShortest,
    TorchvisionV2,
    Transform,
)
from segfolio.errors import SegfolioError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(31, 200), (180, 90), (64, 64)])
def test_resize_equals_torchvisions_to_the_bit(size: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (97, 130, channels), np.uint8)
    sample = Sample(to_image(pixels), "noise", (97, 130))
    ours = Resize(size)(sample, np.random.default_rng(0)).image
    assert torch.equal(ours, TF.resize(sample.image, list(size), antialias=True))
    assert to_pixels(ours).ctypes.data == ours.data_ptr()  # height, width, channels in memory


def test_the_result_of_resize_has_the_size_that_was_asked_for() -> None:
    assert Resize(512).result(683, 512) == (683, 512)
    assert Resize(512).result(256, 400) == (512, 800)
    assert Resize(800, max_size=1333).result(480, 1280) == (500, 1333)
    assert Resize(512, divisor=32).result(480, 631) == (512, 704)
    assert Resize((360, 480)).result(720, 960) == (360, 480)


def test_the_short_side_is_drawn_from_the_list_and_the_long_side_is_limited() -> None:
    sample = Sample(to_image(np.zeros((30, 45, 3), np.uint8)), "black", (30, 45))
    draw = ResizeShortest([20, 30, 40], max_size=54)
    sizes = [tuple(draw(sample, np.random.default_rng(seed)).image.shape[1:]) for seed in range(300)]
    counts = [sizes.count(size) for size in [(20, 30), (30, 45), (36, 54)]]
    assert sum(counts) == 300
    assert min(counts) > 75
    with pytest.raises(SegfolioError, match="sizes is empty"):
        ResizeShortest([])


def test_elastic_nodes_are_gaussian_and_the_field_runs_through_them() -> None:
    ramp = np.arange(201, dtype=np.uint8)[None, :, None].repeat(201, 0)  # the value of a pixel is its column
    sample = Sample(to_image(ramp), "ramp", (201, 201))
    centre = []
    for seed in range(300):
        result = to_pixels(ElasticDeformation(grid=3, sigma=10.0)(sample, np.random.default_rng(seed)).image)
        nodes = np.random.default_rng(seed).normal(0.0, 10.0, (2, 3, 3))
        displacement = int(result[100, 100, 0]) - 100
        assert displacement == pytest.approx(nodes[1, 1, 1], abs=0.51)
        centre.append(displacement)
    assert np.std(centre) == pytest.approx(10, abs=1.3)
    still = ElasticDeformation(sigma=0.0)(sample, np.random.default_rng(0))
    np.testing.assert_array_equal(to_pixels(still.image), ramp)


@pytest.mark.parametrize(
    "transform",
    [Resize((8, 8)), ElasticDeformation(), RandomWindow((8, 8)), TorchvisionV2(v2.RandomHorizontalFlip(1.0))],
    ids=lambda transform: type(transform).__name__,
)
def test_prompts_are_not_left_behind(transform: Transform) -> None:
    asked = Sample(to_image(np.zeros((16, 16, 3), np.uint8)), "asked", (16, 16), prompts=Prompts(torch.tensor([0])))
    with pytest.raises(SegfolioError, match=r"^asked has prompts, which transforms do not move; make them in the"):
        transform(asked, np.random.default_rng(0))
