"""Images, mean, standard deviation and network: what agrees is normalised, what does not is one sentence."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segfolio.data.image_space import GREY, RGB, ImageSpace
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.families.network_input import check_input
from segfolio.families.trained import IMAGENET_MEAN, IMAGENET_STD
from segfolio.inference.dense_test import Protocols
from segfolio.inference.protocols import DenseCRF, MultiScale, Slide
from tests.families.test_per_pixel import family

BANDS = ImageSpace(4, "uint16", (1000, 9000), (3, 1, 0))


class Seen(nn.Module):
    """Logits of one convolution of 1x1; it keeps what it was shown."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.score = nn.Conv2d(in_channels, num_classes, 1)
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images)
        return self.score(images)


def of_bands(**arguments: Any) -> Any:
    given = {"mean": [0.25, 0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.25, 0.25], "image_space": BANDS}
    return family(**{"architecture": lambda num_classes: Seen(num_classes, 4), **given, **arguments})


def images(size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 12_000, (2, 4, *size), np.uint16))


def test_8_bit_rgb_is_normalised_as_ever() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.equal(family().normalize(pixels), (pixels - mean) / std)


def test_mean_and_std_are_in_units_of_the_value_range() -> None:
    found = of_bands().normalize(torch.tensor([1000, 9000, 5000, 3000], dtype=torch.uint16)[None, :, None, None])
    assert found.flatten().tolist() == [-0.5, 2.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (GREY, {}, "model.mean has 3 values, but the images have 1 channel; give one for each .*ImageNet's, of RGB"),
        (RGB, {"mean": [0.5]}, "model.mean has 1 value, but the images have 3 channels"),
        (RGB, {"std": [1.0, 1.0]}, "model.std has 2 values, but the images have 3 channels"),
        (RGB, {"std": [1.0, 0.0, 1.0]}, r"model.std is \[1.0, 0.0, 1.0\]; images are divided by it"),
        (
            BANDS,
            {"mean": [0.5] * 4, "std": [1.0] * 4},
            r"Half takes images of 3 .* 4 channels; take an arch",
        ),
    ],
)
def test_what_disagrees_is_one_sentence(space, arguments, message) -> None:
    with pytest.raises(SegfolioError, match=message):
        family(image_space=space, **arguments)


def test_an_architecture_with_in_channels_is_told_so() -> None:
    with pytest.raises(SegfolioError, match=r"Seen takes images of 3 .*; give the architecture in_channels: 4"):
        of_bands(architecture=Seen)


def test_a_network_may_say_itself_what_it_takes() -> None:
    """Where the convolution that it lists first is not the one that sees the image, or where it has none."""

    class HeadFirst(Seen):
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes, 4)
            self.in_channels = 4
            self.score = nn.Sequential(nn.Conv2d(4, 9, 1), nn.Conv2d(9, num_classes, 1))
            self.score = nn.Sequential(*reversed(self.score))

        def forward(self, images: Tensor) -> Tensor:
            return self.score[0](self.score[1](images))

    of_bands(architecture=HeadFirst)

    class NoConvolution(nn.Linear):
        def __init__(self, num_classes: int) -> None:
            super().__init__(4, num_classes)

    of_bands(architecture=NoConvolution)


@pytest.mark.parametrize(
    "protocol",
    [Slide(40, 30), MultiScale((0.5, 1.0)), DenseCRF("v1")],
    ids=lambda protocol: type(protocol).__name__,
)
def test_test_protocols_read_bands(protocol) -> None:
    size = (24, 32)
    model = of_bands(test=Protocols(protocol)).eval()
    with torch.no_grad():
        found = model.predict_step(Batch(images(size), ["a", "b"], [size] * 2), 0)
    assert [p.semantic.shape for p in found] == [size] * 2
    if isinstance(protocol, Slide):  # what is beyond the image is the mean
        shown = model.network.shown[0]
        assert shown.shape[-2:] == (40, 40)
        assert (shown[..., size[0] :, :] == 0).all()


def test_a_crf_sees_the_colours_of_pictures() -> None:
    size, seen = (6, 7), images((6, 7))
    picture = of_bands().reader().picture(seen[0])
    expected = ((seen[0].float() - 1000) / 8000 * 255)[[3, 1, 0]].round().clamp(0, 255)
    assert torch.equal(picture.float(), expected)
    assert picture.shape == (3, *size)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_nothing_is_no_mean(name: str) -> None:
    with pytest.raises(SegfolioError, match=f"model.{name} has 0 values?, but the images have 3 channels"):
        check_input(nn.Conv2d(3, 1, 1), RGB, **{"mean": (0.5,) * 3, "std": (0.5,) * 3, name: None})


def test_a_mean_in_raw_units_is_told() -> None:
    space = ImageSpace(4, "uint16", (0, 10000))
    with pytest.raises(SegfolioError, match=r"model.mean is \[800, .* no value of the images is above 6.5535 in units"):
        check_input(nn.Conv2d(4, 1, 1), space, [800] * 4, [1.0] * 4)
    check_input(nn.Conv2d(4, 1, 1), space, [6.0] * 4, [1.0] * 4)
    check_input(nn.Conv2d(1, 1, 1), ImageSpace(1, "float32"), [800], [1.0])  # floats may be anything
