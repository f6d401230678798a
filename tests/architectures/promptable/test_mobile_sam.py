"""MobileSAM counts as the release, has its names, and sees as timm's TinyViT and SAM's decoder."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from segfolio.architectures.promptable.mobile_sam import MobileSAM
from segfolio.architectures.promptable.sam import SAM
from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow
from segfolio.layers.prompting import PromptInput

RELEASE = "02a1bb2d36347185fea99978181d1cb8a58a5cda5baa2ab2ebb524c5c898d2f8"
"""sha256 over the sorted names and shapes, `NAME [N, M]`, of the authors' state dict."""

TINY_VIT, SIDE = "tiny_vit_5m_224", 160
CLICK = PromptInput(torch.tensor([0, 1]), torch.tensor([[[20.5, 9.0]], [[40.0, 30.5]]]), torch.tensor([[1], [0]]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shaken(network: nn.Module) -> nn.Module:
    """With values everywhere that no initialisation leaves: statistics, biases of attention, zeros."""
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and (value.ndim < 2 or "biases" in name):
            value.normal_(0.5, 0.3)
    return network.eval()


def released(classifier: nn.Module, network: MobileSAM) -> dict[str, Tensor]:
    """The state dict that the authors would save of timm's TinyViT with `network`'s neck and decoder."""
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("image_encoder.backbone.")}
    for name, value in classifier.state_dict().items():
        name = re.sub(r"^patch_embed\.conv(\d)", lambda m: f"patch_embed.seq.{2 * int(m[1]) - 2}", name)
        name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
        name = re.sub(r"^stages\.(\d)\.blocks", r"layers.\1.blocks", name)
        name = name.replace(".conv.", ".c.").replace("head.norm.", "norm_head.").replace("head.fc.", "head.")
        state[f"image_encoder.{name}"] = value
    return state


def names(state: Mapping[str, Tensor]) -> str:
    lines = sorted(f"{name} {list(value.shape)}" for name, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters() -> None:
    with hollow():
        network, classifier = MobileSAM(0), timm.create_model(TINY_VIT, num_classes=1000)
    assert count(network.image_encoder) == 5_743_892
    assert count(network.image_encoder) + count(classifier.head) == 6_065_532  # as the release stores it
    assert count(network.mask_decoder) == 4_058_340
    assert count(network.prompt_encoder) + sum(b.numel() for b in network.prompt_encoder.buffers()) == 6_476


def test_the_release_loads(tmp_path: Path) -> None:
    classifier, other = shaken(timm.create_model(TINY_VIT, num_classes=1000)), shaken(MobileSAM(0, image_size=SIDE))
    state = released(classifier, other)
    assert names(state) == RELEASE
    torch.save(state, tmp_path / "mobile_sam.pt")
    network = MobileSAM(0, image_size=SIDE, weights=str(tmp_path / "mobile_sam.pt")).eval()
    images = torch.randn(2, 3, 144, SIDE)
    classifier.stages[-1].downsample.conv2.conv.stride = (1, 1)
    with torch.no_grad():
        expected = other.image_encoder.neck(classifier.forward_features(pad(images, (0, 0, 0, 16))))
        (embedding,) = network.embed(images)
        torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.decode((embedding,), CLICK), other.decode((expected,), CLICK))


@pytest.mark.parametrize("naming", ["release", "transformers"])
def test_the_decoder_of_a_sam_is_taken_over(tmp_path: Path, naming: str) -> None:
    sam = SAM(0, **SAM.tiny)
    shaken(sam.prompt_encoder), shaken(sam.mask_decoder)
    state = sam.state_dict()
    if naming == "transformers":
        from transformers import SamModel
        from transformers.models.sam.configuration_sam import SamConfig, SamVisionConfig

        side = SAM.tiny["image_size"]
        vision = SamVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=side)
        theirs = SamModel(
            SamConfig(
                vision_config=vision, prompt_encoder_config={"image_size": side, "image_embedding_size": side // 16}
            )
        )
        state = theirs.state_dict()
    torch.save(state, tmp_path / "sam.pth")
    network = MobileSAM(0, encoder="test_vit", image_size=64, decoder_weights=str(tmp_path / "sam.pth"))
    if naming == "release":
        for part in ("prompt_encoder", "mask_decoder"):
            torch.testing.assert_close(getattr(network, part).state_dict(), getattr(sam, part).state_dict())
    else:
        token = theirs.mask_decoder.mask_tokens.weight
        torch.testing.assert_close(network.mask_decoder.mask_tokens.weight, token)


@pytest.mark.parametrize("encoder", [TINY_VIT, "test_vit", "test_efficientnet", "test_resnet"])
def test_any_encoder_of_stride_16_loads_timms_weights_and_is_trained_whole(tmp_path: Path, encoder: str) -> None:
    classifier = shaken(timm.create_model(encoder))
    torch.save(classifier.state_dict(), tmp_path / "timm.pth")
    network = MobileSAM(0, encoder, image_size=96, weights=str(tmp_path / "timm.pth")).eval()
    theirs = classifier.state_dict()
    for name, value in network.image_encoder.backbone.model.state_dict().items():
        if name != "pos_embed":  # interpolated
            torch.testing.assert_close(value, theirs[name])
    network.train()
    (embedding,) = network.embed(torch.randn(2, 3, 96, 80))
    assert embedding.shape == (2, 256, 6, 6)
    network.decode((embedding,), CLICK).masks.square().mean().backward()
    encoder_grads = {name: p.grad for name, p in network.image_encoder.named_parameters()}
    assert [name for name, grad in encoder_grads.items() if grad is None] == []


def test_images_of_other_channels() -> None:
    assert MobileSAM(0, TINY_VIT, 64, in_channels=5).embed(torch.randn(1, 5, 64, 64))[0].shape == (1, 256, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image_size": 100}, "image_size of MobileSAM is 100, expected a multiple of 16"),
        ({"encoder": "vit_base_patch32_224"}, "encoder vit_base_patch32_224 has no features of stride 16 of images"),
        ({"encoder": "tiny_vit_5m_244"}, "timm has no backbone 'tiny_vit_5m_244'; did you mean one of tiny_vit_5m_224"),
        ({"decoder_weights": "nowhere.pth"}, "decoder_weights: nowhere.pth is no file; expected weights of a SAM"),
        ({"decoder_weights": "{folder}/encoder.pth"}, "encoder.pth has no prompt encoder and no mask decoder"),
        ({"weights": "{folder}/encoder.pth"}, "of the weights are missing"),
        ({"weights": "{folder}/other.pth"}, "of the weights are missing: image_encoder"),
        ({"weights": "nowhere"}, "nowhere is neither a file, nor a tag of timm's weights for test_vit"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, arguments: dict[str, str], sentence: str) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    torch.save(MobileSAM(0, "test_resnet", 64).state_dict(), tmp_path / "other.pth")
    given = {k: v.format(folder=tmp_path) if isinstance(v, str) else v for k, v in arguments.items()}
    with pytest.raises(SegfolioError, match=re.escape(sentence)) as told:
        MobileSAM(0, **{**MobileSAM.tiny, **given})
    assert "\n" not in str(told.value)


def test_an_image_that_is_too_large_is_one_sentence() -> None:
    with pytest.raises(SegfolioError, match=r"an image is 200x48 pixels, expected at most 128 on each side"):
        MobileSAM(0, **MobileSAM.tiny).embed(torch.zeros(1, 3, 48, 200))
