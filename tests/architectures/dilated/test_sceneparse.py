"""The baselines of SceneParse150: stems, dilations, heads and where deep supervision is."""

import pytest
import torch
from torch import nn

from segfolio.architectures.dilated.sceneparse import DilatedResNet, DilatedVGG


def dilations(stage: nn.Module) -> list[int]:
    return [m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


@pytest.mark.parametrize(("backbone", "deep_stem"), [("resnet18", True), ("resnet50s", False)])
def test_stem_and_dilations_of_the_authors(backbone: str, deep_stem: bool) -> None:
    """`_nostride_dilate`: a kernel that gave up its stride has half of its stage's dilation."""
    with torch.device("meta"):
        network = DilatedResNet(150, backbone, deep_stem=deep_stem).backbone
    assert [m.out_channels for m in network.conv1 if isinstance(m, nn.Conv2d)] == [64, 64, 128]
    third, fourth = dilations(network.layer3), dilations(network.layer4)
    assert (third[0], set(third[1:])) == (1, {2})
    assert (fourth[0], set(fourth[1:])) == (2, {4})


def test_parameters_of_the_heads() -> None:
    """Counted by hand from `models.py`, for 2,048 features, 150 classes."""
    with torch.device("meta"):
        networks = {head: DilatedResNet(150, head=head) for head in ("c1", "ppm")}
    c1 = 9 * 2048 * 512 + 2 * 512 + 513 * 150
    deep = 9 * 1024 * 512 + 2 * 512 + 513 * 150
    ppm = 4 * (2048 * 512 + 2 * 512) + 9 * 4096 * 512 + 2 * 512 + 513 * 150
    for head, expected in (("c1", c1), ("ppm", ppm)):
        assert sum(p.numel() for p in networks[head].head.parameters()) == expected
        assert sum(p.numel() for p in networks[head].auxiliary.parameters()) == deep


@pytest.mark.parametrize("head", ["c1", "ppm"])
def test_the_fourth_stage_is_supervised_in_training_alone(head: str) -> None:
    torch.manual_seed(0)
    network = DilatedResNet(5, **{**DilatedResNet.tiny, "head": head})
    images = torch.randn(2, 3, 65, 97)
    logits, auxiliary = network.train()(images)
    assert (logits.shape, auxiliary["deep"].shape) == ((2, 5, 9, 13),) * 2
    auxiliary["deep"].sum().backward()
    reached = {name.split(".")[0] for name, p in network.backbone.named_parameters() if p.grad is not None}
    assert "layer3" in reached
    assert "layer4" not in reached
    assert network.eval()(images).auxiliary == {}


def test_dilated_vgg_has_the_layers_of_the_prototxt() -> None:
    with torch.device("meta"):
        layers = dict(DilatedVGG(150).front_end.named_children())
    found = {name: (m.dilation[0], m.padding[0]) for name, m in layers.items() if isinstance(m, nn.Conv2d)}
    assert {name: found[name] for name in ("conv4_3", "conv5_1", "conv5_3", "fc6", "fc7")} == {
        "conv4_3": (1, 1),
        "conv5_1": (2, 2),
        "conv5_3": (2, 2),
        "fc6": (4, 12),
        "fc7": (1, 0),
    }
    assert [name for name in layers if name.startswith("pool")] == ["pool1", "pool2", "pool3"]
