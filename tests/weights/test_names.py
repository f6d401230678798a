"""The names of one network's weights, as libraries write them."""

from pathlib import Path

import pytest
import torch

from segfolio.weights.files import read_weights
from segfolio.weights.names import names_of, of_resnet, unwrapped

VALUE = torch.ones(1)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.encoder."])
def test_a_file_is_read_under_torchvisions_names(tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}features.0.bias": VALUE, f"{prefix}classifier.6.bias": VALUE}, tmp_path / "vgg.pth")
    assert read_weights(str(tmp_path / "vgg.pth"), "vgg16").keys() == {"features.0.bias", "classifier.6.bias"}


def test_of_a_whole_network_the_backbone_is_taken() -> None:
    state = {"backbone.conv1.weight": VALUE, "backbone.bn1.weight": VALUE, "decode_head.conv_seg.bias": VALUE}
    assert unwrapped(state, names_of("resnet18")).keys() == {"conv1.weight", "bn1.weight"}


def test_what_has_the_names_or_none_of_them_stays() -> None:
    for state in ({"conv1.weight": VALUE, "model.conv1.weight": VALUE}, {"model.x": VALUE}):
        assert unwrapped(state, names_of("resnet18")) == state


def test_names_are_torchvisions_and_timms() -> None:
    assert {"features.0.weight", "pre_logits.fc1.weight", "classifier.0.weight"} <= names_of("vgg16")
    assert names_of("nobody's") == frozenset()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embedder.embedder.convolution.weight", "conv1.weight"),
        ("embedder.embedder.normalization.running_var", "bn1.running_var"),
        ("encoder.stages.2.layers.10.layer.1.normalization.bias", "layer3.10.bn2.bias"),
        ("encoder.stages.0.layers.0.shortcut.convolution.weight", "layer1.0.downsample.0.weight"),
        ("encoder.stages.3.layers.0.shortcut.normalization.weight", "layer4.0.downsample.1.weight"),
        ("classifier.1.bias", "fc.bias"),
        ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
    ],
)
def test_transformers_resnet_has_other_names(theirs: str, ours: str) -> None:
    assert of_resnet(theirs) == ours
