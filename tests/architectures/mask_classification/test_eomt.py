"""EoMT equals transformers' under the same weights; masks are annealed; images may have any size."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import EomtConfig, EomtForUniversalSegmentation

from segfolio.architectures.mask_classification.eomt import EoMT
from segfolio.errors import SegfolioError

TINY = {**EoMT.tiny, "num_blocks": 2}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def transformers_own() -> EomtForUniversalSegmentation:
    """transformers' EoMT of the size of `TINY`, with random weights throughout."""
    config = EomtConfig(
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        mlp_ratio=3,
        num_register_tokens=0,
        image_size=64,
        num_queries=8,
        num_blocks=2,
        num_labels=5,
    )
    model = EomtForUniversalSegmentation(config).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    return model


def assert_equal(ours: EoMT, theirs: EomtForUniversalSegmentation, images: Tensor) -> None:
    with torch.no_grad():
        mine, other = ours(images), theirs(images)
    torch.testing.assert_close(mine.class_logits, other.class_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mine.mask_logits, other.masks_queries_logits, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("probabilities", [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_logits_are_transformers(tmp_path: Path, probabilities: list[float], training: bool) -> None:
    theirs = transformers_own().train(training)
    theirs.attn_mask_probs.copy_(torch.tensor(probabilities))
    torch.save(theirs.state_dict(), tmp_path / "eomt.pth")
    ours = EoMT(5, **TINY, weights=str(tmp_path / "eomt.pth")).train(training)
    assert ours.mask_probabilities == probabilities
    assert_equal(ours, theirs, torch.randn(2, 3, 64, 64))


def test_a_released_model_is_read_from_its_folder(tmp_path: Path) -> None:
    theirs = transformers_own()
    theirs.save_pretrained(tmp_path)
    ours = EoMT(5, **TINY, weights=str(tmp_path)).eval()
    assert_equal(ours, theirs, torch.randn(1, 3, 64, 64))


def test_a_block_without_masking_does_not_inherit_the_mask_of_the_block_before() -> None:
    """In transformers it does in evaluation, so that there half-annealed models differ from those trained."""
    network = EoMT(5, **TINY).eval()
    passed: list[bool] = []
    for layer in network.layers[-2:]:
        layer.register_forward_hook(lambda module, args, out: passed.append(args[1] is not None))
    network.mask_probabilities = [1.0, 0.0]
    network(torch.randn(1, 3, 64, 64))
    assert passed == [True, False]


def test_a_query_attends_to_the_patches_of_its_mask_and_to_every_other_token() -> None:
    network = EoMT(5, **TINY)
    masks = torch.full((1, 8, 16, 16), -1.0)
    masks[0, 3, :, 8:] = 1
    allowed = network._attention_mask(masks, 8 + 1 + 16, (4, 4), 1.0)[0, 0]
    assert allowed[8:].all()  # patches and class token
    assert allowed[:8, :9].all()  # queries to queries and class token
    assert allowed[3, 9:].view(4, 4).tolist() == [[False, False, True, True]] * 4
    assert not allowed[[0, 1, 2, 4, 5, 6, 7], 9:].any()


def test_a_probability_is_the_share_of_queries_that_are_kept_to_their_masks() -> None:
    network = EoMT(5, **TINY)
    masks = torch.full((500, 8, 16, 16), -1.0)
    allowed = network._attention_mask(masks, 8 + 1 + 16, (4, 4), 0.3)[:, 0, :8, 9:]
    assert (allowed.all(-1) | ~allowed.any(-1)).all()
    assert (~allowed.any(-1)).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_probabilities_are_saved_with_the_weights() -> None:
    network, other = EoMT(5, **TINY), EoMT(5, **TINY)
    network.mask_probabilities = [0.0, 0.25]
    other.load_state_dict(network.state_dict())
    assert other.mask_probabilities == [0.0, 0.25]


def test_auxiliary_outputs_are_of_every_block_in_training_whatever_its_probability() -> None:
    network = EoMT(5, **TINY)
    network.mask_probabilities = [0.0, 0.5]
    images = torch.randn(1, 3, 40, 70)
    assert [layer.mask_logits.shape for layer in network(images).auxiliary] == [(1, 8, 10, 18)] * 2
    assert network.eval()(images).auxiliary == []


def test_annealed_it_masks_no_attention_and_asks_for_no_mask_on_the_way() -> None:
    network, images = EoMT(5, **TINY).eval(), torch.randn(1, 3, 40, 70)
    masked = network(images).mask_logits
    calls: list[int] = []
    network.mask_head.register_forward_hook(lambda *given: calls.append(1))
    assert not network.annealed()(images).mask_logits.equal(masked)
    assert len(calls) == 1


def test_position_embeddings_are_interpolated_for_another_grid() -> None:
    network = EoMT(5, **TINY)
    weight = network.embeddings.position_embeddings.weight
    with torch.no_grad():
        weight.copy_(torch.arange(4.0).repeat_interleave(4)[:, None].expand(16, 64))  # the row
        nn.init.zeros_(network.embeddings.patch_embeddings.projection.weight)
        nn.init.zeros_(network.embeddings.patch_embeddings.projection.bias)
    same = network._embed(torch.zeros(1, 3, 64, 64), (4, 4))
    wide = network._embed(torch.zeros(1, 3, 64, 128), (4, 8))
    assert torch.equal(same[0, 1:], weight)
    torch.testing.assert_close(wide[0, 1:, 0].view(4, 8), torch.arange(4.0)[:, None].expand(4, 8), atol=1e-4, rtol=0)


def test_images_padded_to_size_see_the_positions_of_the_square() -> None:
    network = EoMT(5, **TINY, pad_to_size=True).eval()
    images = torch.randn(1, 3, 40, 64)
    square = torch.nn.functional.pad(images, (0, 0, 0, 24))
    with torch.no_grad():
        padded, whole = network(images), network(square)
    assert torch.equal(padded.class_logits, whole.class_logits)
    assert torch.equal(padded.mask_logits, whole.mask_logits[..., :10, :])


@pytest.mark.parametrize("patch_size", [4, 14, 24])
def test_patches_that_do_not_come_to_a_quarter_are_refused(patch_size: int) -> None:
    with pytest.raises(SegfolioError, match=f"patch_size of EoMT is {patch_size}, expected 8, 16, 32"):
        EoMT(3, **EoMT.tiny, patch_size=patch_size)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_a_vit_of_timm_becomes_the_encoder(tmp_path: Path, backbone: str) -> None:
    vit = timm.create_model(backbone, num_classes=0, img_size=64, patch_size=16).eval()
    for p in vit.parameters():
        nn.init.normal_(p, std=0.1)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    network = EoMT(5, **{**TINY, "backbone": backbone}, weights=str(tmp_path / "vit.pth"))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens = network._embed(images, (4, 4))
        for layer in network.layers:
            tokens = layer(tokens)
        torch.testing.assert_close(network.layernorm(tokens), vit.forward_features(images), atol=1e-4, rtol=1e-3)


def test_a_vit_of_other_patches_and_size_is_resampled(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", img_size=112, patch_size=14).state_dict(), tmp_path / "vit.pth")
    network = EoMT(5, **TINY, weights=str(tmp_path / "vit.pth"))
    assert network.embeddings.position_embeddings.weight.shape == (16, 64)
    assert network.embeddings.patch_embeddings.projection.weight.shape[2:] == (16, 16)


def test_weights_of_another_vit_do_not_fit(tmp_path: Path) -> None:
    vit = timm.create_model("test_vit").state_dict()
    shorter = {k: v for k, v in vit.items() if "blocks.5" not in k}
    for state, message in ((shorter, r"missing: layers\.5"), ({"conv1.weight": torch.ones(1)}, "weights are missing")):
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(SegfolioError, match=message):
            EoMT(5, **TINY, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("backbone", ["resnet18", "test_vit2"])
def test_backbones_that_are_no_plain_vit(backbone: str) -> None:
    with pytest.raises(SegfolioError, match=f"backbone {backbone} is no plain ViT"):
        EoMT(5, **{**TINY, "backbone": backbone})


@pytest.mark.parametrize(("variant", "millions"), [("EoMT-S", 23.98), ("EoMT-B", 93.66), ("EoMT-L", 316.70)])
def test_parameters_with_the_classes_of_coco_panoptic(variant: str, millions: float) -> None:
    with torch.device("meta"):
        network = EoMT(133, **EoMT.variants[variant])
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
