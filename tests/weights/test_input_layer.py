"""Weights of RGB in networks for images of other channels."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
from segmentation_models_pytorch.encoders._utils import patch_first_conv
from torch import nn

from segfolio.architectures.dilated.pspnet import PSPNet
from segfolio.architectures.encoder_decoder.segnet import SegNet
from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights
from segfolio.weights.input_layer import first_convolution


def small(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))


@pytest.mark.parametrize("channels", [1, 4, 5, 13])
def test_they_are_made_to_fit_as_smp_and_timm_do_and_it_is_told(channels: int) -> None:
    given, ours, theirs = small(3), small(channels), small(3)
    theirs.load_state_dict(given.state_dict())
    patch_first_conv(theirs, channels, pretrained=True)
    with pytest.warns(UserWarning, match=rf"imagenet is of RGB images and these have {channels} channels?: "):
        load_weights(ours, given.state_dict(), "imagenet")
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_weights_of_as_many_channels_are_taken_as_they_are_in_silence() -> None:
    for channels in (1, 3, 4):
        given, ours = small(channels), small(channels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_weights(ours, given.state_dict(), "file")
        assert torch.equal(ours[0].weight, given[0].weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("there", [2, 4])
def test_weights_of_other_bands_are_refused(there: int) -> None:
    with pytest.raises(SegfolioError, match=r"1 of the weights have another shape: 0\.weight \[8, \d, 3, 3\]"):
        load_weights(small(3), small(there).state_dict(), "file")


def test_only_the_first_convolution_is_made_to_fit() -> None:
    given, wider = small(3).state_dict(), nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    given["2.weight"] = torch.zeros(3, 3, 3, 3)
    with pytest.raises(SegfolioError, match=r"1 of the weights have another shape: 2\.weight \[3, 3, 3, 3\]"):
        load_weights(wider, given, "file")


def test_a_dilated_backbone_takes_a_classifier_of_rgb(tmp_path: Path) -> None:
    classifier = timm.create_model("resnet18")
    torch.save(classifier.state_dict(), path := tmp_path / "resnet18.pth")
    with pytest.warns(UserWarning, match=rf"{path} is of RGB images and these have 4 channels"):
        network = PSPNet(3, backbone="resnet18", channels=16, weights=str(path), in_channels=4)
    found = first_convolution(network)
    assert found
    expected = classifier.conv1.weight[:, [0, 1, 2, 0]] * 3 / 4
    torch.testing.assert_close(found[1].weight, expected)


def test_segnet_takes_vgg_for_grey_images(tmp_path: Path) -> None:
    wide = SegNet(2, width=4)
    kept = {k: v for k, v in wide.encoder.state_dict().items() if not k.endswith("_tracked")}
    torch.save({f"features.{k}": v for k, v in kept.items()}, path := tmp_path / "vgg.pth")
    with pytest.warns(UserWarning, match="have 1 channel: the weights of the first convolution are summed over RGB"):
        network = SegNet(2, in_channels=1, width=4, weights=str(path))
    found, given = first_convolution(network), first_convolution(wide)
    assert found
    assert given
    torch.testing.assert_close(found[1].weight, given[1].weight.sum(1, keepdim=True))
