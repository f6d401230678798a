"""Which weights are restricted, and what is told of them."""

import pytest

from segfolio.weights.licences import licence_of


@pytest.mark.parametrize(
    ("backbone", "weights", "says"),
    [
        ("mit_b3", "imagenet", "NVIDIA"),
        ("mit_b0", "weights/mit_b0.pth", "NVIDIA"),
        ("vit_small_patch16_dinov3", "lvd1689m", "DINOv3 License"),
        ("convnext_tiny", "dinov3_lvd1689m", "DINOv3 License"),
        ("vit_small_patch16_dinov3", "weights/v3.safetensors", "DINOv3 License"),
        ("convnext_tiny", "eupe_lvd1689m", "FAIR Noncommercial"),
        ("vit_base_patch16_224", "mae", "CC BY-NC 4.0"),
        ("fastvit_s12", "apple_in1k", "'fastvit-license' as timm names it"),
        ("vit_base_patch16_384", "augreg_in21k_ft_in1k", None),
        ("vit_small_patch14_dinov2", "lvd142m", None),
        ("res2net50d", "in1k", None),
        ("resnet34", "imagenet", None),
        ("resnet34", "runs/of_mine/last.ckpt", None),
    ],
)
def test_timm_says_the_licence_of_each_tag_and_names_tell_that_of_files(
    backbone: str, weights: str, says: str | None
) -> None:
    found = licence_of(backbone, weights)
    assert found is None if says is None else says in str(found)
