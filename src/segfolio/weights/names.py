"""Under which names libraries keep the weights of one backbone."""

import re
import warnings
from collections.abc import Collection, Mapping
from functools import cache

import timm
import torch
import torchvision
from torch import Tensor
from torchvision.models import get_model, list_models

PREFIXES = (  # of torchvision's, timm's and smp's networks within others, of mmsegmentation's, Detectron2's
    *("model.", "backbone.", "encoder.", "model.backbone.", "model.encoder.", "backbone.body."),
    *("encoder.model.", "model.encoder.model.", "backbone.bottom_up."),
)
_RESNET_BLOCK = re.compile(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(?:shortcut|layer\.(\d))\.(conv|norm)[a-z]+")


@cache
def names_of(backbone: str) -> frozenset[str]:
    """The names of a classifier's tensors in torchvision, in timm, or in both; none of a network that neither has."""
    found = set[str]()
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initial values that nobody sees
        if backbone in list_models(torchvision.models):
            found |= get_model(backbone, weights=None).state_dict().keys()
        if timm.is_model(backbone):
            found |= timm.create_model(backbone).state_dict().keys()
    return frozenset(found)


def unwrapped(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Of a state dict the part that most of `names` are found in, under these names: what a library puts before them is
    removed, and transformers' ResNets are renamed. As it is, where that finds most.
    """
    readings = [
        dict(state),
        *({key.removeprefix(before): x for key, x in state.items() if key.startswith(before)} for before in PREFIXES),
        {of_resnet(key.removeprefix("resnet.")): x for key, x in state.items()},
    ]
    return max(readings, key=lambda reading: len(reading.keys() & set(names)))


def of_resnet(key: str) -> str:
    """timm's and torchvision's name of a weight of transformers' `ResNetModel`; another as it is."""
    key = key.replace("embedder.embedder.convolution", "conv1").replace("embedder.embedder.normalization", "bn1")
    key = re.sub(r"^classifier\.1\.", "fc.", key)
    if not (block := _RESNET_BLOCK.search(key)):
        return key
    stage, index, layer, kind = block.groups()
    place = f"downsample.{int(kind == 'norm')}" if layer is None else f"{kind.replace('norm', 'bn')}{int(layer) + 1}"
    return key.replace(block[0], f"layer{int(stage) + 1}.{index}.{place}")
