import numpy as np
import pytest
import torch

from segfolio.data.image_space import GREY, RGB, ImageSpace
from segfolio.errors import SegfolioError


def test_defaults_follow_the_type_and_the_channels() -> None:
    assert (RGB.value_range, RGB.shown) == ((0, 255), (0, 1, 2))
    assert (GREY.value_range, GREY.shown) == ((0, 255), (0,))
    assert ImageSpace(2, "uint16") == ImageSpace(2, "uint16", (0, 65535), (0,))
    assert ImageSpace(13, "float32") == ImageSpace(13, "float32", (0, 1), (0, 1, 2))
    assert ImageSpace(4, "uint16", [0, 10_000], [3, 2, 1]).words == "4 channels of uint16 in 0 to 10000"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels is 0; give 1 for grey"),
        ({"dtype": "int16"}, "dtype is 'int16', expected one of uint8, uint16, float32"),
        ({"value_range": (1.0,)}, r"value_range is \[1.0\]; give the values that count as 0 and as 1"),
        ({"value_range": (9, 3)}, r"value_range is \[9.0, 3.0\]"),
        ({"shown": (0, 1)}, r"shown is \[0, 1\]; give the channels that pictures show"),
        ({"shown": (3,)}, r"shown is \[3\]; .* of 0 to 2"),
    ],
)
def test_a_mistake_names_the_argument(arguments, message) -> None:
    with pytest.raises(SegfolioError, match=message):
        ImageSpace(**arguments)


def test_pictures_of_8_bit_rgb_and_grey_are_the_image_itself() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 7, 9), np.uint8))
    assert torch.equal(RGB.picture(image), image)
    assert torch.equal(GREY.picture(image[:1]), image[:1].expand(3, -1, -1))


def test_pictures_show_the_chosen_bands_from_black_to_white() -> None:
    space = ImageSpace(5, "float32", (-20.0, 20.0), (4, 0, 2))
    image = torch.tensor([-20.0, 9.0, 20.0, 9.0, 0.0])[:, None, None]
    assert space.picture(image)[:, 0, 0].tolist() == [128, 0, 255]
    assert space.picture(5 * image)[:, 0, 0].tolist() == [128, 0, 255]  # what is beyond is clipped
    wide = torch.tensor([0, 65535], dtype=torch.uint16)[:, None, None]
    assert ImageSpace(2, "uint16", shown=(1,)).picture(wide)[:, 0, 0].tolist() == [255] * 3
