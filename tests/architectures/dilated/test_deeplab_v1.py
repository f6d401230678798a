"""DeepLab v1: the sizes of Table 2, alignment, multi-scale features, initialisation from VGG-16."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from segfolio.architectures.dilated.deeplab_v1 import BRANCHES, DeepLabV1
from segfolio.errors import SegfolioError
from segfolio.layers.geometry import receptive_field

TABLE_2 = {  # field of view in pixels, millions of parameters
    "DeepLab": (128, 65.1),
    "DeepLab-4x4": (224, 65.1),
    "DeepLab-7x7": (224, 134.3),
    "DeepLab-LargeFOV": (224, 20.5),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_field_of_view_and_parameters(name: str) -> None:
    view, millions = TABLE_2[name]
    with torch.device("meta"):
        network: Any = DeepLabV1(21, **DeepLabV1.variants[name])
    size, _ = receptive_field(network.head.fc6)  # in features 8 pixels apart, each of 32 in the paper's count
    assert (size - 1) * 8 + 32 == view
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert network.geometry()[1] == 8
    assert network.trunk(torch.zeros(1, 3, 321, 321, device="meta")).shape == (1, 512, 41, 41)


@pytest.mark.parametrize("width", [65, 64, 60])
def test_scores_lie_on_the_pixels_that_they_are_of(width: int) -> None:
    network = DeepLabV1(1, width=1 / 16)
    network.trunk, network.head = nn.Sequential(nn.AvgPool2d(1, 8)), nn.Sequential(nn.AvgPool3d((3, 1, 1)))
    columns = torch.arange(float(width)).expand(1, 3, 33, width)
    logits = network.eval()(columns)[0, 0, 0]
    inside = (width - 1) // 8 * 8 + 1  # the next feature is of the padding
    assert logits.shape == (width,)
    torch.testing.assert_close(logits[:inside], torch.arange(float(inside)))
    assert torch.equal(network.train()(columns)[0, 0, 0], torch.arange(0.0, width, 8))  # of labels[::8]


def test_multi_scale_scores_in_training_are_every_eighth_of_those_in_evaluation() -> None:
    """Of the branch of the image, whose scores are not upsampled; the others join at those pixels."""
    torch.manual_seed(0)
    network: Any = DeepLabV1(3, multi_scale=True, width=1 / 16)
    assert len(network.branches) == len(BRANCHES)
    for p in network.branches.parameters():
        nn.init.normal_(p, std=0.1)
    for layer in network.modules():
        layer.training = layer is network  # no dropout
    images = torch.randn(1, 3, 65, 49)
    coarse = network(images)
    fine = network.eval()(images)
    assert (coarse.shape[-2:], fine.shape[-2:]) == ((9, 7), (65, 49))
    torch.testing.assert_close(fine[..., ::8, ::8], coarse, rtol=1e-4, atol=1e-5)
    for branch in network.branches:  # each contributes
        before, branch.score.bias.data = network(images), branch.score.bias + 1
        torch.testing.assert_close(network(images), before + 1)


def test_a_frozen_trunk_leaves_the_branches_and_the_last_layer() -> None:
    network = DeepLabV1(3, multi_scale=True, frozen_trunk=True, width=1 / 16)
    trained = {name.rsplit(".", 1)[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"head.fc8", *(f"branches.{i}.{part}" for i in range(5) for part in ("conv", "fc", "score"))}


@pytest.fixture
def thin_vgg(tmp_path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of a VGG-16 of a 16th of the channels, and its file."""
    torch.manual_seed(0)
    channels = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
    vgg = nn.Module()
    vgg.features = make_layers(channels)  # type: ignore[arg-type]
    vgg.classifier = nn.ModuleDict({"0": nn.Linear(32 * 49, 256), "3": nn.Linear(256, 256), "6": nn.Linear(256, 9)})
    torch.save(vgg.state_dict(), tmp_path / "vgg.pt")
    return vgg.state_dict(), str(tmp_path / "vgg.pt")


@pytest.mark.parametrize(
    ("arguments", "places", "step"),
    [({}, [0, 3, 6], 4), ({"kernel_size": 4, "hidden": 4096}, [0, 2, 4, 6], 1), ({"kernel_size": 7}, range(7), 4)],
)
def test_fc6_is_thinned_out(thin_vgg: Any, arguments: dict[str, int], places: Any, step: int) -> None:
    state, file = thin_vgg
    network: Any = DeepLabV1(3, width=1 / 16, weights=file, **arguments)
    fc6, fc7 = state["classifier.0.weight"].view(256, 32, 7, 7), state["classifier.3.weight"]
    assert torch.equal(network.head.fc6.weight, fc6[::step][..., list(places), :][..., list(places)])
    assert torch.equal(network.head.fc7.weight[..., 0, 0], fc7[::step, ::step])
    assert torch.equal(network.head.fc6.bias, state["classifier.0.bias"][::step])
    assert torch.equal(network.trunk.conv1_1.weight, state["features.0.weight"])
    assert torch.equal(network.trunk.conv5_3.bias, state["features.28.bias"])


def test_a_trained_network_starts_the_multi_scale_one(tmp_path: Path) -> None:
    trained = DeepLabV1(3, width=1 / 16)
    torch.save(trained.state_dict(), tmp_path / "deeplab.pt")
    network: Any = DeepLabV1(3, multi_scale=True, width=1 / 16, weights=str(tmp_path / "deeplab.pt"))
    assert torch.equal(network.head.fc8.weight, trained.head.fc8.weight)  # type: ignore[union-attr]
    with pytest.raises(SegfolioError, match=r"deeplab\.pt: 1 of the weights have another shape: head\.fc6\.weight"):
        DeepLabV1(3, kernel_size=4, width=1 / 16, weights=str(tmp_path / "deeplab.pt"))


def test_weights_of_another_vgg_are_refused(thin_vgg: Any, tmp_path: Path) -> None:
    state, _ = thin_vgg
    for change, message in (
        ({key: value for key, value in state.items() if "classifier" not in key}, r"4 of the weights are missing: fc6"),
        (state | {"features.0.weight": torch.zeros(8, 3, 3, 3)}, r"have another shape: conv1_1\.weight"),
    ):
        torch.save(change, tmp_path / "other.pt")
        with pytest.raises(SegfolioError, match=message):
            DeepLabV1(3, width=1 / 16, weights=str(tmp_path / "other.pt"))
