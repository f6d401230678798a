"""Mask2Former equals transformers' under the same weights."""

from pathlib import Path

import pytest
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from segfolio.architectures.mask_classification.mask2former import Mask2Former
from segfolio.layers.backbones import SWINS, backbone_config

SWIN = "swin_tiny_patch4_window7_224"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transformers_own(backbone: str) -> Mask2FormerForUniversalSegmentation:
    """transformers' Mask2Former of the size of `Mask2Former.tiny`, with random weights throughout."""
    config = Mask2FormerConfig(
        backbone_config=backbone_config(backbone),
        num_queries=16,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=4,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        num_labels=5,
    )
    model = Mask2FormerForUniversalSegmentation(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


@pytest.mark.parametrize("backbone", ["test_efficientnet", SWIN])
def test_logits_and_auxiliary_outputs_are_transformers(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    monkeypatch.setitem(SWINS, "tiny", (16, (1, 2, 1, 1), (1, 2, 2, 4)))
    theirs = transformers_own(backbone)
    ours = Mask2Former(5, **{**Mask2Former.tiny, "backbone": backbone})
    state = theirs.state_dict()
    assert state.pop("criterion.empty_weight").shape == (6,)
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        evaluated, other = ours.eval()(images), theirs(images, output_auxiliary_logits=True)
        ours.train()
        ours.model.pixel_level_module.encoder.eval()  # batch statistics, stochastic depth
        trained = ours(images)
    assert evaluated.auxiliary == []
    for mine in (evaluated, trained):
        torch.testing.assert_close(mine.class_logits, other.class_queries_logits)
        torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits)
    assert len(trained.auxiliary) == 3  # of the query features and of two layers
    for (classes, masks, _), auxiliary in zip(trained.auxiliary, other.auxiliary_logits, strict=True):
        torch.testing.assert_close(classes, auxiliary["class_queries_logits"])
        torch.testing.assert_close(masks, auxiliary["masks_queries_logits"])


def test_a_released_model_is_read_from_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SWINS, "tiny", (16, (1, 2, 1, 1), (1, 2, 2, 4)))
    theirs = transformers_own(SWIN)
    theirs.save_pretrained(tmp_path)
    ours = Mask2Former(5, **{**Mask2Former.tiny, "backbone": SWIN}, weights=str(tmp_path)).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(images).mask_logits, theirs(images).masks_queries_logits)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [
        ("R50", 44.04),
        ("R101", 63.03),
        ("Swin-T", 47.44),
        ("Swin-S", 68.76),
        ("Swin-B", 106.92),
        ("Swin-L, 200 queries", 215.54),
    ],
)
def test_parameters(variant: str, millions: float) -> None:
    """The paper's tables have 44, 63, 47, 69, 107 and 216 million."""
    with torch.device("meta"):
        network = Mask2Former(150, **Mask2Former.variants[f"Mask2Former, {variant}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_the_pixel_decoder_stays_in_float32() -> None:
    """In half precision the sampling points of wide images would fall on whole pixels."""
    network = Mask2Former(5, **Mask2Former.tiny).eval()
    found = []
    decoder = network.model.pixel_level_module.decoder
    decoder.register_forward_hook(lambda module, args, out: found.extend([args[0][0].dtype, out.mask_features.dtype]))
    layer = decoder.encoder.layers[0].self_attn.sampling_offsets
    layer.register_forward_hook(lambda module, args, out: found.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.randn(1, 3, 64, 64))
    assert set(found) == {torch.float32}
    assert output.class_logits.dtype == torch.bfloat16


def test_initial_values_are_the_authors() -> None:
    model = Mask2Former(5, **{**Mask2Former.tiny, "width": 256}).model
    pixels, layer = model.pixel_level_module.decoder, model.transformer_module.decoder.layers[0]
    expected = {
        model.transformer_module.queries_features.weight: 1.0,
        pixels.mask_projection.weight: (1 / 256) ** 0.5,  # Caffe2's Xavier fill
        pixels.input_projections[0][0].weight: (2 / (64 + 256)) ** 0.5,
        pixels.encoder.layers[0].fc1.weight: (2 / (256 + 64)) ** 0.5,
        layer.self_attn.q_proj.weight: (2 / (256 + 3 * 256)) ** 0.5,  # of all three in one
        layer.cross_attn.in_proj_weight: (2 / (256 + 3 * 256)) ** 0.5,
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)
