"""MaskFormer equals transformers' under the same weights, and the authors' where transformers' differs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.errors import SegfolioError
from segfolio.layers.backbones import SWINS, backbone_config

SWIN = "swin_tiny_patch4_window7_224"


def test_dropout_is_in_attention_and_perceptron_too() -> None:
    decoder = MaskFormer(3, **MaskFormer.tiny | {"dropout": 0.25}).model.transformer_module.decoder
    layer = decoder.layers[0]
    found = layer.dropout, layer.self_attn.attention_dropout, layer.encoder_attn.attention_dropout
    assert [*found, layer.mlp.activation_dropout] == [0.25] * 4


@pytest.fixture(autouse=True)
def _small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SWINS, "tiny", (16, (1, 2, 1, 1), (1, 2, 2, 4)))
    torch.manual_seed(0)


def transformers_own(encoder: Any, num_classes: int = 5) -> MaskFormerForInstanceSegmentation:
    """transformers' MaskFormer of the size of `MaskFormer.tiny`, with random weights throughout."""
    decoder = DetrConfig(
        num_queries=8, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64, dropout=0.0
    )
    config = MaskFormerConfig(
        backbone_config=encoder,
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=num_classes,
    )
    model = MaskFormerForInstanceSegmentation(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def assert_equal(ours: MaskFormer, theirs: MaskFormerForInstanceSegmentation, images: Tensor) -> None:
    with torch.no_grad():
        mine, other = ours.eval()(images), theirs(images)
    torch.testing.assert_close(mine.class_logits, other.class_queries_logits)
    torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits)


@pytest.mark.parametrize("backbone", ["test_efficientnet", SWIN])
def test_logits_are_transformers(backbone: str) -> None:
    theirs = transformers_own(backbone_config(backbone))
    ours = MaskFormer(5, **{**MaskFormer.tiny, "backbone": backbone})
    state = theirs.state_dict()
    assert state.pop("criterion.empty_weight").shape == (6,)
    ours.load_state_dict(state)
    assert_equal(ours, theirs, torch.randn(2, 3, 64, 96))


def test_a_released_swin_is_read_from_its_folder(tmp_path: Path) -> None:
    theirs = transformers_own(backbone_config(SWIN))
    theirs.save_pretrained(tmp_path)
    ours = MaskFormer(5, **{**MaskFormer.tiny, "backbone": SWIN}, weights=str(tmp_path))
    assert_equal(ours, theirs, torch.randn(1, 3, 64, 64))


def test_a_released_resnet_becomes_timms(tmp_path: Path) -> None:
    config = ResNetConfig(depths=[2, 2, 2, 2], out_features=["stage1", "stage2", "stage3", "stage4"])
    theirs = transformers_own(config)
    torch.save(theirs.state_dict(), tmp_path / "maskformer.pth")
    ours = MaskFormer(5, **{**MaskFormer.tiny, "backbone": "resnet26"}, weights=str(tmp_path / "maskformer.pth"))
    assert_equal(ours, theirs, torch.randn(1, 3, 64, 64))


def test_weights_of_other_classes_do_not_fit(tmp_path: Path) -> None:
    torch.save(MaskFormer(5, **MaskFormer.tiny).state_dict(), tmp_path / "five.pth")
    with pytest.raises(SegfolioError, match=r"another shape: class_predictor.weight \[6, 32\] for \[8, 32\]"):
        MaskFormer(7, **MaskFormer.tiny, weights=str(tmp_path / "five.pth"))


def test_an_auxiliary_output_is_that_of_the_network_cut_there() -> None:
    """What a layer predicts is normalised, what it passes on is not (the authors' `return_intermediate_dec`)."""
    arguments = {**MaskFormer.tiny, "decoder_layers": 3}
    network = MaskFormer(5, **arguments)
    images = torch.randn(2, 3, 64, 64)
    network(images)  # running statistics
    network.eval().train()
    output = network(images)
    assert len(output.auxiliary) == 2
    for layers, (classes, masks, _) in enumerate(output.auxiliary, start=1):
        cut = MaskFormer(5, **{**arguments, "decoder_layers": layers})
        cut.load_state_dict(network.state_dict(), strict=False)
        shorter = cut.train()(images)
        torch.testing.assert_close(shorter.class_logits, classes)
        torch.testing.assert_close(shorter.mask_logits, masks)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("R50", 41.31), ("R101", 60.30), ("R101c", 60.42), ("Swin-S", 63.08), ("Swin-B", 101.83), ("Swin-L", 211.58)],
)
def test_parameters(variant: str, millions: float) -> None:
    """The paper's Table 1 has 41, 60, 60, 63, 102 and 212 million with the 150 classes of ADE20K."""
    with torch.device("meta"):
        network = MaskFormer(150, **MaskFormer.variants[f"MaskFormer, {variant}"])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_parameters_of_swin_t(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SWINS, "tiny", (96, (2, 2, 6, 2), (3, 6, 12, 24)))
    test_parameters("Swin-T", 41.76)


def test_one_query_per_class() -> None:
    network = MaskFormer(7, **{**MaskFormer.tiny, "num_queries": None})
    assert network(torch.randn(1, 3, 64, 64)).class_logits.shape == (1, 7, 8)


def test_initial_values_are_the_authors() -> None:
    model = MaskFormer(5, **{**MaskFormer.tiny, "width": 256}).model
    decoder = model.transformer_module.decoder.layers[0]
    expected = {
        model.transformer_module.queries_embedder.weight: 1.0,  # nn.Embedding's
        decoder.self_attn.q_proj.weight: (2 / (256 + 3 * 256)) ** 0.5,  # Xavier's, of all three in one
        decoder.encoder_attn.o_proj.weight: (2 / 512) ** 0.5,
        decoder.mlp.fc1.weight: (2 / (256 + 64)) ** 0.5,
        model.pixel_level_module.decoder.mask_projection.weight: (1 / (9 * 256)) ** 0.5,  # Caffe2's Xavier fill
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)


def test_training_after_an_evaluation_in_inference_mode() -> None:
    """transformers keeps position embeddings between calls; those made in inference mode must not end in a graph."""
    network = MaskFormer(5, **MaskFormer.tiny)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        network.eval()(images)
    network.train()(images).mask_logits.sum().backward()
    assert network.model.transformer_module.queries_embedder.weight.grad.abs().sum() > 0
