"""Rows whose authors' code does what their paper does not say, or says in passing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.data.transforms import GaussianBlur
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"


def rows(*patterns: str) -> list[Any]:
    files = [file for pattern in patterns for file in sorted(EXPERIMENTS.glob(pattern)) if file.name != "claims.yaml"]
    assert files
    return [pytest.param(file, id=f"{file.parent.name}/{file.stem}") for file in files]


def classes(part: Any, name: str) -> Iterator[dict[str, Any]]:
    """The arguments of every class of that name in a config."""
    if isinstance(part, dict) and str(part.get("class_path", "")).endswith(f".{name}"):
        yield part.get("init_args") or {}
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from classes(each, name)


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize("file", rows("pspnet/semseg_*.yaml"))
def test_half_of_the_images_are_turned_and_half_are_blurred(file):
    (window,) = classes(read(file), "RandomWindow")
    assert (window["rotation"], window["rotation_probability"]) == (10.0, 0.5)
    (blur,) = classes(read(file), "GaussianBlur")
    assert GaussianBlur(**blur).probability == 0.5


@pytest.mark.parametrize("file", rows("maskformer/ade20k_[rs]*.yaml", "mask2former/*.yaml", "eomt/*.yaml"))
def test_void_pixels_are_negatives_of_every_mask(file):
    (loss,) = classes(read(file), "MaskClassificationLoss")
    assert loss["void"] == "negative"


@pytest.mark.parametrize("file", rows("deeplab_v3_plus/*.yaml"))
def test_batch_normalisation_is_over_the_whole_batch(file):
    assert read(file)["trainer"]["sync_batchnorm"] is True


def test_the_classes_of_cityscapes_are_weighted_in_both_losses_of_ocrnet():
    """By how rare they are: a road counts least, a motorcycle most. The mean is weighted, as torch's is."""
    arguments = read(EXPERIMENTS / "ocrnet/cityscapes_hrnet_w48.yaml")["model"]["init_args"]
    main, regions = (next(classes(arguments[key], "CrossEntropy")) for key in ("losses", "auxiliary_losses"))
    assert main == regions
    assert main["reduction"] == "weighted_mean"
    weight = main["weight"]
    assert len(weight) == 19
    assert (min(weight), max(weight)) == (weight[0], weight[17]) == (0.8373, 1.1529)
