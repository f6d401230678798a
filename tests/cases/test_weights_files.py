"""A file works wherever `weights` does: of any encoder, under the names of its library, of timm, or of the network."""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torchvision.models import resnet18
from transformers import ResNetConfig, ResNetForImageClassification

from segfolio.architectures.dilated.fcn_resnet import FCNResNet
from segfolio.architectures.encoder_decoder.smp import SMP
from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.region_based.faster_rcnn import FasterRCNN
from segfolio.errors import SegfolioError

SMALL = {"width": 32, "decoder_layers": 1, "heads": 2, "feedforward": 32}


def saved(state: dict, folder: Path) -> str:
    torch.save(state, folder / "weights.pth")
    return str(folder / "weights.pth")


def encoder(network: SMP) -> dict[str, torch.Tensor]:
    return network.model.encoder.state_dict()


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
def test_an_encoder_of_smps_by_its_own_names(tmp_path, prefix):
    torch.manual_seed(0)
    state = encoder(SMP(2, encoder="resnet18"))
    found = SMP(5, "fpn", "resnet18", saved({prefix + key: value for key, value in state.items()}, tmp_path))
    assert all(value.equal(state[key]) for key, value in encoder(found).items())


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.backbone.", "encoder.model."])
@pytest.mark.parametrize(
    ("network", "part"),
    [
        (partial(SMP, 2, "unet", "resnet18"), "model.encoder"),
        (partial(SMP, 2, "unet", "tu-resnet18"), "model.encoder.model"),
        (partial(FCNResNet, 2, backbone="resnet18"), "backbone"),
        (partial(MaskFormer, 2, backbone="resnet18", **SMALL), "model.pixel_level_module.encoder._backbone"),
        (partial(FasterRCNN, 2, backbone="resnet18"), "backbone.body"),
    ],
)
def test_what_libraries_put_before_the_names_goes(tmp_path, network, part, prefix):
    state = resnet18().state_dict()
    file = saved({prefix + key: value for key, value in state.items()}, tmp_path)
    found = network(weights=file).get_submodule(part).state_dict()
    assert len(found) > 70
    assert all(value.equal(state[key]) for key, value in found.items() if "num_batches" not in key)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet50"])
def test_a_resnet_of_transformers(tmp_path, encoder):
    deep = encoder.endswith("50")
    config = (
        ResNetConfig(depths=[3, 4, 6, 3])
        if deep
        else ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512])
    )
    theirs = ResNetForImageClassification(config).eval()
    network = SMP(2, encoder=encoder, weights=saved(theirs.state_dict(), tmp_path)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs(images, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(network.model.encoder(images)[-1], expected)


@pytest.mark.parametrize("name", ["densenet121", "mit_b0", "xception"])
def test_an_encoder_that_loads_in_its_own_way(tmp_path, name):
    """densenet's and xception's rename what they are given, and none of the three takes `strict`."""
    state = encoder(SMP(2, "fpn", name))
    found = encoder(SMP(2, "fpn", name, saved(state, tmp_path)))
    assert all(value.equal(state[key]) for key, value in found.items())


def test_a_classifier_of_torchvisions_without_its_classifier(tmp_path):
    state = resnet18().state_dict()
    found = encoder(SMP(2, encoder="resnet18", weights=saved(state, tmp_path)))
    assert all(value.equal(state[key]) for key, value in found.items())


def test_a_network_of_timms(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    found = encoder(SMP(2, encoder="tu-test_resnet", weights=saved(state, tmp_path)))
    assert all(value.equal(state[key.removeprefix("model.")]) for key, value in found.items())


def test_the_whole_network_and_a_checkpoint_of_it(tmp_path):
    state = SMP(2, encoder="tu-test_resnet").state_dict()
    for given in (state, {"state_dict": {f"network.{key}": value for key, value in state.items()}}):
        found = SMP(2, encoder="tu-test_resnet", weights=saved(given, tmp_path)).state_dict()
        assert all(value.equal(state[key]) for key, value in found.items())


def test_weights_of_rgb_fit_other_channels_and_say_so(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    with pytest.warns(UserWarning, match="is of RGB images and these have 4 channels"):
        found = SMP(2, encoder="tu-test_resnet", weights=saved(state, tmp_path), in_channels=4)
    assert found.model.encoder.state_dict()["model.conv1.0.weight"].shape[1] == 4


def test_weights_of_another_network_say_how_many_fit(tmp_path):
    with pytest.raises(SegfolioError, match="0 of its 1 tensors have a name of this encoder's"):
        SMP(2, encoder="tu-test_resnet", weights=saved({"a": torch.zeros(1)}, tmp_path))
    with pytest.raises(SegfolioError, match="of the 216 tensors of ResNetEncoder 120 would fit"):
        SMP(2, encoder="resnet34", weights=saved(resnet18().state_dict(), tmp_path))
