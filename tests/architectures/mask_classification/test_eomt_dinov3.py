"""EoMT on DINOv3 equals transformers' under the same weights; every owner's names of DINOv3 are read."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel, EomtDinov3Config, EomtDinov3ForUniversalSegmentation

from segfolio.architectures.mask_classification.eomt_dinov3 import EoMTDINOv3
from segfolio.errors import SegfolioError

TINY = EoMTDINOv3.tiny
BACKBONE = TINY["backbone"]
SIZE = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 256}
LICENCE = pytest.warns(UserWarning, match="are under the DINOv3 License")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transformers_own() -> Any:
    """transformers' network of the size of `TINY`, with random weights throughout."""
    config = EomtDinov3Config(
        **SIZE, image_size=64, num_queries=8, num_labels=5, layer_norm_eps=1e-5, attn_implementation="sdpa"
    )
    return random_weights(EomtDinov3ForUniversalSegmentation(config).eval(), 0.1)


def random_weights(network: Any, std: float) -> Any:
    for p in network.parameters():
        nn.init.normal_(p, std=std)
    return network


@pytest.mark.parametrize("probabilities", [[1.0] * 4, [0.0, 0.0, 1.0, 1.0], [0.0] * 4], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_logits_are_transformers(tmp_path: Path, probabilities: list[float], training: bool) -> None:
    theirs = transformers_own().train(training)
    theirs.attn_mask_probs.copy_(torch.tensor(probabilities))
    torch.save(theirs.state_dict(), tmp_path / "eomt.pth")
    with LICENCE:
        ours = EoMTDINOv3(5, **TINY, weights=str(tmp_path / "eomt.pth")).train(training)
    assert ours.mask_probabilities == probabilities
    images = torch.randn(2, 3, 64, 64)
    outputs = []
    for network in (ours, theirs):
        torch.manual_seed(1)  # of the scale of the positions
        with torch.no_grad():
            outputs.append(network(images))
    mine, other = outputs
    torch.testing.assert_close(mine.class_logits, other.class_queries_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits, atol=1e-5, rtol=1e-5)
    assert len(mine.auxiliary) == (4 if training else 0)


def features(network: EoMTDINOv3, images: Tensor) -> Tensor:
    """What the encoder says, without queries."""
    positions, tokens = network.rope_embeddings(images), network.embeddings(images)
    for layer in network.layers:
        tokens = layer(tokens, position_embeddings=positions)
    return network.layernorm(tokens)


@pytest.mark.parametrize("backbone", [BACKBONE, "vit_small_patch16_dinov3"])
def test_a_vit_of_timm_becomes_the_encoder(tmp_path: Path, backbone: str) -> None:
    vit = timm.create_model(backbone, num_classes=0, dynamic_img_size=True, **TINY["size"]).eval()
    random_weights(vit, 0.1)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    with LICENCE:
        network = EoMTDINOv3(5, **{**TINY, "backbone": backbone}, weights=str(tmp_path / "vit.pth")).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(features(network, images), vit.forward_features(images), atol=1e-4, rtol=1e-3)


def meta_own() -> Any:
    return random_weights(DINOv3ViTModel(DINOv3ViTConfig(**SIZE, num_register_tokens=4)).eval(), 0.1)


def test_meta_s_repository_becomes_the_encoder(tmp_path: Path) -> None:
    vit = meta_own()
    vit.save_pretrained(tmp_path)
    with LICENCE:
        network = EoMTDINOv3(5, **TINY, weights=str(tmp_path)).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(features(network, images), vit(images).last_hidden_state, atol=1e-5, rtol=1e-5)


def authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' EoMT under the names of the authors' releases."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in (
            ("embeddings.", "encoder.backbone.patch_embed."),
            ("layers.", "encoder.backbone.blocks."),
            ("layernorm.", "encoder.backbone.norm."),
            ("query.", "q."),
            ("class_predictor.", "class_head."),
            ("upscale_block.block.", "upscale."),
        ):
            if key.startswith(ours):
                key = key.replace(ours, theirs, 1)
        key = key.replace("layernorm2d", "norm")
        for number in (1, 2, 3):
            key = key.replace(f"mask_head.fc{number}", f"mask_head.{2 * number - 2}")
        renamed[key if key.startswith("criterion") else f"network.{key}"] = value
    return renamed


def test_a_release_is_a_delta_to_dinov3(tmp_path: Path) -> None:
    vit, theirs = meta_own(), transformers_own()
    vit.save_pretrained(tmp_path / "vit")
    base = {
        key.replace("model.layer.", "layers.").replace("norm.", "layernorm.", key.startswith("norm.")): value
        for key, value in vit.state_dict().items()
    }
    whole = theirs.state_dict()
    delta = {key: value - base[key] if key in base else value for key, value in whole.items()}
    torch.save(authors_names(delta), tmp_path / "delta.pth")
    with LICENCE:
        ours = EoMTDINOv3(5, **TINY, weights=str(tmp_path / "vit"), delta=str(tmp_path / "delta.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).mask_logits, theirs(images).masks_queries_logits, atol=1e-4, rtol=1e-4)
    del delta["embeddings.cls_token"]
    delta["embeddings.cls_token"] = torch.zeros(1, 1, 8)
    torch.save(authors_names(delta), tmp_path / "other.pth")
    with pytest.raises(SegfolioError, match=r"other\.pth is no delta of these weights: embeddings\.cls_token differs"):
        EoMTDINOv3(5, **TINY, weights=str(tmp_path / "vit"), delta=str(tmp_path / "other.pth"))


def test_a_state_dict_of_its_own_says_no_licence(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    network = EoMTDINOv3(5, **TINY)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    copy = EoMTDINOv3(5, **TINY, weights=str(tmp_path / "own.pth"))
    assert not [w for w in recwarn if "License" in str(w.message)]
    assert torch.equal(copy.query.weight, network.query.weight)


@pytest.mark.parametrize("backbone", ["vit_small_plus_patch16_dinov3", "test_vit", "resnet18"])
def test_backbones_that_are_no_plain_vit_of_dinov3(backbone: str) -> None:
    with pytest.raises(SegfolioError, match=f"without gated layers, .* not of {backbone}"):
        EoMTDINOv3(5, **{**TINY, "backbone": backbone, "size": None})


def test_weights_that_are_not_to_be_had() -> None:
    with pytest.raises(SegfolioError, match=r"lvd is neither a file, nor a repository .* \(eupe_lvd1689m\)"):
        EoMTDINOv3(5, **TINY, weights="lvd")


def test_weights_of_another_patch_size_do_not_fit(tmp_path: Path) -> None:
    state = timm.create_model(BACKBONE, patch_size=8, **TINY["size"]).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(SegfolioError, match=r"vit.pth is of patches of 8x8 pixels and the network's are 16x16"):
        EoMTDINOv3(5, **TINY, weights=str(tmp_path / "vit.pth"))


def test_more_blocks_with_queries_than_blocks_are_refused() -> None:
    with pytest.raises(SegfolioError, match="num_blocks of EoMTDINOv3 is 7, but its backbone has 6; give 1 to 6"):
        EoMTDINOv3(5, **{**TINY, "num_blocks": 7})


@pytest.mark.parametrize(
    ("variant", "millions"), [("EoMT-S, DINOv3", 23.36), ("EoMT-B, DINOv3", 92.43), ("EoMT-L, DINOv3", 315.03)]
)
def test_parameters_with_the_classes_of_coco_panoptic(variant: str, millions: float) -> None:
    with torch.device("meta"):
        network = EoMTDINOv3(133, **EoMTDINOv3.variants[variant])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
