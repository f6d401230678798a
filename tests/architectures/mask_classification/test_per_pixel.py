"""The per-pixel baselines share MaskFormer's layers, number for number."""

import pytest
import torch

from segfolio.architectures.mask_classification.maskformer import MaskFormer
from segfolio.architectures.mask_classification.per_pixel import PerPixelBaseline, PerPixelBaselinePlus


@pytest.fixture
def maskformer() -> MaskFormer:
    torch.manual_seed(0)
    return MaskFormer(5, **{**MaskFormer.tiny, "num_queries": None}).eval()


def test_the_scores_of_a_class_are_the_mask_of_its_query(maskformer: MaskFormer) -> None:
    network = PerPixelBaselinePlus(5, **PerPixelBaselinePlus.tiny, decoder_layers=2).eval()
    state = maskformer.state_dict()
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("class_predictor")})
    images = torch.randn(2, 3, 65, 97)
    assert torch.equal(network(images).logits, maskformer(images).mask_logits)
    assert network(images).auxiliary == {}


def test_every_earlier_decoder_layer_is_auxiliary_in_training() -> None:
    network = PerPixelBaselinePlus(5, **PerPixelBaselinePlus.tiny, decoder_layers=3).train()
    network.model.pixel_level_module.encoder.eval()  # batch statistics
    images = torch.randn(2, 3, 65, 97)
    logits, auxiliary = network(images)
    assert list(auxiliary) == ["layer_1", "layer_2"]
    queries, pixels = network.embed(images)
    for scores, layer in zip([*auxiliary.values(), logits], queries, strict=True):
        torch.testing.assert_close(scores, network.masks(layer, pixels))


def test_the_baseline_classifies_maskformers_pixel_embeddings(maskformer: MaskFormer) -> None:
    network = PerPixelBaseline(5, **PerPixelBaseline.tiny).eval()
    network.model.load_state_dict(maskformer.model.pixel_level_module.state_dict())
    images = torch.randn(2, 3, 65, 97)
    _, pixels = maskformer.embed(images)
    assert torch.equal(network(images), network.classifier(pixels))


@pytest.mark.parametrize(("cls", "millions"), [(PerPixelBaseline, 31.09), (PerPixelBaselinePlus, 41.28)])
def test_parameters(cls: type, millions: float) -> None:
    with torch.device("meta"):
        network = cls(150)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
