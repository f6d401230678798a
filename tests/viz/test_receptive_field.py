"""Effective receptive fields, and the command that draws them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from segfolio.architectures.dilated.pspnet import PSPNet
from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.transformer.intern_image import InternImage
from segfolio.architectures.transformer.segformer import SegFormer
from segfolio.architectures.transformer.swin_upernet import SwinUPerNet
from segfolio.contents import architectures
from segfolio.data.formats.images import read_image, write_image
from segfolio.errors import SegfolioError
from segfolio.layers.geometry import receptive_field
from segfolio.layers.outputs import MaskOutput, PixelOutput
from segfolio.viz.receptive_field import effective_receptive_fields, heat, side_of, stages_of

IMAGES = [torch.randn(3, 31, 41, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.Conv2d(4, 2, 1))


def test_it_is_zero_outside_the_receptive_field_and_nowhere_within() -> None:
    network = convolutions()
    side, stride = receptive_field(network)
    field = effective_receptive_fields(network, IMAGES)["logits"]
    assert (side, stride) == (7, 1)
    assert field.shape == (31, 41)
    assert field.sum() == pytest.approx(1)
    y, x = field.nonzero()
    assert (y.min(), y.max(), x.min(), x.max()) == (15 - 3, 15 + 3, 20 - 3, 20 + 3)
    assert side_of(field, 1.0) == 7


def test_of_a_linear_network_it_is_the_kernel_whatever_the_images() -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    field = effective_receptive_fields(network, [image[:1] for image in IMAGES])["logits"]
    kernel = network.weight.detach().double()[0, 0].abs()
    np.testing.assert_allclose(field[14:17, 19:22], kernel / kernel.sum(), rtol=1e-6)


def test_what_is_normalised_over_its_channels_has_a_field() -> None:
    """Whose sum over the channels is constant."""
    torch.manual_seed(0)

    class Normalised(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return layer_norm(super().forward(images).permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)

    field = effective_receptive_fields(Normalised(3, 8, 3, padding=1), IMAGES)["logits"]
    y, x = field.nonzero()
    assert (y.min(), y.max(), x.min(), x.max()) == (14, 16, 19, 21)
    assert field.max() < 0.5


def test_a_side_holds_its_share() -> None:
    field = np.zeros((9, 12))
    field[4, 6], field[4, 8], field[0, 6] = 5, 3, 2
    assert [side_of(field, share) for share in (0.5, 0.51, 0.8, 0.81)] == [1, 5, 5, 9]


class Queries(nn.Module):
    """One query whose mask is a convolution; its class does not depend on the image."""

    def __init__(self, pixels: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> MaskOutput:
        return MaskOutput(torch.zeros(len(images), 2, 3), self.pixels(images), [])


class Wrapped(Queries):
    def forward(self, images: Tensor) -> PixelOutput:  # type: ignore[override]
        return PixelOutput(self.pixels(images), {})


def test_every_output_with_scores_per_pixel_has_one() -> None:
    network = convolutions()
    wrapped, plain, queries = (
        effective_receptive_fields(each, IMAGES)["logits"] for each in (Wrapped(network), network, Queries(network))
    )
    np.testing.assert_allclose(wrapped, plain)
    assert side_of(queries, 1.0) == 7


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(8 if stage else 3, 8, 3, 2, 1) for stage in range(4))
        self.classifier = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return self.classifier(images)


def test_stages_of_an_encoder_have_theirs_before_the_logits() -> None:
    torch.manual_seed(0)
    network, images = Staged(), [torch.randn(3, 64, 64)]
    assert stages_of(network) == list(network.stages)
    fields = effective_receptive_fields(network, images)
    assert [*fields] == ["stage 1", "stage 2", "stage 3", "stage 4", "logits"]
    assert [int((field > 0).any(0).sum()) for field in fields.values()] == [3, 7, 15, 31, 31]
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("network", [SegFormer, SwinUPerNet, InternImage, PSPNet])
def test_maps_of_stages_are_read_with_their_channels_where_the_network_has_them(network: Any) -> None:
    torch.manual_seed(0)
    built = network(2, **network.tiny).eval()
    fields = effective_receptive_fields(built, [torch.randn(3, 128, 128)])
    assert [*fields] == ["stage 1", "stage 2", "stage 3", "stage 4", "logits"]
    for field in fields.values():  # around the middle; with channels for a side it is off it
        y, x = (float((field * places).sum()) for places in np.indices(field.shape))
        assert 48 < y < 80
        assert 48 < x < 80


def test_a_side_is_not_larger_than_the_picture() -> None:
    assert side_of(np.ones((128, 128)), 1.0) == 128
    assert side_of(np.ones((31, 41)), 1.0) == 41


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "of networks with scores per pixel or masks of queries"),
        (
            nn.Conv2d(3, 2, 1).apply(lambda layer: nn.init.zeros_(layer.weight)),
            "no pixel matters to the scores",
        ),
    ],
)
def test_a_network_without_one_is_a_sentence(network: nn.Module, says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        effective_receptive_fields(network, IMAGES)


def test_the_middle_is_brightest() -> None:
    field = np.zeros((5, 10))
    field[2, 5], field[2, 7] = 1, 0.25
    picture = heat(field)
    assert picture.shape == (160, 320, 3)
    assert picture[80, 176].sum() > picture[80, 240].sum() > picture[10, 10].sum() == heat(field)[0, 0].sum()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(UNet):
        variants = {"U-Net, small": {"width": 2, "in_channels": 1}, "U-Net, wider": {"width": 3}}

    monkeypatch.setattr("segfolio.viz.variants.architecture_classes", lambda: iter([Small]))


def test_the_command_writes_a_picture_of_several(few: None, tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for name in "ab":
        write_image(tmp_path / "photographs" / f"{name}.png", rng.integers(0, 255, (50, 70, 3), dtype=np.uint8))
    out = tmp_path / "fields" / "erf.png"
    names = ("U-Net, small", "U-Net, wider")
    architectures(["--erf", *names, "--size", "48", "--images", str(tmp_path / "photographs"), "--output", str(out)])
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    assert "random weights" in said
    assert f"written: {out}" in said
    picture = read_image(out)
    assert picture.shape[1] > 2 * 320
    assert picture.std() > 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("U-Net, smal",), "no architecture 'U-Net, smal'; did you mean 'U-Net, small'"),
        (("U-Net, small", "--output", "erf.txt"), "--output erf.txt is no name of a picture"),
        (("U-Net, small", "--images", "nowhere"), "nowhere"),
        (("U-Net, small", "--weights", "nowhere.pth"), "U-Net, small takes no weights"),
        (("U-Net, small", "--size", "0"), "--size is 0, expected 1 or more"),
    ],
)
def test_a_mistake_is_one_sentence(few: None, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        architectures(["--erf", *arguments])
