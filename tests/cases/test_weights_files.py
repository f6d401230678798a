"""A file works wherever `weights` does: of any encoder, under the names of its library, of timm, or of the network."""

from pathlib import Path

import pytest
import timm
import torch
from torchvision.models import resnet18

from segfolio.architectures.encoder_decoder.smp import SMP
from segfolio.errors import SegfolioError


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


@pytest.mark.parametrize("name", ["test_convnext", "test_byobnet", "pvt_v2_b0", "resnetv2_18", "densenet121"])
def test_a_network_of_timms_whose_stages_have_other_names_within_smps(tmp_path, name):
    """timm opens the outermost lists of a network of features."""
    torch.manual_seed(0)
    state = timm.create_model(name).state_dict()
    values = {value.sum().item() for value in state.values() if value.numel() > 1}
    found = encoder(SMP(2, encoder=f"tu-{name}", weights=saved(state, tmp_path)))
    assert {value.sum().item() for value in found.values() if value.numel() > 1} <= values


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
    with pytest.raises(SegfolioError, match="of the weights"):
        SMP(2, encoder="resnet34", weights=saved(resnet18().state_dict(), tmp_path))
