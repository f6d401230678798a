"""A linear head on DINOv2 and DINOv3: timm's features, what is frozen, the licence."""

import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import segfolio.weights.backbones
from benchmarks.confusion_matrix import peak_bytes
from segfolio.architectures.transformer.dino_linear import DINOLinear
from segfolio.errors import SegfolioError
from segfolio.families.optimization import ParameterRules, parameter_groups
from segfolio.layers.hollow import hollow

DINOV3 = "vit_tiny_patch16_dinov3_qkvb"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backbone", ["test_vit", DINOV3])
@pytest.mark.parametrize("blocks", [1, 4])
def test_logits_are_a_linear_layer_of_what_timm_has_behind_the_last_blocks(backbone: str, blocks: int) -> None:
    network = DINOLinear(3, backbone, blocks, image_size=64).eval()
    nn.init.uniform_(network.norm.running_mean, -1, 1)
    nn.init.uniform_(network.norm.running_var, 0.5, 2)
    images = torch.randn(2, 3, 64, 96)
    depth = len(network.encoder.blocks)
    indices = list(range(depth - blocks, depth))
    with torch.no_grad():
        maps = network.encoder.forward_intermediates(images, indices=indices, norm=True, intermediates_only=True)
        joined = torch.cat(maps, 1).permute(0, 2, 3, 1)
        scale = (network.norm.running_var + network.norm.eps).rsqrt()
        weight, bias = network.classifier.weight[:, :, 0, 0], network.classifier.bias
        expected = ((joined - network.norm.running_mean) * scale) @ weight.T + bias
        torch.testing.assert_close(network(images).permute(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "millions"), [("DINOv2-S", 22), ("DINOv2-L", 305), ("DINOv3-B", 86)])
def test_a_linear_head_is_all_that_a_frozen_network_trains(name: str, millions: int) -> None:
    with hollow():
        network = DINOLinear(150, **DINOLinear.variants[f"{name}, linear"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions
    network.encoder.requires_grad_(False)
    width = network.encoder.embed_dim
    (group,) = parameter_groups(network, ParameterRules())
    assert sum(p.numel() for p in group["params"]) == 150 * (width + 1) + 2 * width


@pytest.mark.parametrize("backbone", ["test_vit", DINOV3])
def test_an_image_of_other_size_is_padded_and_its_logits_cut(backbone: str) -> None:
    network = DINOLinear(3, backbone, image_size=64).eval()
    assert network(torch.randn(1, 3, 64, 80)).shape == (1, 3, 4, 5)
    assert network(torch.randn(1, 3, 50, 90)).shape == (1, 3, 50, 90)


def test_weights_of_timm_load_and_their_licence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = timm.create_model(DINOV3)
    torch.save(given.state_dict(), tmp_path / "model.safetensors.pth")
    (tmp_path / "model.safetensors.pth").rename(tmp_path / "v3.pth")
    monkeypatch.setattr(segfolio.weights.backbones, "fetch", lambda *_: tmp_path)
    monkeypatch.setattr(segfolio.weights.backbones, "SAFE", "v3.pth")
    with pytest.warns(UserWarning, match=r"lvd1689m: weights of this release, .* are under the FAIR Noncommercial"):
        network = DINOLinear(3, DINOV3, weights="eupe_lvd1689m")
    key = "blocks.7.attn.qkv.weight"
    assert torch.equal(network.encoder.state_dict()[key], given.state_dict()[key])


def test_weights_of_its_own_and_of_dinov2_have_no_licence_to_tell(tmp_path: Path) -> None:
    torch.save(DINOLinear(3, DINOV3).state_dict(), tmp_path / "own.pth")
    torch.save(timm.create_model("test_vit", img_size=160).state_dict(), tmp_path / "vit.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DINOLinear(3, DINOV3, weights=str(tmp_path / "own.pth"))
        DINOLinear(3, "test_vit", image_size=64, weights=str(tmp_path / "vit.pth"))


def trained(network: nn.Module, images: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=False)  # whose memory is not that of activations
    network.train()(images).square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_384", DINOV3])
def test_checkpointing_takes_a_quarter_of_the_memory_and_gives_the_same_gradients(backbone: str) -> None:
    plain, sparing = (DINOLinear(3, backbone, image_size=128, checkpointing=given) for given in (False, True))
    sparing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 128, 128)
    for a, b in zip(trained(plain, images), trained(sparing, images), strict=True):
        torch.testing.assert_close(a, b)
    assert peak_bytes(lambda: trained(sparing, images)) < 0.25 * peak_bytes(lambda: trained(plain, images))


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SegfolioError, match=r"DINOLinear got images of 64x15 pixels, smaller than a patch of 16x16"):
        DINOLinear(3, "test_vit", image_size=64)(torch.randn(1, 3, 64, 15))
    with pytest.raises(SegfolioError, match=r"blocks is 9; test_vit has 6, give 1 to 6 of the last"):
        DINOLinear(3, "test_vit", 9, image_size=64)
    with pytest.raises(SegfolioError, match=r"backbone resnet50 is no plain ViT"):
        DINOLinear(3, "resnet50")
    for backbone in ("test_vit", DINOV3):
        torch.save(timm.create_model(backbone, patch_size=32, img_size=64).state_dict(), tmp_path / "32.pth")
        with pytest.raises(SegfolioError, match=r"32.pth is of patches of 32x32 pixels and the network's are 16x16"):
            DINOLinear(3, backbone, image_size=64, weights=str(tmp_path / "32.pth"))
