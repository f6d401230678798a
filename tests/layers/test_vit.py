"""timm's ViTs as encoders: the same tokens as timm's own forward pass, and what does not fit."""

from typing import Any

import pytest
import timm
import torch
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.layers.vit import behind_blocks, embed, load_vit, patch_map, plain_vit, resized


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backbone", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_tokens_are_those_of_timm_at_the_size_of_the_table(backbone: str) -> None:
    """With class token, and with that of distillation."""
    vit = plain_vit(backbone, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = behind_blocks(vit, embed(vit, images), [len(vit.blocks) - 1, 2], checkpointing=False)
        expected = vit.forward_intermediates(images, indices=[2], intermediates_only=True)
        torch.testing.assert_close(vit.norm(tokens[0]), vit.forward_features(images))
        torch.testing.assert_close(patch_map(tokens[1], (4, 4)), expected[0])


def test_positions_are_interpolated_bilinearly() -> None:
    grid = torch.randn(1, 3, 4, 6)
    found = resized(grid.flatten(2).transpose(1, 2), (4, 6), (7, 5))
    torch.testing.assert_close(patch_map(found, (7, 5)), interpolate(grid, (7, 5), mode="bilinear"))


@pytest.mark.parametrize("prefix", [0, 1, None])
def test_weights_of_another_image_size_load_with_the_tokens_that_are_kept(prefix: int | None) -> None:
    given = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, img_size=96)
    vit = plain_vit("deit_tiny_distilled_patch16_224", 64, prefix)
    load_vit(vit, given.state_dict(), "file")
    kept = 2 if prefix is None else prefix
    assert vit.pos_embed.shape[1] == kept + 16
    assert [token is not None for token in (vit.cls_token, vit.dist_token)] == [kept > 0, kept > 1]
    torch.testing.assert_close(vit.pos_embed[:, :kept], given.pos_embed[:, :kept])
    torch.testing.assert_close(vit.pos_embed[:, kept:], resized(given.pos_embed[:, 2:], (6, 6), (4, 4)))
    assert torch.equal(vit.blocks[3].mlp.fc1.weight, given.blocks[3].mlp.fc1.weight)


def without(state: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in keys}


def test_weights_that_do_not_fit_are_one_sentence() -> None:
    vit = plain_vit("test_vit", 64)
    state = vit.state_dict()
    larger = timm.create_model("test_vit", img_size=64, patch_size=32)
    with pytest.raises(SegfolioError, match=r"file is of patches of 32x32 pixels and the network's are 16x16"):
        load_vit(vit, larger.state_dict(), "file")
    with pytest.raises(SegfolioError, match=r"file has a table of 20 positions, which is no square grid"):
        load_vit(vit, {**state, "pos_embed": torch.zeros(1, 20, 64)}, "file")
    with pytest.raises(SegfolioError, match=r"file: 1 of the weights are missing: pos_embed"):
        load_vit(vit, without(state, "pos_embed"), "file")


@pytest.mark.parametrize(
    ("backbone", "size", "said"),
    [
        ("vit_bsae_patch16_384", 64, "did you mean one of"),
        ("resnet50", 64, "backbone resnet50 is no plain ViT"),
        ("swin_tiny_patch4_window7_224", 64, "is no plain ViT with a table of positions"),
        ("test_vit3", 64, "is no plain ViT"),
        ("test_vit", 72, "image_size is 72; test_vit needs whole patches of 16x16 pixels"),
    ],
)
def test_backbones_that_will_not_do_are_one_sentence(backbone: str, size: int, said: str) -> None:
    with pytest.raises(SegfolioError, match=said):
        plain_vit(backbone, size)
